#include "engine/server/generate_answer.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <iterator>
#include <utility>

#include "engine/server/api_error.h"
#include "engine/server/json_text.h"
#include "engine/server/logprob_json.h"

namespace augur::server {
namespace {

void append_comma(std::string& list) {
  if (!list.empty()) list.push_back(',');
}

void append_finish(const Completion* completion, std::string& out) {
  const FinishReason reason = completion ? completion->finish_reason : FinishReason::kLength;
  switch (reason) {
    case FinishReason::kStop:
      out += R"({"type":"stop","matched":)";
      if (!completion->matched_stop.empty()) {
        append_json_string(completion->matched_stop, out);
      } else if (!completion->output_ids.empty()) {
        append_json_integer(completion->output_ids.back(), out);
      } else {
        out += "null";
      }
      out.push_back('}');
      return;
    case FinishReason::kNone:
    case FinishReason::kLength:
      out += R"({"type":"length","length":)";
      append_json_integer(completion ? static_cast<int64_t>(completion->output_ids.size()) : 0,
                          out);
      out.push_back('}');
      return;
    case FinishReason::kAborted:
    case FinishReason::kFailed:
      out += R"({"type":"abort","message":"Aborted","status_code":null,"err_type":null})";
      return;
  }
}

}  // namespace

GenerateAnswer::GenerateAnswer(GenerateSettings settings)
    : settings_(std::move(settings)), texts_(settings_.tokenizer) {
  choices_.resize(settings_.requests.size() * settings_.n);
  if (!settings_.is_streamed) results_.resize(choices_.size());
}

std::string GenerateAnswer::id_of(int choice_idx) const {
  const std::string& id = settings_.requests[choice_idx / settings_.n].id;
  return settings_.n == 1 ? id : fmt::format("{}_{}", id, choice_idx % settings_.n);
}

void GenerateAnswer::take(const GenerateRequest& request,
                          std::string_view text,
                          std::span<const int32_t> token_ids,
                          std::span<const ScoredToken> logprobs,
                          Choice& choice) {
  append_json_characters(text, choice.text);
  choice.num_text_bytes += text.size();
  choice.num_tokens += token_ids.size();
  if (!token_ids.empty()) append_comma(choice.output_ids);
  append_json_integers(token_ids, choice.output_ids);
  if (!request.has_logprobs) return;
  for (const ScoredToken& scored : logprobs) {
    append_comma(choice.logprobs);
    append_native_logprob(scored.logprob, scored.token_id, settings_.has_text_in_logprobs, texts_,
                          choice.logprobs);
    if (request.top_n == 0) continue;
    append_comma(choice.alternatives);
    append_native_alternatives(scored.top, settings_.has_text_in_logprobs, texts_,
                               choice.alternatives);
  }
}

void GenerateAnswer::append_input_logprobs(const GenerateRequest& request,
                                           const RequestResult& result,
                                           std::string& out) {
  std::string alternatives;
  out += R"(,"input_token_logprobs":[)";
  for (size_t i = 0; i < request.scored_ids.size(); ++i) {
    // The first has none, nor have those an abort left out.
    const bool is_scored = i > 0 && i - 1 < result.prompt_logprobs.size();
    const ScoredToken* scored = is_scored ? &result.prompt_logprobs[i - 1] : nullptr;
    if (i > 0) out.push_back(',');
    append_native_logprob(scored ? std::optional(scored->logprob) : std::nullopt,
                          request.scored_ids[i], settings_.has_text_in_logprobs, texts_, out);
    append_comma(alternatives);
    if (scored != nullptr) {
      append_native_alternatives(scored->top, settings_.has_text_in_logprobs, texts_, alternatives);
    } else {
      alternatives += "null";
    }
  }
  out.push_back(']');
  if (request.top_n == 0) return;
  out += R"(,"input_top_logprobs":[)";
  out += alternatives;
  out.push_back(']');
}

void GenerateAnswer::append_result(int choice_idx, const RequestResult* result, std::string& out) {
  const GenerateRequest& request = settings_.requests[choice_idx / settings_.n];
  const Choice& choice = choices_[choice_idx];
  out += R"({"text":")";
  out += choice.text;
  out += R"(","output_ids":[)";
  out += choice.output_ids;
  out += R"(],"meta_info":{"id":)";
  append_json_string(id_of(choice_idx), out);
  out += R"(,"system_fingerprint":)";
  append_json_string(settings_.fingerprint, out);
  out += R"(,"finish_reason":)";
  if (result == nullptr) {
    out += "null";
  } else {
    const size_t completion_idx = choice_idx % settings_.n;
    const auto& completions = result->completions;
    append_finish(completion_idx < completions.size() ? &completions[completion_idx] : nullptr,
                  out);
  }
  out += R"(,"prompt_tokens":)";
  append_json_integer(request.num_prompt_tokens, out);
  out += R"(,"completion_tokens":)";
  append_json_integer(static_cast<int64_t>(choice.num_tokens), out);
  if (result != nullptr) {
    const std::chrono::duration<double> latency = result->times.finished - result->times.submitted;
    fmt::format_to(std::back_inserter(out), R"(,"cached_tokens":{},"e2e_latency":{:.6f})",
                   result->num_cached_tokens, latency.count());
  }
  if (request.has_logprobs) {
    if (result != nullptr) append_input_logprobs(request, *result, out);
    out += R"(,"output_token_logprobs":[)";
    out += choice.logprobs;
    out.push_back(']');
    if (request.top_n > 0) {
      out += R"(,"output_top_logprobs":[)";
      out += choice.alternatives;
      out.push_back(']');
    }
  }
  out.push_back('}');
  if (settings_.is_list && settings_.is_streamed) {
    out += R"(,"index":)";
    append_json_integer(choice_idx, out);
  }
  out.push_back('}');
}

