// The request of one token by which /health_generate finds out whether the engine answers.
#pragma once

#include <string>

#include "engine/server/api_call.h"

namespace augur::server {

/// Its answer is {"status": "ok"}, or 503 where the token did not come.
ApiCall make_probe_call(const std::string& id);

}  // namespace augur::server
