// Opens what a run writes, and finds out what an earlier run has done already.
#pragma once

#include <boost/json/object.hpp>

#include <string>

#include "tools/score/options.h"
#include "tools/score/result_writer.h"
#include "tools/score/run_state.h"

namespace augur::score {

struct OpenedResults {
  ResultFiles files;
  ResumePoint resume;  // empty for a new run
};

/// What the rows depend on: two runs may only share an output when all of it is the same.
/// `model` names the model.
boost::json::object row_settings(const Options& options,
                                 const EngineConfig& config,
                                 const std::string& model);

/// Opens output, journal (OUTPUT.state) and, if there is one to go on with, the errors file.
/// An output that holds something is refused unless options say to resume or overwrite it.
/// Throws OutputError and ResumeError.
OpenedResults open_results(const Options& options, const boost::json::object& settings);

}  // namespace augur::score