void GenerateAnswer::on_update(int request_idx, const RequestUpdate& update, std::string& out) {
  if (!settings_.is_streamed) return;
  const int choice_idx = request_idx * settings_.n + update.completion_idx;
  take(settings_.requests[request_idx], update.text, update.token_ids, update.logprobs,
       choices_[choice_idx]);
  // The result of the request follows at once and tells the end.
  if (update.finish_reason != FinishReason::kNone && settings_.n == 1) return;
  out += "data: ";
  append_result(choice_idx, nullptr, out);
  out += "\n\n";
}

void GenerateAnswer::on_finished(int request_idx, RequestResult&& result, std::string& out) {
  if (!result.error.empty()) {
    if (error_.empty()) error_ = result.error;
    if (settings_.is_streamed) {
      out += error_event(ApiError(500, "server_error", "", "", result.error));
    }
    return;
  }
  for (int i = 0; i < settings_.n; ++i) {
    const int choice_idx = request_idx * settings_.n + i;
    Choice& choice = choices_[choice_idx];
    if (i < static_cast<int>(result.completions.size())) {
      const Completion& completion = result.completions[i];
      const std::string_view text = completion.text;
      const std::span<const int32_t> ids = completion.output_ids;
      const std::span<const ScoredToken> logprobs = completion.logprobs;
      take(settings_.requests[request_idx],
           text.substr(std::min(choice.num_text_bytes, text.size())),
           ids.subspan(std::min(choice.num_tokens, ids.size())),
           logprobs.subspan(std::min(choice.num_tokens, logprobs.size())), choice);
    }
    if (settings_.is_streamed) {
      out += "data: ";
      append_result(choice_idx, &result, out);
      out += "\n\n";
    } else {
      append_result(choice_idx, &result, results_[choice_idx]);
    }
    choice = {};  // told whole
  }
}

void GenerateAnswer::on_complete(std::string& out) {
  if (settings_.is_streamed) {
    out += "data: [DONE]\n\n";
    return;
  }
  if (!error_.empty()) throw ApiError(500, "server_error", "", "", error_);
  if (!settings_.is_list) {
    out += results_.front();
    return;
  }
  out += fmt::format("[{}]", fmt::join(results_, ","));
}

}  // namespace augur::server
