#include "engine/server/openai_answer.h"

#include <algorithm>
#include <utility>

#include "engine/server/api_error.h"
#include "engine/server/json_text.h"

namespace augur::server {
namespace {

constexpr std::string_view kEventEnd = "\n\n";
constexpr std::string_view kDone = "data: [DONE]\n\n";

void append_counts(int64_t num_prompt,
                   int64_t num_output,
                   std::optional<int64_t> num_cached,
                   std::string& out) {
  out += R"({"prompt_tokens":)";
  append_json_integer(num_prompt, out);
  out += R"(,"completion_tokens":)";
  append_json_integer(num_output, out);
  out += R"(,"total_tokens":)";
  append_json_integer(num_prompt + num_output, out);
  if (num_cached) {
    out += R"(,"prompt_tokens_details":{"cached_tokens":)";
    append_json_integer(*num_cached, out);
    out.push_back('}');
  }
  out.push_back('}');
}

}  // namespace

std::string_view finish_name(FinishReason reason) {
  switch (reason) {
    case FinishReason::kStop:
      return "stop";
    case FinishReason::kNone:
    case FinishReason::kLength:
      return "length";
    case FinishReason::kAborted:
    case FinishReason::kFailed:
      return "abort";
  }
  return "abort";
}

OpenAiAnswer::OpenAiAnswer(AnswerSettings settings,
                           std::string_view name,
                           std::string_view chunk_name)
    : settings_(std::move(settings)),
      texts_(settings_.tokenizer),
      name_(name),
      chunk_prefix_("data: ") {
  append_head(chunk_name, chunk_prefix_);
  const int num_requests = static_cast<int>(settings_.num_prompt_tokens.size());
  for (int request_idx = 0; request_idx < num_requests; ++request_idx) {
    for (int i = 0; i < settings_.n; ++i) {
      choices_.push_back({.idx = request_idx * settings_.n + i, .request_idx = request_idx});
    }
  }
  if (!settings_.is_streamed) results_.resize(num_requests);
}

// An answer or a chunk, up to its choices.
void OpenAiAnswer::append_head(std::string_view name, std::string& out) const {
  out += R"({"id":)";
  append_json_string(settings_.identity.id, out);
  out += R"(,"object":)";
  append_json_string(name, out);
  out += R"(,"created":)";
  append_json_integer(settings_.identity.created_s, out);
  out += R"(,"model":)";
  append_json_string(settings_.model, out);
  out += R"(,"system_fingerprint":)";
  append_json_string(settings_.fingerprint, out);
  out += R"(,"choices":[)";
}

void OpenAiAnswer::begin_chunk(const Choice& choice, std::string& out) const {
  out += chunk_prefix_;
  out += R"({"index":)";
  append_json_integer(choice.idx, out);
}

void OpenAiAnswer::end_chunk(const Choice& choice, std::string_view extra, std::string& out) const {
  out += "}]";
  out += extra;
  if (settings_.has_usage_always) {
    out += R"(,"usage":)";
    append_counts(settings_.num_prompt_tokens[choice.request_idx],
                  static_cast<int64_t>(choice.num_tokens), std::nullopt, out);
  } else if (settings_.has_usage_chunk) {
    out += R"(,"usage":null)";
  }
  out.push_back('}');
  out += kEventEnd;
}

void OpenAiAnswer::append_finish(FinishReason reason,
                                 std::string_view matched_stop,
                                 std::optional<int32_t> last_token,
                                 std::string& out) const {
  out += R"(,"finish_reason":")";
  out += finish_name(reason);
  out += R"(","stop_reason":)";
  const std::vector<int32_t>& named = settings_.named_stop_ids;
  if (!matched_stop.empty()) {
    append_json_string(matched_stop, out);
  } else if (reason == FinishReason::kStop && last_token &&
             std::find(named.begin(), named.end(), *last_token) != named.end()) {
    append_json_integer(*last_token, out);
  } else {
    out += "null";
  }
}

bool OpenAiAnswer::is_left_out(int32_t token_id) {
  return settings_.skips_special_tokens && texts_.of(token_id).is_special;
}

void OpenAiAnswer::on_update(int request_idx, const RequestUpdate& update, std::string& out) {
  if (!settings_.is_streamed) return;
  Choice& choice = choices_[request_idx * settings_.n + update.completion_idx];
  send_piece(choice,
             {.text = update.text,
              .token_ids = update.token_ids,
              .logprobs = update.logprobs,
              .finish_reason = update.finish_reason,
              .matched_stop = update.matched_stop,
              .is_last = update.finish_reason != FinishReason::kNone},
             out);
}

