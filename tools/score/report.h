// What people are told of a run: the progress line, and the closing figures.
#pragma once

#include <string>
#include <vector>

#include "tools/score/job.h"

namespace augur::score {

/// "scoring [####----]  42 %  1,234 documents  50.1k tokens/s  0:42 left". Without a known total
/// neither bar nor time.
std::string progress_text(Mode mode, const JobProgress& progress);

/// The closing figures, a line each.
std::vector<std::string> summary_lines(Mode mode, const JobResult& result);

/// How many lines were bad and where that is told (`errors_path`, empty for nowhere); empty when
/// none was.
std::string bad_lines_text(const JobResult& result, const std::string& errors_path);

/// The same for programs: one line of JSON. `perplexity` is null when nothing was scored.
/// `experts` is an object of JSON, empty for none.
std::string summary_json(Mode mode, const JobResult& result, const std::string& experts);

/// The command that goes on with an interrupted run, quoted for a shell: the one that was given,
/// with --resume in place of --overwrite.
std::string resume_command(int argc, const char* const* argv);

}  // namespace augur::score
