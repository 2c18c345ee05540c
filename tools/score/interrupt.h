// SIGINT and SIGTERM: the run ends after the step it is in. A second one ends it at once.
#pragma once

namespace augur::score {

/// From now on the first SIGINT or SIGTERM is only noted, and told on stderr. SIGPIPE and SIGXFSZ
/// are ignored: the write that caused them fails and is reported as any other.
void catch_signals();

/// The signal that came, 0 for none. `exit status = 128 + signal` as shells have it.
int caught_signal();

/// As if `signal` had come, or for 0 none; for tests.
void set_caught_signal(int signal);

}  // namespace augur::score
