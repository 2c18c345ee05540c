// The files that a run writes beside its output, named on the command line.
#pragma once

#include <string>
#include <string_view>

#include "tools/score/options.h"

namespace augur::score {

/// Where the reports of expert memory go; empty: not asked for.
struct ReportPaths {
  std::string json;
  std::string svg;
};

/// NAME.json asks for the figures and NAME.svg for the picture. Any other name asks for both, with
/// these endings; a folder (or what ends in a slash) for both under the name "experts" in it.
ReportPaths report_paths(const std::string& path);

/// Refuses, before anything is done, side files that could not be made, or that would be written
/// over another file of the run. Throws ConfigError.
void check_side_files(const Options& options);

/// Replaces a file. Throws OutputError, which names the `subject`: "the summary".
void write_side_file(const std::string& path, std::string_view subject, std::string_view text);

}  // namespace augur::score
