// The block of threads that is being executed.
#pragma once

#include <sstream>
#include <string>
#include <vector>

#include "fiber.h"
#include "order.h"
#include "races.h"
#include "simt/runtime.h"
#include "sites.h"

namespace simt {

constexpr int warp_threads = 32;
constexpr int most_threads = 1024;
constexpr int most_blocks = 2;  // that exist at a time

constexpr int unlimited = 1 << 30;

enum class State { ready, waiting, exited };

struct Thread {
  Fiber fiber;
  races::Fences fences;
  int number = 0;
  uint3 index{};
  State state = State::exited;
  int turns = unlimited;  // that it may still have

  // Where it waits, in what, and for which lanes of its warp; no mask: for the block.
  const Site* site = nullptr;
  const char* call = nullptr;
  unsigned mask = 0;

  Operand operand;
  uint64_t result = 0;

  int lane() const { return number % warp_threads; }
};

// Lanes that have come to one operation, until all of its mask have.
struct Group {
  Operation operation;
  unsigned mask;
  const Site* site;
  unsigned arrived;
  races::Event event;
};

struct Warp {
  Thread* threads = nullptr;
  int size = 0;
  std::vector<Group> groups;
};

// Memory of a block, of exactly the size asked for, that starts as NaN.
class SharedMemory {
 public:
  explicit SharedMemory(size_t bytes);
  ~SharedMemory();
  SharedMemory(SharedMemory&& other) noexcept;
  void* data() const { return data_; }

 private:
  void* data_;
  size_t bytes_;
};

class Block {
 public:
  // number: in the launch; slot: whose stacks it has.
  Block(const Launch& launch, uint3 index, unsigned number, int slot);
  ~Block();

  // Runs all threads to their end, or until one fails. Returns what failed, or nothing.
  const std::string& run(Orders& orders);
  // As far as they come while one of them, or one warp, stops somewhere.
  const std::string& run_with_some_held(Orders& orders);

  int barrier(Barrier kind, bool predicate, Place place);
  uint64_t warp_operation(Operation operation, unsigned mask, Operand operand, Place place);
  unsigned live_lanes() const;
  void* static_shared(const void* key, size_t bytes);
  void* dynamic_shared() const { return dynamic_.data(); }

  // Ends the launch: the running thread never goes on, nor are its objects destroyed.
  template <typename... Parts>
  [[noreturn]] void fail(const Parts&... parts) {
    {
      const races::Ignore ignore;
      std::ostringstream text;
      (text << ... << parts);
      failure_ = text.str();
    }
    stop();
  }

 private:
  struct Array {
    const void* key;
    SharedMemory memory;
  };

  bool run_warps(Orders& orders);
  bool run_warp(Warp& warp, Orders& orders);
  const std::string& failure();
  void wait(const Site* site, const char* call, unsigned mask);
  void check_sites();
  std::string waiting_threads() const;
  Group& group_of(Operation operation, unsigned mask, const Site* site);
  [[noreturn]] static void stop();
  static void thread_main();

  const Launch& launch_;
  uint3 index_;
  int slot_;
  int size_;
  int live_;
  Thread* threads_;
  std::string failure_;
  std::vector<Warp> warps_;
  std::vector<Array> arrays_;
  size_t static_bytes_ = 0;
  SharedMemory dynamic_;

  // The barrier that threads of the block are coming to, and what came of the last one.
  int arrived_ = 0;
  int predicates_ = 0;
  int last_predicates_ = 0;
  races::Event event_;
};

extern Block* block;
extern Thread* thread;  // the running one

const char* name_of(Operation operation);
// What every lane of the mask gets from an operation that all of them have come to.
void complete(Operation operation, unsigned mask, Thread* lanes);

const std::string& kernel_name(const void* kernel);
size_t most_dynamic_shared(const void* kernel);

constexpr size_t shared_bytes_by_default = 48 << 10;
constexpr size_t most_shared_bytes = 227 << 10;

}  // namespace simt
