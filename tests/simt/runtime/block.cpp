#include "block.h"

#include <cstdlib>
#include <cstring>
#include <map>
#include <sstream>

uint3 threadIdx, blockIdx;
dim3 blockDim, gridDim;
extern const int warpSize;
const int warpSize = simt::warp_threads;

namespace simt {

Block* block = nullptr;
Thread* thread = nullptr;

namespace {

std::vector<Thread>& all_threads() {
  static std::vector<Thread> threads(most_blocks * most_threads);
  return threads;
}

const char* name_of(Barrier kind) {
  switch (kind) {
    case Barrier::count:
      return "__syncthreads_count";
    case Barrier::conjunction:
      return "__syncthreads_and";
    case Barrier::disjunction:
      return "__syncthreads_or";
    default:
      return "__syncthreads";
  }
}

struct Mask {
  unsigned lanes;
};

std::ostream& operator<<(std::ostream& stream, Mask mask) {
  return stream << "0x" << std::hex << mask.lanes << std::dec;
}

// 0, 1, 2, 5 -> "threads 0-2, 5"
std::string thread_list(const std::vector<int>& numbers) {
  std::ostringstream text;
  text << (numbers.size() == 1 ? "thread" : "threads");
  for (size_t i = 0, last; i < numbers.size(); i = last + 1) {
    for (last = i; last + 1 < numbers.size() && numbers[last + 1] == numbers[last] + 1;) ++last;
    text << (i == 0 ? " " : ", ") << numbers[i];
    if (last > i) text << "-" << numbers[last];
  }
  return text.str();
}

}  // namespace

SharedMemory::SharedMemory(size_t bytes) : bytes_(bytes) {
  const races::Ignore ignore;
  data_ = std::malloc(bytes);
  if (bytes > 0) std::memset(data_, 0xff, bytes);
}

SharedMemory::SharedMemory(SharedMemory&& other) noexcept
    : data_(std::exchange(other.data_, nullptr)), bytes_(other.bytes_) {}

SharedMemory::~SharedMemory() {
  if (!data_) return;
  const races::Ignore ignore;
  races::forget(data_, bytes_);
  std::free(data_);
}

Block::Block(const Launch& launch, uint3 index, unsigned number, int slot)
    : launch_(launch),
      index_(index),
      slot_(slot),
      size_(launch.block.x * launch.block.y * launch.block.z),
      live_(size_),
      threads_(all_threads().data() + slot * most_threads),
      warps_((size_ + warp_threads - 1) / warp_threads),
      dynamic_(launch.shared_bytes),
      event_(races::new_event()) {
  const dim3& shape = launch.block;
  for (int i = 0; i < size_; ++i) {
    Thread& thread = threads_[i];
    thread.number = i;
    thread.index = {i % shape.x, i / shape.x % shape.y, i / (shape.x * shape.y)};
    thread.state = State::ready;
    thread.turns = unlimited;
    thread.fences = {};
    thread.fiber.race_thread = races::new_thread(number, i);
    thread.fiber.start(slot * most_threads + i, &thread_main);
  }
  for (size_t w = 0; w < warps_.size(); ++w) {
    warps_[w].threads = threads_ + w * warp_threads;
    warps_[w].size = std::min(warp_threads, size_ - int(w) * warp_threads);
  }
}

Block::~Block() {
  for (int i = 0; i < size_; ++i) {
    Thread& thread = threads_[i];
    if (thread.state == State::exited) continue;
    races::abandon_thread(thread.fiber.race_thread);
    thread.fiber.abandon();
  }
  renew_stacks(slot_ * most_threads, size_);
  block = nullptr;
}

void Block::thread_main() {
  block->launch_.body(block->launch_.call);
  races::end_thread();
  thread->state = State::exited;
  --block->live_;
  thread->fiber.suspend(true);
}

const std::string& Block::run(Orders& orders) {
  while (live_ > 0 && failure_.empty()) {
    if (run_warps(orders) || !failure_.empty()) continue;
    failure_ = "threads wait for others that do not come:" + waiting_threads();
  }
  return failure();
}

const std::string& Block::run_with_some_held(Orders& orders) {
  // More often of the first warp, which is the one that kernels give tasks of its own.
  const Warp& warp = warps_[orders.coin() ? 0 : orders.random.below(warps_.size())];
  const int lane = orders.coin() ? -1 : int(orders.random.below(warp.size));
  const uint64_t most_turns = uint64_t(1) << orders.random.below(5);
  const int turns = orders.random.below(4) == 0 ? 0 : 1 + int(orders.random.below(most_turns));
  for (int i = 0; i < warp.size; ++i) {
    if (lane < 0 || i == lane) warp.threads[i].turns = turns;
  }
  while (failure_.empty() && run_warps(orders)) {
  }
  for (int i = 0; i < warp.size; ++i) warp.threads[i].turns = unlimited;
  return failure();
}

bool Block::run_warps(Orders& orders) {
  block = this;
  blockIdx = index_;
  bool progress = false;
  for (uint64_t w : orders.warps.of(warps_.size(), orders.random)) {
    progress = run_warp(warps_[w], orders) || progress;
    if (!failure_.empty()) break;
  }
  return progress;
}

const std::string& Block::failure() {
  if (failure_.empty()) return failure_;
  std::ostringstream text;
  text << kernel_name(launch_.kernel) << ", block (" << index_.x << ", " << index_.y << ", "
       << index_.z << "): " << failure_;
  return failure_ = text.str();
}

// Runs the lanes of a warp until all of them wait for other warps, or have exited.
bool Block::run_warp(Warp& warp, Orders& orders) {
  bool progress = false, round;
  do {
    round = false;
    for (uint64_t lane : orders.lanes.of(warp.size, orders.random)) {
      Thread& next = warp.threads[lane];
      if (next.state != State::ready || next.turns == 0) continue;
      --next.turns;
      round = progress = true;
      thread = &next;
      threadIdx = next.index;
      next.fiber.resume();
      if (!failure_.empty()) return true;
    }
  } while (round && (orders.threads != Order::random || orders.coin()));
  return progress;
}

void Block::wait(const Site* site, const char* call, unsigned mask) {
  thread->state = State::waiting;
  thread->site = site;
  thread->call = call;
  thread->mask = mask;
}

int Block::barrier(Barrier kind, bool predicate, Place place) {
  Site* const site = site_of(place);
  site->is_barrier = true;
  if (site->skipped) return predicate;
  races::release(event_);
  const races::Event event = event_;
  predicates_ += predicate;
  wait(site, name_of(kind), 0);
  if (++arrived_ < size_) {
    thread->fiber.suspend();
  } else {
    check_sites();
    for (Warp& warp : warps_) {
      for (int lane = 0; lane < warp.size; ++lane) warp.threads[lane].state = State::ready;
    }
    last_predicates_ = predicates_;
    arrived_ = predicates_ = 0;
    event_ = races::new_event();
  }
  races::acquire(event);
  return last_predicates_;
}

void Block::check_sites() {
  const Thread& first = threads_[0];
  bool same = true;
  for (int i = 1; i < size_; ++i) {
    const Thread& other = threads_[i];
    same = same && other.site == first.site && other.call == first.call;
  }
  if (same) return;
  {
    const races::Ignore ignore;
    failure_ = "threads wait at different barriers:" + waiting_threads();
  }
  stop();
}

std::string Block::waiting_threads() const {
  std::map<std::string, std::vector<int>> places;
  for (int i = 0; i < size_; ++i) {
    const Thread& thread = threads_[i];
    std::ostringstream place;
    if (thread.state == State::exited) {
      place << "exited";
    } else {
      place << "at " << thread.site->name << " in " << thread.call;
      if (thread.mask != 0) place << ", mask " << Mask{thread.mask};
    }
    places[place.str()].push_back(i);
  }
  std::string text;
  for (const auto& [place, numbers] : places) text += "\n  " + thread_list(numbers) + ": " + place;
  return text;
}

Group& Block::group_of(Operation operation, unsigned mask, const Site* site) {
  std::vector<Group>& groups = warps_[thread->number / warp_threads].groups;
  for (Group& group : groups) {
    if (group.operation == operation && group.mask == mask && group.site == site) return group;
  }
  const races::Ignore ignore;
  return groups.emplace_back(Group{operation, mask, site, 0, races::new_event()});
}

uint64_t Block::warp_operation(Operation operation, unsigned mask, Operand operand, Place place) {
  const Site* const site = site_of(place);
  const unsigned lane = 1u << thread->lane();
  if ((mask & lane) == 0) {
    fail("thread ", thread->number, " is not in its own mask ", Mask{mask}, " of ",
         simt::name_of(operation), " at ", place);
  }
  if (operand.width < 1 || operand.width > 32 || (operand.width & (operand.width - 1)) != 0) {
    fail("the width of ", simt::name_of(operation), " at ", place, " is ", operand.width,
         ", not a power of two up to 32");
  }
  const bool orders = operation == Operation::barrier;
  Group& group = group_of(operation, mask, site);
  const races::Event event = group.event;
  if (orders) races::release(event);
  thread->operand = operand;
  wait(site, simt::name_of(operation), mask);
  group.arrived |= lane;
  if (group.arrived != mask) {
    thread->fiber.suspend();
  } else {
    Warp& warp = warps_[thread->number / warp_threads];
    complete(operation, mask, warp.threads);
    for (int i = 0; i < warp.size; ++i) {
      if (mask >> i & 1) warp.threads[i].state = State::ready;
    }
    group = warp.groups.back();
    warp.groups.pop_back();
  }
  if (orders) races::acquire(event);
  return thread->result;
}

unsigned Block::live_lanes() const {
  const Warp& warp = warps_[thread->number / warp_threads];
  unsigned lanes = 0;
  for (int i = 0; i < warp.size; ++i) {
    if (warp.threads[i].state != State::exited) lanes |= 1u << i;
  }
  return lanes;
}

void* Block::static_shared(const void* key, size_t bytes) {
  for (const Array& array : arrays_) {
    if (array.key == key) return array.memory.data();
  }
  static_bytes_ += bytes;
  const size_t most = most_dynamic_shared(launch_.kernel) + static_bytes_;
  if (static_bytes_ > shared_bytes_by_default || static_bytes_ + launch_.shared_bytes > most ||
      static_bytes_ + launch_.shared_bytes > most_shared_bytes) {
    fail("too much shared memory: ", static_bytes_, " bytes static, ", launch_.shared_bytes,
         " bytes dynamic");
  }
  const races::Ignore ignore;
  return arrays_.emplace_back(Array{key, SharedMemory(bytes)}).memory.data();
}

void Block::stop() {
  thread->fiber.suspend();
  std::abort();
}

int block_barrier(Barrier kind, bool predicate, Place place) {
  return block->barrier(kind, predicate, place);
}

uint64_t warp_operation(Operation operation, unsigned mask, Operand operand, Place place) {
  return block->warp_operation(operation, mask, operand, place);
}

void warp_barrier(unsigned mask, Place place) {
  Site* const site = site_of(place);
  site->is_barrier = true;
  if (!site->skipped) block->warp_operation(Operation::barrier, mask, {}, place);
}

unsigned live_lanes() { return block->live_lanes(); }
void* dynamic_shared() { return block->dynamic_shared(); }
void* static_shared(const void* key, size_t bytes) { return block->static_shared(key, bytes); }

void misaligned(const void* address, size_t alignment, Place place) {
  block->fail("thread ", thread->number, " accesses ", address, ", not aligned to ", alignment,
              " bytes, at ", place);
}

void trap(Place place) { block->fail("thread ", thread->number, " traps at ", place); }

void fence() { races::fence(thread->fences); }
void before_atomic(const void* address) { races::before_atomic(thread->fences, address); }

}  // namespace simt
