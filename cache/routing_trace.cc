#include "cache/routing_trace.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <fstream>
#include <functional>
#include <limits>
#include <set>
#include <string_view>
#include <tuple>

#include "configs/config_error.h"

namespace augur {
namespace {

// Far beyond any model, and small enough to multiply.
constexpr int64_t kMaxIndex = 1 << 20;
constexpr int64_t kAny = std::numeric_limits<int64_t>::max();

std::vector<std::string_view> split(std::string_view line, char separator) {
  std::vector<std::string_view> fields;
  for (size_t start = 0; start <= line.size();) {
    const size_t end = std::min(line.find(separator, start), line.size());
    fields.push_back(line.substr(start, end - start));
    start = end + 1;
  }
  return fields;
}

class Reader {
 public:
  explicit Reader(const std::string& path) : path_(path) {}

  RoutingTrace read() {
    std::ifstream file(path_);
    if (!file) throw ConfigError(path_, "cannot be read");
    for (std::string line; std::getline(file, line);) {
      ++line_number_;
      if (!line.empty() && line.back() == '\r') line.pop_back();
      if (line.empty() || line[0] == '#') continue;
      fields_ = split(line, ',');
      columns_.empty() ? take_names() : take_line();
    }
    if (tokens_.empty()) throw ConfigError(path_, "holds no choices");
    RoutingTrace trace;
    trace.num_experts = num_experts_;
    trace.num_layers = static_cast<int32_t>(layers_.size());
    trace.tokens.reserve(tokens_.size());
    int64_t turn_start = 0;
    for (auto& [place, token] : tokens_) {
      // Those of other projects ran one at a time, and count prompt and answer apart.
      if (!is_ours_) {
        token.step = std::ssize(trace.tokens);
        if (token.step == 0 || trace.tokens.back().turn != token.turn) turn_start = token.step;
        token.position = token.step - turn_start;
      }
      trace.tokens.push_back(std::move(token));
    }
    return trace;
  }

 private:
  [[noreturn]] void refuse(const std::string& what) const {
    throw ConfigError(fmt::format("{}:{}", path_, line_number_), what);
  }

  void take_names() {
    for (size_t i = 0; i < fields_.size(); ++i) columns_.emplace(fields_[i], i);
    is_ours_ = columns_.contains("experts");
    const std::vector<const char*> needed =
        is_ours_ ? std::vector{"step", "turn", "phase", "position", "layer"}
                 : std::vector{"turn", "step", "layer", "expert"};
    for (const char* name : needed) {
      if (!columns_.contains(name)) refuse(fmt::format("no column {}", name));
    }
  }

  void take_line() {
    const int64_t turn = value("turn", kAny);
    const int64_t step = value("step", kAny);
    const int64_t phase = columns_.contains("phase") ? value("phase", kAny) : 0;
    const int64_t position = is_ours_ ? value("position", kAny) : 0;
    const auto layer = static_cast<int32_t>(value("layer", kMaxIndex));
    const auto place =
        is_ours_ ? Place{step, phase == 0, turn, position} : Place{turn, phase, step, 0};
    TracedToken& token = tokens_[place];
    token.turn = turn;
    token.step = step;
    token.phase = phase;
    token.position = position;
    std::vector<int32_t>& experts = token.experts_of[layer];
    layers_.insert(layer);
    if (!is_ours_) {
      experts.push_back(static_cast<int32_t>(value("expert", kMaxIndex)));
    } else {
      for (const std::string_view text : split(field("experts"), ' ')) {
        experts.push_back(static_cast<int32_t>(number("experts", text, kMaxIndex)));
      }
    }
    for (const int32_t expert : experts) num_experts_ = std::max(num_experts_, expert + 1);
  }

  std::string_view field(const char* name) const {
    const size_t column = columns_.find(name)->second;
    return column < fields_.size() ? fields_[column] : std::string_view();
  }

  int64_t value(const char* name, int64_t max) const { return number(name, field(name), max); }

  int64_t number(const char* name, std::string_view text, int64_t max) const {
    int64_t number = -1;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
    if (error != std::errc() || end != text.data() + text.size() || number < 0 || number > max) {
      refuse(fmt::format("{}: found \"{}\", accepted: a whole number up to {}", name,
                         text.substr(0, 40), max));
    }
    return number;
  }

  // What orders tokens: as they ran. In a step of ours the rows that decode came first.
  using Place = std::tuple<int64_t, int64_t, int64_t, int64_t>;

  const std::string& path_;
  int64_t line_number_ = 0;
  bool is_ours_ = false;
  std::map<std::string, size_t, std::less<>> columns_;
  std::vector<std::string_view> fields_;
  std::map<Place, TracedToken> tokens_;
  std::set<int32_t> layers_;
  int32_t num_experts_ = 0;
};

}  // namespace

int RoutingTrace::top_k() const {
  size_t most = 0;
  for (const TracedToken& token : tokens) {
    for (const auto& [layer, experts] : token.experts_of) most = std::max(most, experts.size());
  }
  return static_cast<int>(most);
}

RoutingTrace read_routing_trace(const std::string& path) {
  return Reader(path).read();
}

}  // namespace augur