void OpenAiAnswer::send_piece(Choice& choice, const ChoicePiece& piece, std::string& out) {
  if (!std::exchange(choice.is_begun, true)) append_beginning(choice, out);
  choice.num_text_bytes += piece.text.size();
  choice.num_tokens += piece.token_ids.size();
  choice.is_done = choice.is_done || piece.is_last;
  const bool tells_tokens =
      settings_.has_logprobs || settings_.returns_token_ids || settings_.has_usage_always;
  if (piece.text.empty() && !piece.is_last && (!tells_tokens || piece.token_ids.empty())) return;

  begin_chunk(choice, out);
  append_piece(choice, piece, out);
  if (piece.is_last) {
    std::optional<int32_t> last_token;
    if (!piece.token_ids.empty()) last_token = piece.token_ids.back();
    append_finish(piece.finish_reason, piece.matched_stop, last_token, out);
  } else {
    out += R"(,"finish_reason":null,"stop_reason":null)";
  }
  end_chunk(choice, {}, out);
}

void OpenAiAnswer::on_finished(int request_idx, RequestResult&& result, std::string& out) {
  num_prompt_tokens_ += result.num_prompt_tokens;
  num_cached_tokens_ += result.num_cached_tokens;
  for (const Completion& completion : result.completions) {
    num_output_tokens_ += static_cast<int64_t>(completion.output_ids.size());
  }
  if (!result.error.empty()) {
    if (error_.empty()) error_ = result.error;
    if (settings_.is_streamed) {
      out += error_event(ApiError(500, "server_error", "", "", result.error));
    }
  } else if (settings_.is_streamed) {
    send_rest(request_idx, result, out);
  } else {
    results_[request_idx] = std::move(result);
  }
}

// What no update has told: the end of aborted completions, and of those that generate nothing.
void OpenAiAnswer::send_rest(int request_idx, const RequestResult& result, std::string& out) {
  for (int i = 0; i < settings_.n; ++i) {
    Choice& choice = choices_[request_idx * settings_.n + i];
    if (choice.is_done) continue;
    ChoicePiece piece{.is_last = true};
    if (i < static_cast<int>(result.completions.size())) {
      const Completion& completion = result.completions[i];
      const std::string_view text = completion.text;
      piece.text = text.substr(std::min(choice.num_text_bytes, text.size()));
      const std::span<const int32_t> ids = completion.output_ids;
      piece.token_ids = ids.subspan(std::min(choice.num_tokens, ids.size()));
      const std::span<const ScoredToken> logprobs = completion.logprobs;
      piece.logprobs = logprobs.subspan(std::min(choice.num_tokens, logprobs.size()));
      piece.finish_reason = completion.finish_reason;
      piece.matched_stop = completion.matched_stop;
    }
    send_piece(choice, piece, out);
  }
}

void OpenAiAnswer::append_usage(std::string& out) const {
  append_counts(num_prompt_tokens_, num_output_tokens_, num_cached_tokens_, out);
}

void OpenAiAnswer::on_complete(std::string& out) {
  if (!settings_.is_streamed) {
    if (!error_.empty()) throw ApiError(500, "server_error", "", "", error_);
    append_whole_answer(out);
    return;
  }
  if (settings_.has_usage_chunk && error_.empty()) {
    out += chunk_prefix_;
    out += R"(],"usage":)";
    append_usage(out);
    out.push_back('}');
    out += kEventEnd;
  }
  out += kDone;
}

void OpenAiAnswer::append_whole_answer(std::string& out) {
  append_head(name_, out);
  const Completion nothing;
  for (Choice& choice : choices_) {
    const RequestResult& result = results_[choice.request_idx];
    const auto completion_idx = static_cast<size_t>(choice.idx % settings_.n);
    const Completion& completion =
        completion_idx < result.completions.size() ? result.completions[completion_idx] : nothing;
    if (choice.idx > 0) out.push_back(',');
    out += R"({"index":)";
    append_json_integer(choice.idx, out);
    append_whole(choice, result, completion, out);
    std::optional<int32_t> last_token;
    if (!completion.output_ids.empty()) last_token = completion.output_ids.back();
    append_finish(completion.finish_reason, completion.matched_stop, last_token, out);
    out.push_back('}');
  }
  out += R"(],"usage":)";
  append_usage(out);
  append_extra(out);
  out.push_back('}');
}

}  // namespace augur::server
