// The sandbox of a chat template.
#pragma once

#include <cstdint>

namespace augur {

/// What one rendering may use; going past any of them is a TemplateError.
struct TemplateLimits {
  /// Expressions evaluated, statements executed, loop iterations, items looked at by filters.
  int64_t max_steps = 4'000'000;
  /// What the template may print.
  int64_t max_output_bytes = int64_t{16} << 20;
  /// Everything it builds on the way: strings, lists, captured blocks. Bounds memory and time.
  int64_t max_work_bytes = int64_t{256} << 20;
  /// Items of one range(), as in Jinja2's sandbox.
  int64_t max_range_length = 100'000;
};

}  // namespace augur
