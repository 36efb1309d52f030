// What ThreadSanitizer is told of the order between threads; nothing in other builds.
#pragma once

#include <cstddef>

namespace simt::races {

#ifdef SIMT_THREAD_SANITIZER

// Order passes from a thread that releases an event to one that acquires it later.
using Event = void*;

// What a thread has said, or heard of, by fences and atomics.
struct Fences {
  Event released = nullptr;
  Event observed = nullptr;
};

void begin_launch();
// The host has seen all that the threads did.
void end_launch();

void* new_thread(unsigned block, unsigned thread);
void enter(void* thread);
void leave();

Event new_event();
void release(Event event);
void acquire(Event event);
void end_thread();
// For a thread that will not end by itself.
void abandon_thread(void* thread);

void fence(Fences& fences);
void before_atomic(Fences& fences, const void* address);

// While one exists, memory may change hands without a trace.
struct Ignore {
  Ignore();
  ~Ignore();
};
// Atomics on this memory were on another block's.
void forget(const void* memory, size_t bytes);

#else

using Event = void*;
struct Fences {};

inline void begin_launch() {}
inline void end_launch() {}
inline void* new_thread(unsigned, unsigned) { return nullptr; }
inline void enter(void*) {}
inline void leave() {}
inline Event new_event() { return nullptr; }
inline void release(Event) {}
inline void acquire(Event) {}
inline void end_thread() {}
inline void abandon_thread(void*) {}
inline void fence(Fences&) {}
inline void before_atomic(Fences&, const void*) {}
struct Ignore {
  Ignore() {}
};
inline void forget(const void*, size_t) {}

#endif

}  // namespace simt::races
