#include "engine/server/probe_call.h"

#include <utility>

#include "engine/server/api_error.h"

namespace augur::server {
namespace {

class ProbeAnswer final : public Answer {
 public:
  void on_update(int, const RequestUpdate&, std::string&) override {}

  void on_finished(int, RequestResult&& result, std::string&) override {
    has_token_ = !result.completions.empty() && !result.completions[0].output_ids.empty();
    error_ = std::move(result.error);
  }

  void on_complete(std::string& out) override {
    if (!has_token_) {
      throw ApiError(503, "server_error", "engine_unresponsive", "",
                     error_.empty() ? "the engine did not answer in time" : error_);
    }
    out += R"({"status":"ok"})";
  }

 private:
  bool has_token_ = false;
  std::string error_;
};

}  // namespace

ApiCall make_probe_call(const std::string& id) {
  ApiCall call;
  Request& request = call.requests.emplace_back();
  request.id = id;
  request.prompt_ids = {0};
  request.sampling.max_tokens = 1;
  request.sampling.temperature = 0;
  request.cache_salt = "probe";
  call.answer = std::make_unique<ProbeAnswer>();
  return call;
}

}  // namespace augur::server
