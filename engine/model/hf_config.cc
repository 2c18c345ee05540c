#include "engine/model/hf_config.h"

#include <fmt/format.h>
#include <simdjson.h>

#include <algorithm>
#include <utility>

#include "configs/config_error.h"
#include "engine/text/in_quotes.h"
#include "prefetch/file.h"

namespace augur {
namespace {

constexpr int64_t kMaxFileBytes = int64_t{16} << 20;

}  // namespace

struct HfConfig::State {
  std::shared_ptr<simdjson::dom::parser> document;  // owns what `object` points into
  simdjson::dom::object object;
  std::string where;   // the file
  std::string prefix;  // "rope_scaling." within that object

  // Null elements count as absent.
  std::optional<simdjson::dom::element> find(std::string_view key) const {
    simdjson::dom::element value;
    if (object.at_key(key).get(value) || value.is_null()) return std::nullopt;
    return value;
  }

  void check_keys_differ() const {
    std::vector<std::string_view> keys;
    for (const auto [key, value] : object) keys.push_back(key);
    std::sort(keys.begin(), keys.end());
    const auto twin = std::adjacent_find(keys.begin(), keys.end());
    if (twin != keys.end()) {
      throw ConfigError(where,
                        "the key " + in_quotes(prefix + std::string(*twin)) + " comes twice");
    }
  }
};

HfConfig HfConfig::read(const std::filesystem::path& path) {
  return parse(read_text_file(path, kMaxFileBytes), path.string());
}

HfConfig HfConfig::parse(std::string_view json, std::string where) {
  auto state = std::make_shared<State>();
  state->document = std::make_shared<simdjson::dom::parser>();
  state->where = std::move(where);
  simdjson::dom::element root;
  if (const auto error = state->document->parse(json.data(), json.size()).get(root)) {
    throw ConfigError(state->where, fmt::format("is not JSON: {}", simdjson::error_message(error)));
  }
  if (root.get(state->object)) {
    throw ConfigError(state->where, "is not a JSON object; accepted: {\"key\": value, ...}");
  }
  state->check_keys_differ();
  return HfConfig(std::move(state));
}

bool HfConfig::has(std::string_view key) const {
  return state_->find(key).has_value();
}

std::string_view HfConfig::present_of(std::initializer_list<std::string_view> keys) const {
  for (const std::string_view key : keys) {
    if (has(key)) return key;
  }
  return *keys.begin();
}

int64_t HfConfig::integer(std::string_view key, Range<int64_t> range) const {
  const auto found = state_->find(key);
  int64_t value = 0;
  if (!found || !found->is_int64() || found->get(value) || value < range.min || value > range.max) {
    refuse(key, fmt::format("a whole number from {} to {}", range.min, range.max));
  }
  return value;
}

int64_t HfConfig::integer_or(std::string_view key, int64_t fallback, Range<int64_t> range) const {
  return has(key) ? integer(key, range) : fallback;
}

double HfConfig::number(std::string_view key, Range<double> range) const {
  const auto found = state_->find(key);
  double value = 0;
  // Written so that a NaN would be refused too.
  if (!found || !found->is_number() || found->get(value) ||
      !(value >= range.min && value <= range.max)) {
    refuse(key, fmt::format("a number from {} to {}", range.min, range.max));
  }
  return value;
}

double HfConfig::number_or(std::string_view key, double fallback, Range<double> range) const {
  return has(key) ? number(key, range) : fallback;
}

bool HfConfig::boolean_or(std::string_view key, bool fallback) const {
  const auto found = state_->find(key);
  if (!found) return fallback;
  bool value = false;
  if (found->get(value)) refuse(key, "true or false");
  return value;
}

std::string HfConfig::text(std::string_view key) const {
  const auto found = state_->find(key);
  std::string_view value;
  if (!found || found->get(value)) refuse(key, "a string");
  return std::string(value);
}

std::string HfConfig::text_or(std::string_view key, std::string_view fallback) const {
  return has(key) ? text(key) : std::string(fallback);
}

std::vector<int64_t> HfConfig::integers(std::string_view key, Range<int64_t> range) const {
  const auto found = state_->find(key);
  if (!found) return {};
  if (found->is_int64()) return {integer(key, range)};
  const std::string accepted =
      fmt::format("whole numbers from {} to {}, one or a list", range.min, range.max);
  simdjson::dom::array list;
  if (found->get(list)) refuse(key, accepted);
  std::vector<int64_t> values;
  for (const simdjson::dom::element item : list) {
    int64_t value = 0;
    if (!item.is_int64() || item.get(value) || value < range.min || value > range.max) {
      refuse(key, accepted);
    }
    values.push_back(value);
  }
  return values;
}

std::vector<std::string> HfConfig::texts(std::string_view key) const {
  const auto found = state_->find(key);
  if (!found) return {};
  simdjson::dom::array list;
  if (found->get(list)) refuse(key, "a list of strings");
  std::vector<std::string> values;
  for (const simdjson::dom::element item : list) {
    std::string_view value;
    if (item.get(value)) refuse(key, "a list of strings");
    values.emplace_back(value);
  }
  return values;
}

std::optional<HfConfig> HfConfig::object(std::string_view key) const {
  const auto found = state_->find(key);
  if (!found) return std::nullopt;
  auto state = std::make_shared<State>(*state_);
  if (found->get(state->object)) refuse(key, "an object {\"key\": value, ...}");
  state->prefix += std::string(key) + ".";
  state->check_keys_differ();
  return HfConfig(std::move(state));
}

bool HfConfig::is_empty() const {
  return state_->object.size() == 0;
}

void HfConfig::refuse(std::string_view key, const std::string& accepted) const {
  const auto found = state_->find(key);
  std::string shown = "is missing";
  if (found) shown = "found " + in_quotes(simdjson::minify(*found));
  throw ConfigError(state_->where,
                    fmt::format("{}{}: {}; accepted: {}", state_->prefix, key, shown, accepted));
}

void HfConfig::refuse_file(const std::string& what) const {
  throw ConfigError(state_->where, what);
}

const std::string& HfConfig::where() const {
  return state_->where;
}

}  // namespace augur
