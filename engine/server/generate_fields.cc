#include "engine/server/generate_fields.h"

#include <fmt/format.h>

#include <algorithm>
#include <optional>
#include <set>
#include <utility>

#include "engine/server/api_error.h"
#include "engine/server/openai_fields.h"
#include "engine/server/prompt_fields.h"
#include "engine/server/sampling_fields.h"

namespace augur::server {
namespace {

namespace json = boost::json;

constexpr int64_t kDefaultMaxNewTokens = 128;
constexpr size_t kMaxRidBytes = 256;
constexpr size_t kMaxLabelBytes = 1024;

// Features of SGLang that change an answer, and which we do not have.
constexpr std::string_view kUnsupported[] = {
    "input_embeds",
    "image_data",
    "video_data",
    "audio_data",
    "lora_path",
    "lora_id",
    "token_ids_logprob",
    "custom_logit_processor",
    "return_hidden_states",
    "return_routed_experts",
    "return_sampling_mask",
    "return_flat_raw_top_logprobs",
    "return_flat_raw_output_top_logprobs",
    "return_prompt_token_ids",
    "session_params",
    "bootstrap_host",
    "bootstrap_port",
    "bootstrap_room",
    "routed_dp_rank",
    "data_parallel_rank",
    "background",
    "require_reasoning",
    "watermark",
    "extra_key",
};

/// A value and its path.
struct Place {
  const json::value* value = nullptr;  // null: absent
  std::string path;
};

/// What `key` says of prompt `idx`: its own entry in a list, or the one value for all.
Place of_item(const JsonFields& fields, std::string_view key, size_t idx, size_t num_items) {
  Place place{fields.find(key), fields.path_of(key)};
  if (place.value == nullptr) return place;
  const json::array* list = place.value->if_array();
  if (list == nullptr) return place;
  if (list->size() != num_items) {
    fail_field(place.path, *place.value,
               fmt::format("one value, or a list with one for each of {} prompts", num_items));
  }
  const json::value& entry = (*list)[idx];
  return {entry.is_null() ? nullptr : &entry, item_path(place.path, idx)};
}

JsonFields sampling_of(const Place& place) {
  static const json::object kNothing;
  if (place.value == nullptr) return JsonFields(kNothing, place.path);
  return JsonFields(to_object(*place.value, place.path), place.path);
}

/// The number of completions of each prompt, which must be one for all: the answer is a flat list.
int64_t read_n(const JsonFields& fields, const ApiContext& context) {
  const json::value* value = fields.find("sampling_params");
  if (value == nullptr) return 1;
  const IntegerRange range{1, context.bounds.max_n};
  const json::array* list = value->if_array();
  if (list == nullptr) {
    return sampling_of({value, fields.path_of("sampling_params")}).integer("n", range).value_or(1);
  }
  std::optional<int64_t> n;
  for (size_t i = 0; i < list->size(); ++i) {
    const std::string path = item_path(fields.path_of("sampling_params"), i);
    const int64_t item_n =
        (*list)[i].is_null() ? 1 : sampling_of({&(*list)[i], path}).integer("n", range).value_or(1);
    if (n && *n != item_n) {
      throw bad_request(path + ".n", fmt::format("{}.n is {}; accepted: {}, as for the prompts "
                                                 "before it",
                                                 path, item_n, *n));
    }
    n = item_n;
  }
  return n.value_or(1);
}

PromptList read_input(const JsonFields& fields,
                      const PromptRules& rules,
                      const ApiContext& context) {
  const json::value* text = fields.find("text");
  const json::value* ids = fields.find("input_ids");
  if ((text == nullptr) == (ids == nullptr)) {
    throw bad_request("text", text == nullptr ? "text and input_ids are missing; accepted: one of "
                                                "them"
                                              : "both text and input_ids are given; accepted: one "
                                                "of them");
  }
  PromptRules narrowed = rules;
  narrowed.takes_text = text != nullptr;
  narrowed.takes_ids = ids != nullptr;
  return text != nullptr ? read_prompts(*text, "text", narrowed, context)
                         : read_prompts(*ids, "input_ids", narrowed, context);
}

void read_item_sampling(const JsonFields& fields,
                        const std::string& prompt_path,
                        const ApiContext& context,
                        Request& request) {
  const std::optional<int64_t> max_new_tokens = fields.integer("max_new_tokens", {.min = 0});
  request.sampling = read_sampling(fields, context, ApiDialect::kNative);
  fields.integer("stream_interval", {1, 1});  // every token is told
  if (context.is_strict) fields.refuse_unknown();
  const auto num_prompt = static_cast<int64_t>(request.prompt_ids.size());
  const int64_t min_output = max_new_tokens.value_or(kDefaultMaxNewTokens) > 0 ? 1 : 0;
  check_prompt_length(num_prompt, min_output, context, prompt_path);
  set_max_tokens(request,
                 {.asked = max_new_tokens,
                  .otherwise = kDefaultMaxNewTokens,
                  .path = fields.path_of("max_new_tokens"),
                  .min_path = fields.path_of("min_new_tokens")},
                 context);
}

void read_item_logprobs(const JsonFields& fields,
                        size_t idx,
                        size_t num_items,
                        const ApiContext& context,
                        GenerateItem& item) {
  const Place wanted = of_item(fields, "return_logprob", idx, num_items);
  const Place start = of_item(fields, "logprob_start_len", idx, num_items);
  const Place top = of_item(fields, "top_logprobs_num", idx, num_items);
  const auto num_prompt = static_cast<int64_t>(item.request.prompt_ids.size());
  const bool has_logprobs = wanted.value != nullptr && to_bool(*wanted.value, wanted.path);
  const int64_t first =
      start.value == nullptr ? -1 : to_integer(*start.value, start.path, {-1, num_prompt});
  const int64_t top_n =
      top.value == nullptr ? 0 : to_integer(*top.value, top.path, {0, max_alternatives(context)});
  if (!has_logprobs) return;  // as with SGLang, the others then say nothing
  item.has_logprobs = true;
  item.first_logprob = first;
  item.top_n = static_cast<int>(top_n);
  Request& request = item.request;
  request.sampling.logprobs = item.top_n;
  // The first of them is shown without a log-probability.
  request.score_prompt = first >= 0 && first + 1 < num_prompt;
  if (!request.score_prompt) return;
  request.score_from = first + 1;
  request.prompt_top_logprobs = item.top_n;
}

std::string read_rid(const JsonFields& fields, size_t idx, size_t num_items, bool is_list) {
  const Place rid = of_item(fields, "rid", idx, num_items);
  if (rid.value == nullptr) return {};
  std::string text(to_string(*rid.value, rid.path, 1, kMaxRidBytes));
  const bool is_shared = is_list && fields.find("rid")->is_string();
  return is_shared ? fmt::format("{}_{}", text, idx) : text;
}

void check_rids(const std::vector<GenerateItem>& items) {
  std::set<std::string_view> seen;
  for (size_t i = 0; i < items.size(); ++i) {
    if (items[i].rid.empty() || seen.insert(items[i].rid).second) continue;
    const std::string path = item_path("rid", i);
    throw bad_request(path, path + " is one of those before it; accepted: different ones");
  }
}

}  // namespace

GenerateFields read_generate_fields(const JsonFields& fields, const ApiContext& context) {
  GenerateFields result;
  fields.refuse(kUnsupported);
  for (const std::string_view label : {"session_id", "routing_key", "conversation_id"}) {
    fields.string(label, kMaxLabelBytes);
  }
  fields.boolean("log_metrics");
  result.is_streamed = fields.boolean_or("stream", false);
  result.has_text_in_logprobs = fields.boolean_or("return_text_in_logprobs", false);
  Request shared;
  read_scheduling(fields, shared);

  const int64_t n = read_n(fields, context);
  PromptList input = read_input(fields, {.num_each = n}, context);
  const size_t num_items = input.prompts.size();
  result.is_list = input.is_list || n > 1;
  int64_t num_scored = 0;
  int64_t most_alternatives = 0;
  for (size_t i = 0; i < num_items; ++i) {
    GenerateItem item;
    item.request = shared;
    item.request.prompt_ids = std::move(input.prompts[i].ids);
    const Place sampling = of_item(fields, "sampling_params", i, num_items);
    read_item_sampling(sampling_of(sampling), input.prompts[i].path, context, item.request);
    read_item_logprobs(fields, i, num_items, context, item);
    item.rid = read_rid(fields, i, num_items, input.is_list);
    check_request(item.request, context);
    if (item.request.score_prompt) {
      num_scored += static_cast<int64_t>(item.request.prompt_ids.size());
      most_alternatives = std::max<int64_t>(most_alternatives, item.top_n);
    }
    result.items.push_back(std::move(item));
  }
  if (context.is_strict) fields.refuse_unknown();
  check_rids(result.items);
  check_prompt_logprobs(num_scored, most_alternatives, context);
  return result;
}

}  // namespace augur::server
