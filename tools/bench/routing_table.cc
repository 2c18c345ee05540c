#include "tools/bench/routing_table.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <numeric>
#include <random>
#include <string_view>

#include "cache/routing_trace.h"
#include "configs/config_error.h"

namespace augur::bench {
namespace {

constexpr char kAccepted[] = "accepted: gate, balanced, power-law:EXPONENT or trace:FILE";

class Table {
 public:
  Table(const ModelConfig& config, int64_t num_rows)
      : config_(config),
        num_rows_(num_rows),
        experts_(config.num_layers() * num_rows * config.moe.top_k, -1) {}

  int32_t* row(int64_t layer, int64_t row_idx) {
    return experts_.data() + (layer * num_rows_ + row_idx) * config_.moe.top_k;
  }
  template <typename Fill>
  void fill_layers(Fill&& fill) {
    for (int64_t layer = 0; layer < config_.num_layers(); ++layer) {
      if (config_.layers[layer] == LayerKind::kMoe) fill(layer);
    }
  }
  std::vector<int32_t> take() { return std::move(experts_); }

 private:
  const ModelConfig& config_;
  const int64_t num_rows_;
  std::vector<int32_t> experts_;
};

std::vector<int32_t> random_order(int count, std::mt19937& generator) {
  std::vector<int32_t> order(count);
  std::iota(order.begin(), order.end(), 0);
  std::shuffle(order.begin(), order.end(), generator);
  return order;
}

// Each row takes the next top_k of a random order; when it is used up, of another. A row's experts
// are all different as long as top_k divides the number of experts; otherwise the row that would
// span two orders takes its experts from the new one.
void fill_balanced(Table& table, const ModelConfig& config, int64_t num_rows) {
  table.fill_layers([&](int64_t layer) {
    std::mt19937 generator(static_cast<uint32_t>(layer));
    std::vector<int32_t> order = random_order(config.moe.num_experts, generator);
    size_t next = 0;
    for (int64_t i = 0; i < num_rows; ++i) {
      if (next + config.moe.top_k > order.size()) {
        order = random_order(config.moe.num_experts, generator);
        next = 0;
      }
      std::copy_n(order.begin() + static_cast<int64_t>(next), config.moe.top_k,
                  table.row(layer, i));
      next += config.moe.top_k;
    }
  });
}

// top_k draws without replacement by weight: the largest of log(u) / weight (Efraimidis and
// Spirakis 2006).
void fill_power_law(Table& table, const ModelConfig& config, int64_t num_rows, double exponent) {
  table.fill_layers([&](int64_t layer) {
    std::mt19937 generator(static_cast<uint32_t>(layer));
    const std::vector<int32_t> order = random_order(config.moe.num_experts, generator);
    std::uniform_real_distribution<double> uniform(1e-300, 1.0);
    std::vector<std::pair<double, int32_t>> keys(order.size());
    for (int64_t i = 0; i < num_rows; ++i) {
      for (size_t rank = 0; rank < order.size(); ++rank) {
        const double weight = std::pow(static_cast<double>(rank + 1), -exponent);
        keys[rank] = {std::log(uniform(generator)) / weight, order[rank]};
      }
      std::partial_sort(keys.begin(), keys.begin() + config.moe.top_k, keys.end(),
                        std::greater<>());
      for (int k = 0; k < config.moe.top_k; ++k) table.row(layer, i)[k] = keys[k].second;
    }
  });
}

// A row of the table is a token of the trace.
void fill_from_trace(Table& table,
                     const ModelConfig& config,
                     int64_t num_rows,
                     const std::string& path) {
  const RoutingTrace trace = read_routing_trace(path);
  if (trace.num_experts > config.moe.num_experts) {
    throw ConfigError(path, fmt::format("expert {}; the model has {}", trace.num_experts - 1,
                                        config.moe.num_experts));
  }
  table.fill_layers([&](int64_t layer) {
    for (int64_t i = 0; i < num_rows; ++i) {
      const auto& experts_of = trace.tokens[i % trace.tokens.size()].experts_of;
      const auto found = experts_of.find(static_cast<int32_t>(layer));
      int32_t* const row = table.row(layer, i);
      int num_taken = 0;
      // A trace of fewer choices is filled up with the lowest experts not among them.
      const auto take = [&](int32_t expert) {
        const bool is_new = std::find(row, row + num_taken, expert) == row + num_taken;
        if (num_taken < config.moe.top_k && is_new) row[num_taken++] = expert;
      };
      if (found != experts_of.end())
        std::for_each(found->second.begin(), found->second.end(), take);
      for (int32_t expert = 0; num_taken < config.moe.top_k; ++expert) take(expert);
    }
  });
}

}  // namespace

std::vector<int32_t> make_routing_table(const RoutingChoice& choice,
                                        const ModelConfig& config,
                                        int64_t num_rows) {
  const std::string& text = choice.text;
  if (text == "gate" || config.moe.num_experts == 0) return {};
  Table table(config, num_rows);
  if (text == "balanced") {
    fill_balanced(table, config, num_rows);
  } else if (text.starts_with("power-law:")) {
    const std::string_view number = std::string_view(text).substr(text.find(':') + 1);
    double exponent = 0;
    const auto [end, error] =
        std::from_chars(number.data(), number.data() + number.size(), exponent);
    if (error != std::errc() || end != number.data() + number.size() || !(exponent >= 0) ||
        exponent > 10) {
      throw ConfigError("--routing", fmt::format("exponent '{}'; accepted: 0 to 10", number));
    }
    fill_power_law(table, config, num_rows, exponent);
  } else if (text.starts_with("trace:")) {
    fill_from_trace(table, config, num_rows, text.substr(text.find(':') + 1));
  } else {
    throw ConfigError("--routing", fmt::format("found '{}'; {}", text, kAccepted));
  }
  return table.take();
}

}  // namespace augur::bench
