// What the program does with each document.
#pragma once

#include <cstdint>

namespace augur::score {

enum class Mode : uint8_t { kScore, kGenerate };

/// How the program ends. Interruptions end it with 128 + the signal's number instead.
enum class ExitCode : int {
  kOk = 0,            // every document is done
  kUsage = 1,         // options, configuration, model or input file refused; nothing was done
  kBadLines = 2,      // done, but some lines were bad; or --strict stopped at one
  kOutputFailed = 3,  // output could not be written; the rows in it count, --resume continues
  kFailed = 4,        // the run broke off: input could not be read on, or an internal error
};

}  // namespace augur::score
