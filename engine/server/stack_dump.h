// The stacks of all threads of this process, written to a file descriptor: for finding out where a
// step hangs, without a debugger.
//
// A thread is sent a realtime signal and writes its own stack from the handler, into nothing but
// the descriptor: no memory is allocated and no lock taken there. Threads answer one after the
// other, each within a bounded time; one that does not (it blocks signals, or the kernel does not
// let it go) is named and passed over. A system call that a thread is blocked in is interrupted
// and, where the kernel can, restarted; the others return EINTR. Threading: any thread; two calls
// at once take turns.
#pragma once

#include <chrono>

namespace augur::server {

struct StackDump {
  int num_threads = 0;  // named
  int num_stacks = 0;   // of those that answered
};

/// Makes the handler ready: loads what unwinding needs, which allocates. Call it before trouble;
/// dump_stacks() does it if nobody has.
void prepare_stack_dump();

/// Waits up to `patience` for each thread.
StackDump dump_stacks(int fd, std::chrono::milliseconds patience = std::chrono::milliseconds(200));

}  // namespace augur::server
