// What a run adds up to.
#pragma once

#include <boost/json/object.hpp>

#include <cstdint>
#include <optional>

namespace augur::score {

struct Totals {
  int64_t documents = 0;
  int64_t bad_lines = 0;
  int64_t prompt_tokens = 0;      // scored documents count here as a whole
  int64_t completion_tokens = 0;  // generated
  int64_t scored_tokens = 0;
  double logprob_sum = 0;  // of the scored tokens

  Totals& operator+=(const Totals& other);
  bool operator==(const Totals&) const = default;

  /// exp(-logprob_sum / scored_tokens): of all scored tokens alike, not of documents. Nothing when
  /// none was scored.
  std::optional<double> perplexity() const;
};

boost::json::object totals_to_json(const Totals& totals);
/// Nothing when a field is missing or of another type.
std::optional<Totals> totals_from_json(const boost::json::object& object);

/// What one row of the output adds to the totals, read from the row itself.
/// Nothing for a row that this program did not write.
std::optional<Totals> totals_of_row(const boost::json::object& row);

}  // namespace augur::score
