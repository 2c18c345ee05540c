#include "tools/trace/routing_trace.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <fstream>
#include <limits>
#include <set>
#include <string_view>
#include <tuple>

#include "configs/config_error.h"

namespace augur {
namespace {

// Far beyond any model, and small enough to multiply.
constexpr int64_t kMaxIndex = 1 << 20;

std::vector<std::string_view> split(std::string_view line) {
  std::vector<std::string_view> fields;
  for (size_t start = 0; start <= line.size();) {
    const size_t end = std::min(line.find(',', start), line.size());
    fields.push_back(line.substr(start, end - start));
    start = end + 1;
  }
  return fields;
}

}  // namespace

RoutingTrace read_routing_trace(const std::string& path) {
  std::ifstream file(path);
  if (!file) throw ConfigError(path, "cannot be read");
  std::map<std::string, size_t, std::less<>> columns;
  std::map<std::tuple<int64_t, int64_t, int64_t>, TracedToken> tokens;  // by turn, phase, step
  std::set<int32_t> layers;
  RoutingTrace trace;
  int64_t line_number = 0;
  for (std::string line; std::getline(file, line);) {
    ++line_number;
    if (line.empty() || line[0] == '#') continue;
    const std::vector<std::string_view> fields = split(line);
    const auto where = [&] { return fmt::format("{}:{}", path, line_number); };
    if (columns.empty()) {
      for (size_t i = 0; i < fields.size(); ++i) columns.emplace(fields[i], i);
      for (const char* name : {"turn", "step", "layer", "expert"}) {
        if (!columns.contains(name)) throw ConfigError(where(), fmt::format("no column {}", name));
      }
      continue;
    }
    const auto value = [&](const char* name, int64_t max) {
      const size_t column = columns.find(name)->second;
      int64_t number = -1;
      if (column < fields.size()) {
        const std::string_view text = fields[column];
        std::from_chars(text.data(), text.data() + text.size(), number);
      }
      if (number < 0 || number > max) {
        throw ConfigError(where(), fmt::format("{}: accepted: a whole number up to {}", name, max));
      }
      return number;
    };
    constexpr int64_t kAny = std::numeric_limits<int64_t>::max();
    const int64_t phase = columns.contains("phase") ? value("phase", kAny) : 0;
    const auto layer = static_cast<int32_t>(value("layer", kMaxIndex));
    const auto expert = static_cast<int32_t>(value("expert", kMaxIndex));
    const int64_t turn = value("turn", kAny);
    TracedToken& token = tokens[{turn, phase, value("step", kAny)}];
    token.turn = turn;
    token.phase = phase;
    token.experts_of[layer].push_back(expert);
    layers.insert(layer);
    trace.num_experts = std::max(trace.num_experts, expert + 1);
  }
  if (tokens.empty()) throw ConfigError(path, "holds no choices");
  trace.num_layers = static_cast<int32_t>(layers.size());
  for (auto& [place, token] : tokens) trace.tokens.push_back(std::move(token));
  return trace;
}

}  // namespace augur
