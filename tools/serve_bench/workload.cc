#include "tools/serve_bench/workload.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <boost/json.hpp>
#include <cmath>
#include <random>

#include "configs/config_error.h"
#include "kernels/require.h"

namespace augur::serve_bench {
namespace {

// Short common words: most tokenizers have each of them as one token.
constexpr std::array kWords{
    "time",     "year",  "people", "way",     "day",    "man",     "thing",    "woman",  "life",
    "child",    "world", "school", "state",   "family", "group",   "country",  "hand",   "part",
    "place",    "case",  "week",   "company", "system", "program", "question", "work",   "number",
    "night",    "point", "home",   "water",   "room",   "mother",  "area",     "money",  "story",
    "fact",     "month", "lot",    "right",   "study",  "book",    "eye",      "job",    "word",
    "business", "issue", "side",   "kind",    "head",   "house",   "service",  "friend", "father",
    "power",    "hour",  "game",   "line",    "end",    "law"};

// What numbers are drawn for: other purposes, other numbers.
enum Purpose : uint32_t { kRequest, kPrefix };

// Fields that the tool sets itself, with where else to say them.
constexpr std::array kOwnFields{"model",  "prompt",         "messages",
                                "stream", "stream_options", "max_tokens"};

boost::json::object parse_extra_body(const std::string& text) {
  if (text.empty()) return {};
  boost::system::error_code error;
  const boost::json::value value = boost::json::parse(text, error);
  if (error || !value.is_object())
    throw ConfigError("--extra-body", "found " + text + ", accepted: a JSON object");
  for (const char* field : kOwnFields)
    if (value.as_object().contains(field))
      throw ConfigError("--extra-body", fmt::format("{} is set by options of its own", field));
  return value.as_object();
}

}  // namespace

// Numbers drawn for one request, or for one prefix.
class Workload::Random {
 public:
  Random(uint64_t seed, Purpose purpose, int64_t idx) {
    const auto low = [](uint64_t bits) { return static_cast<uint32_t>(bits); };
    const auto number = static_cast<uint64_t>(idx);
    std::seed_seq seeds{low(seed), low(seed >> 32), low(purpose), low(number), low(number >> 32)};
    generator_.seed(seeds);
  }
  /// Uniform in [0, bound).
  int64_t below(int64_t bound) {
    return std::uniform_int_distribution<int64_t>(0, bound - 1)(generator_);
  }
  bool is_chosen(double share) { return std::bernoulli_distribution(share)(generator_); }

 private:
  std::mt19937_64 generator_;
};

Workload::Workload(const Options& options, const std::string& model, int64_t vocab_size)
    : options_(options), vocab_size_(vocab_size) {
  const bool is_random = options.dataset.empty();
  AUGUR_REQUIRE(!is_random || options.endpoint == Endpoint::kChat || vocab_size > 0,
                "vocab_size is " + std::to_string(vocab_size));
  if (!is_random) rows_ = read_dataset(options.dataset, options.endpoint);
  boost::json::object body{{"model", model}, {"temperature", options.temperature}};
  if (options.ignore_eos.value_or(is_random)) body["ignore_eos"] = true;
  body["stream"] = options.is_streamed;
  if (options.is_streamed) body["stream_options"] = {{"include_usage", true}};
  for (const auto& member : parse_extra_body(options.extra_body))
    body[member.key()] = member.value();
  body_begin_ = boost::json::serialize(body);
  body_begin_.pop_back();
}

const char* Workload::path() const {
  return options_.endpoint == Endpoint::kChat ? "/v1/chat/completions" : "/v1/completions";
}

PlannedRequest Workload::plan(int64_t request_idx, int64_t max_tokens) const {
  Random random(options_.seed, kRequest, request_idx);
  PlannedRequest plan;
  plan.body = body_begin_ + ",";
  if (rows_.empty()) {
    plan.max_tokens = draw_length(options_.output_tokens, random);
    append_random_prompt(random, plan);
  } else {
    const auto num_rows = static_cast<int64_t>(rows_.size());
    const int64_t row_idx = (request_idx % num_rows + num_rows) % num_rows;
    const DatasetRow& row = rows_[static_cast<size_t>(row_idx)];
    plan.max_tokens = row.max_tokens > 0 ? row.max_tokens : options_.output_tokens;
    plan.known_prompt_tokens = row.num_token_ids;
    plan.body += row.prompt_member;
  }
  plan.max_tokens = std::min(plan.max_tokens, max_tokens);
  plan.body += fmt::format(",\"max_tokens\":{}}}", plan.max_tokens);
  if (random.is_chosen(options_.abort_share))
    plan.abort_after_chunks = random.below(plan.max_tokens);
  return plan;
}

int64_t Workload::draw_length(int64_t length, Random& random) const {
  const auto spread =
      static_cast<int64_t>(std::floor(static_cast<double>(length) * options_.range_ratio));
  return std::max<int64_t>(1, length - spread + random.below(2 * spread + 1));
}

void Workload::append_random_prompt(Random& random, PlannedRequest& plan) const {
  const bool is_chat = options_.endpoint == Endpoint::kChat;
  plan.body += is_chat ? "\"messages\":[{\"role\":\"user\",\"content\":\"" : "\"prompt\":[";
  char separator = 0;
  const auto append = [&](Random& source, int64_t count) {
    for (int64_t i = 0; i < count; ++i) {
      if (separator != 0) plan.body += separator;
      separator = is_chat ? ' ' : ',';
      if (is_chat) {
        plan.body += kWords[static_cast<size_t>(source.below(kWords.size()))];
      } else {
        const fmt::format_int id(source.below(vocab_size_));
        plan.body.append(id.data(), id.size());
      }
    }
  };
  const int64_t num_tokens = draw_length(options_.input_tokens, random);
  if (options_.shared_prefix_tokens > 0) {
    Random prefix(options_.seed, kPrefix, random.below(options_.num_prefix_groups));
    append(prefix, options_.shared_prefix_tokens);
  }
  append(random, num_tokens);
  plan.body += is_chat ? "\"}]" : "]";
  if (!is_chat) plan.known_prompt_tokens = options_.shared_prefix_tokens + num_tokens;
}

}  // namespace augur::serve_bench
