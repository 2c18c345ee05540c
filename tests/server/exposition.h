// Reads a page in the text format of Prometheus back, and finds fault with it.
#pragma once

#include <cstdlib>
#include <limits>
#include <map>
#include <set>
#include <stdexcept>
#include <string>
#include <string_view>

namespace augur::server::test {

/// The values of a page by series, "name{label="value",...}" as written, and its families' types.
/// Throws std::runtime_error for the first thing that is wrong.
/// Source: the text-based format 0.0.4,
/// https://prometheus.io/docs/instrumenting/exposition_formats/
class Exposition {
 public:
  explicit Exposition(std::string_view text) {
    require(!text.empty() && text.back() == '\n', "the last line does not end");
    while (!text.empty()) {
      const size_t end = text.find('\n');
      line_ = text.substr(0, end);
      text.remove_prefix(end + 1);
      if (line_.empty()) continue;
      line_[0] == '#' ? take_comment(line_) : take_sample(line_);
    }
    check_histograms();
  }

  bool has(const std::string& series) const { return values_.contains(series); }
  double value(const std::string& series) const {
    const auto found = values_.find(series);
    if (found == values_.end()) throw std::runtime_error("there is no " + series);
    return found->second;
  }
  std::string type(const std::string& family) const {
    const auto found = types_.find(family);
    return found == types_.end() ? "" : found->second;
  }
  const std::map<std::string, double>& values() const { return values_; }

 private:
  void require(bool cond, const std::string& what) const {
    if (!cond) throw std::runtime_error(what + ": " + std::string(line_));
  }

  static bool is_name(std::string_view name, bool may_have_colon) {
    if (name.empty() || (name[0] >= '0' && name[0] <= '9')) return false;
    for (const char c : name) {
      const bool is_word =
          (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_';
      if (!is_word && !(may_have_colon && c == ':')) return false;
    }
    return true;
  }

  void take_comment(std::string_view line) {
    const bool is_help = line.starts_with("# HELP ");
    require(is_help || line.starts_with("# TYPE "), "neither HELP nor TYPE");
    line.remove_prefix(7);
    const size_t end = line.find(' ');
    require(end != std::string_view::npos, "nothing follows the name");
    const std::string name(line.substr(0, end));
    const std::string rest(line.substr(end + 1));
    require(is_name(name, true), "not a name");
    if (is_help) {
      require(helps_.insert(name).second, "a second HELP");
      require(!types_.contains(name), "HELP after TYPE");
      require(!rest.empty(), "empty HELP");
      return;
    }
    require(rest == "counter" || rest == "gauge" || rest == "histogram", "unknown type");
    require(types_.emplace(name, rest).second, "a second TYPE");
    require(helps_.contains(name), "no HELP");
    family_ = name;
  }

  void take_sample(std::string_view line) {
    const size_t name_end = line.find_first_of("{ ");
    require(name_end != std::string_view::npos, "no value");
    const std::string name(line.substr(0, name_end));
    require(is_name(name, true), "not a name");
    check_family(name);
    std::string series = name;
    size_t at = name_end;
    if (line[at] == '{') {
      at = take_labels(line, at);
      series = line.substr(0, at);
    }
    require(at < line.size() && line[at] == ' ', "no blank before the value");
    const std::string number(line.substr(at + 1));
    char* end = nullptr;
    const double value = std::strtod(number.c_str(), &end);
    require(end != number.c_str() && *end == '\0', "not a number");
    require(types_.at(family_) == "gauge" || value >= 0, "a count below 0");
    require(values_.emplace(series, value).second, "the series is there twice");
  }

  void check_family(const std::string& name) const {
    require(!family_.empty(), "no TYPE before it");
    const std::string type = types_.at(family_);
    if (type == "histogram") {
      require(name == family_ + "_bucket" || name == family_ + "_sum" || name == family_ + "_count",
              "not of the family " + family_);
    } else {
      require(name == family_, "not of the family " + family_);
      require(type != "counter" || name.ends_with("_total"), "a counter without _total");
    }
  }

  /// Returns the position behind '}'.
  size_t take_labels(std::string_view line, size_t at) const {
    std::set<std::string> names;
    ++at;
    for (;;) {
      const size_t equals = line.find('=', at);
      require(equals != std::string_view::npos, "a label without '='");
      const std::string name(line.substr(at, equals - at));
      require(is_name(name, false), "not a label's name");
      require(names.insert(name).second, "a label twice");
      at = equals + 1;
      require(at < line.size() && line[at] == '"', "a label's value without quotes");
      for (++at; at < line.size() && line[at] != '"'; ++at) {
        if (line[at] != '\\') continue;
        ++at;
        require(at < line.size() && (line[at] == '\\' || line[at] == '"' || line[at] == 'n'),
                "an unknown escape");
      }
      require(at < line.size(), "a label's value without an end");
      ++at;
      require(at < line.size() && (line[at] == ',' || line[at] == '}'), "no end of labels");
      if (line[at++] == '}') return at;
    }
  }

  /// Every histogram has rising buckets, the last of which holds all.
  void check_histograms() {
    for (const auto& [series, count] : values_) {
      const size_t at = series.find("_count");
      if (at == std::string::npos || !types_.contains(series.substr(0, at)) ||
          types_.at(series.substr(0, at)) != "histogram") {
        continue;
      }
      line_ = series;
      const std::string labels = series.substr(at + 6);  // "" or "{...}"
      const std::string prefix = series.substr(0, at) + "_bucket{" +
                                 (labels.empty() ? "" : labels.substr(1, labels.size() - 2) + ",") +
                                 "le=\"";
      std::map<double, double> buckets;
      for (auto it = values_.lower_bound(prefix);
           it != values_.end() && it->first.starts_with(prefix); ++it) {
        buckets[std::strtod(it->first.c_str() + prefix.size(), nullptr)] = it->second;
      }
      require(buckets.size() >= 2, "no buckets");
      double last = 0;
      for (const auto& [bound, cumulative] : buckets) {
        require(cumulative >= last, "buckets fall");
        last = cumulative;
      }
      require(buckets.rbegin()->first == std::numeric_limits<double>::infinity(), "no +Inf");
      require(last == count, "+Inf is not the count");
      require(values_.contains(series.substr(0, at) + "_sum" + labels), "no sum");
    }
  }

  std::string_view line_;
  std::string family_;
  std::set<std::string> helps_;
  std::map<std::string, std::string> types_;
  std::map<std::string, double> values_;
};

}  // namespace augur::server::test
