// One line of input: its JSON checked and taken apart.
#pragma once

#include <boost/json/value.hpp>

#include <cstdint>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "tools/score/mode.h"

namespace augur::score {

/// A line that cannot be used, and why. The run goes on without it.
class BadLine : public std::runtime_error {
 public:
  /// `id_json`: the line's id where it could be read, else empty.
  explicit BadLine(const std::string& reason, std::string id_json = "")
      : std::runtime_error(reason), id_json_(std::move(id_json)) {}
  const std::string& id_json() const { return id_json_; }

 private:
  std::string id_json_;
};

struct TextInput {
  std::string text;
};
struct CompletionInput {  // only the completion is scored
  std::string prompt;
  std::string completion;
};
struct MessagesInput {
  boost::json::array messages;  // objects, each with a "role"
  std::optional<boost::json::array> tools;
};
struct IdsInput {
  std::vector<int32_t> ids;
};

struct Document {
  std::string id_json;  // a JSON string or number, as it stood in the line
  std::variant<TextInput, CompletionInput, MessagesInput, IdsInput> input;
};

/// Parses a line. The id is the line number when there is none. When generating, "prompt" stands
/// alone and becomes a TextInput; a "completion" beside it is not read. Other keys are ignored.
/// Throws BadLine.
Document parse_document(std::string_view line, int64_t line_number, Mode mode);

}  // namespace augur::score
