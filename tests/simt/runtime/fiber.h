// Stacks that take turns on one thread of the host.
#pragma once

#include <cstddef>

#if !defined(__x86_64__) || defined(SIMT_UCONTEXT)
#include <ucontext.h>
#else
#define SIMT_HAND_WRITTEN_SWITCH
#endif

namespace simt {

class Fiber {
 public:
  Fiber() = default;
  Fiber(const Fiber&) = delete;

  // Makes the next resume() call entry, which must not return. index chooses the stack.
  void start(int index, void (*entry)());
  // From the host, until the fiber calls suspend().
  void resume();
  // From the fiber back to the host; for good where it will not be resumed.
  void suspend(bool for_good = false);
  // From the host, for a fiber that will not be resumed though it has not ended.
  void abandon();

  // ThreadSanitizer's idea of this fiber: a thread that nothing orders but what the runtime says.
  void* race_thread = nullptr;

 private:
#ifdef SIMT_HAND_WRITTEN_SWITCH
  using Context = void*;
#else
  using Context = ucontext_t;
#endif

  static Context host_;

  char* stack_ = nullptr;
  Context context_;
  void* fake_stack_ = nullptr;

  friend void fiber_entry();
};

// Forgets what earlier fibers did on their stacks, so that the next ones may have them.
void renew_stacks(int first, int count);

}  // namespace simt
