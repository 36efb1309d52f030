#include "fiber.h"

#include <sys/mman.h>
#include <unistd.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>

#include "races.h"

#ifdef SIMT_ADDRESS_SANITIZER
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif

namespace simt {

namespace {

constexpr int most_fibers = 2 * 1024;
#ifdef SIMT_ADDRESS_SANITIZER
constexpr size_t stack_bytes = 256 << 10;
#else
constexpr size_t stack_bytes = 128 << 10;
#endif

char* map_stacks(void* at, int count, int flags) {
  void* stacks = mmap(at, count * stack_bytes, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | flags, -1, 0);
  if (stacks == MAP_FAILED) {
    std::perror("simt: no memory for the stacks of a block");
    std::abort();
  }
  return static_cast<char*>(stacks);
}

char* all_stacks() {
  static char* const stacks = map_stacks(nullptr, most_fibers, 0);
  return stacks;
}

char* stack_of(int index) {
  static int guarded = 0;
  static const size_t page = sysconf(_SC_PAGESIZE);
  char* const stacks = all_stacks();
  for (; guarded <= index; ++guarded) mprotect(stacks + guarded * stack_bytes, page, PROT_NONE);
  return stacks + index * stack_bytes;
}

#ifdef SIMT_ADDRESS_SANITIZER
const void* host_stack = nullptr;
size_t host_stack_bytes = 0;
#endif

void leave_stack([[maybe_unused]] void** fake_stack, [[maybe_unused]] const void* next,
                 [[maybe_unused]] size_t next_bytes) {
#ifdef SIMT_ADDRESS_SANITIZER
  __sanitizer_start_switch_fiber(fake_stack, next, next_bytes);
#endif
}

void enter_stack([[maybe_unused]] void* fake_stack) {
#ifdef SIMT_ADDRESS_SANITIZER
  __sanitizer_finish_switch_fiber(fake_stack, nullptr, nullptr);
#endif
}

void (*entry_of_fiber)();

}  // namespace

Fiber::Context Fiber::host_;

#ifdef SIMT_HAND_WRITTEN_SWITCH

namespace {

// Keeps the registers that a call must keep, changes the stack, and returns to whoever left it.
__attribute__((naked, noinline)) void change_stack(void** /*leave*/, void* /*enter*/) {
  asm("pushq %rbp\n\t"
      "pushq %rbx\n\t"
      "pushq %r12\n\t"
      "pushq %r13\n\t"
      "pushq %r14\n\t"
      "pushq %r15\n\t"
      "movq %rsp, (%rdi)\n\t"
      "movq %rsi, %rsp\n\t"
      "popq %r15\n\t"
      "popq %r14\n\t"
      "popq %r13\n\t"
      "popq %r12\n\t"
      "popq %rbx\n\t"
      "popq %rbp\n\t"
      "ret");
}

void change_context(void*& leave, void*& enter) { change_stack(&leave, enter); }

// As if change_stack had left it: six registers, and where to return to.
void prepare(void*& context, char* stack, int index, void (*entry)()) {
  // Stacks that all began at the same offset would compete for the same lines of the cache.
  auto top = reinterpret_cast<void**>(stack + stack_bytes - index % 61 * 64);
  *--top = nullptr;
  *--top = reinterpret_cast<void*>(entry);
  for (int i = 0; i < 6; ++i) *--top = nullptr;
  context = top;
}

}  // namespace

#else

namespace {

void change_context(ucontext_t& leave, ucontext_t& enter) { swapcontext(&leave, &enter); }

void prepare(ucontext_t& context, char* stack, int, void (*entry)()) {
  getcontext(&context);
  context.uc_stack.ss_sp = stack;
  context.uc_stack.ss_size = stack_bytes;
  context.uc_link = nullptr;
  makecontext(&context, entry, 0);
}

}  // namespace

#endif

void fiber_entry() {
#ifdef SIMT_ADDRESS_SANITIZER
  __sanitizer_finish_switch_fiber(nullptr, &host_stack, &host_stack_bytes);
#endif
  entry_of_fiber();
}

void Fiber::start(int index, void (*entry)()) {
  stack_ = stack_of(index);
  entry_of_fiber = entry;
  prepare(context_, stack_, index, &fiber_entry);
}

void Fiber::resume() {
  void* fake_stack = nullptr;
  races::enter(race_thread);
  leave_stack(&fake_stack, stack_, stack_bytes);
  change_context(host_, context_);
  enter_stack(fake_stack);
}

void Fiber::suspend(bool for_good) {
  races::leave();
#ifdef SIMT_ADDRESS_SANITIZER
  leave_stack(for_good ? nullptr : &fake_stack_, host_stack, host_stack_bytes);
#else
  static_cast<void>(for_good);
#endif
  change_context(context_, host_);
  enter_stack(fake_stack_);
}

void Fiber::abandon() {
#ifdef SIMT_ADDRESS_SANITIZER
  __asan_unpoison_memory_region(stack_, stack_bytes);
#endif
}

void renew_stacks([[maybe_unused]] int first, [[maybe_unused]] int count) {
#ifdef SIMT_THREAD_SANITIZER
  map_stacks(all_stacks() + first * stack_bytes, count, MAP_FIXED);
#endif
}

}  // namespace simt
