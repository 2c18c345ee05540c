// Text from files, made fit for an error message.
#pragma once

#include <string>
#include <string_view>

namespace augur {

/// `text` in single quotes, control characters as \xNN, cut after about 100 bytes: a hostile file
/// can neither steer the terminal nor flood the log.
std::string in_quotes(std::string_view text);

}  // namespace augur
