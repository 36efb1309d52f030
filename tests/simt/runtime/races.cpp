#include "races.h"

#ifdef SIMT_THREAD_SANITIZER

#include <sanitizer/tsan_interface.h>

#include <algorithm>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <string>
#include <vector>

extern "C" void __tsan_ignore_thread_begin();
extern "C" void __tsan_ignore_thread_end();

namespace simt::races {

namespace {

constexpr unsigned no_order = 1;

void* host = nullptr;
// ThreadSanitizer takes long to make a thread. So a launch has those of the last one, which it is
// ordered after; within a launch each is one thread's, and what exceeds these lives shortly.
std::vector<void*> threads, more_threads;
size_t threads_in_use = 0;
constexpr size_t kept_threads = 2048, most_more_threads = 512;
Event start_of_launch = nullptr;
// An event is an address of its own. Freeing the memory makes ThreadSanitizer forget it.
std::deque<uint64_t> events;
Event end_of_threads = nullptr;
// What has been released at the address of an atomic.
std::map<const void*, Event, std::less<>> atomics;

// Passes on what `from` holds and nothing else, through a thread that has seen nothing else.
void pass(Event from, Event to) {
  void* const self = __tsan_get_current_fiber();
  __tsan_switch_to_fiber(host, no_order);
  void* const messenger = __tsan_create_fiber(0);
  __tsan_switch_to_fiber(messenger, no_order);
  __tsan_acquire(from);
  __tsan_release(to);
  __tsan_switch_to_fiber(host, no_order);
  __tsan_destroy_fiber(messenger);
  __tsan_switch_to_fiber(self, no_order);
}

void destroy_more_threads() {
  for (void* thread : more_threads) __tsan_destroy_fiber(thread);
  more_threads.clear();
}

}  // namespace

void begin_launch() {
  host = __tsan_get_current_fiber();
  threads_in_use = 0;
  start_of_launch = new_event();
  end_of_threads = new_event();
  __tsan_release(start_of_launch);
}

void end_launch() {
  __tsan_acquire(end_of_threads);
  destroy_more_threads();
  atomics.clear();
  events.clear();
}

void* new_thread(unsigned block, unsigned thread) {
  // Not in the middle of a block. ThreadSanitizer has some 0.8 MB for each.
  if (thread == 0 && more_threads.size() >= most_more_threads) destroy_more_threads();
  void* fiber;
  if (threads_in_use < threads.size()) {
    fiber = threads[threads_in_use++];
  } else {
    fiber = __tsan_create_fiber(0);
    const bool keep = threads.size() < kept_threads;
    (keep ? threads : more_threads).push_back(fiber);
    threads_in_use += keep;
  }
  const std::string name = "block " + std::to_string(block) + " thread " + std::to_string(thread);
  __tsan_set_fiber_name(fiber, name.c_str());
  __tsan_switch_to_fiber(fiber, no_order);
  __tsan_acquire(start_of_launch);
  __tsan_switch_to_fiber(host, no_order);
  return fiber;
}

void enter(void* thread) { __tsan_switch_to_fiber(thread, no_order); }
void leave() { __tsan_switch_to_fiber(host, no_order); }

Event new_event() {
  const Ignore ignore;
  return &events.emplace_back();
}

void release(Event event) { __tsan_release(event); }
void acquire(Event event) { __tsan_acquire(event); }
void end_thread() { __tsan_release(end_of_threads); }

void abandon_thread(void* thread) {
  enter(thread);
  end_thread();
  leave();
  // It still has the calls on its stack that it was in.
  __tsan_destroy_fiber(thread);
  void* const another = __tsan_create_fiber(0);
  for (auto* all : {&threads, &more_threads}) {
    std::replace(all->begin(), all->end(), thread, another);
  }
}

void fence(Fences& fences) {
  if (fences.observed) __tsan_acquire(fences.observed);
  fences.observed = nullptr;
  fences.released = new_event();
  __tsan_release(fences.released);
}

void before_atomic(Fences& fences, const void* address) {
  const Ignore ignore;
  const auto found = atomics.find(address);
  if (found != atomics.end()) {
    if (!fences.observed) fences.observed = new_event();
    pass(found->second, fences.observed);
  }
  if (fences.released) {
    Event& event = atomics[address];
    if (!event) event = new_event();
    pass(fences.released, event);
  }
}

Ignore::Ignore() { __tsan_ignore_thread_begin(); }
Ignore::~Ignore() { __tsan_ignore_thread_end(); }

void forget(const void* memory, size_t bytes) {
  atomics.erase(atomics.lower_bound(memory),
                atomics.lower_bound(static_cast<const char*>(memory) + bytes));
}

}  // namespace simt::races

#endif
