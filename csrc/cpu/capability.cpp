#include "cpu/capability.h"

#include <atomic>
#include <stdexcept>

#if defined(__x86_64__)
#include <cpuid.h>
#endif

namespace selkern::cpu {
namespace {

#if defined(__x86_64__)
bool has_f16c() {
  unsigned eax, ebx, ecx, edx;
  return __get_cpuid(1, &eax, &ebx, &ecx, &edx) && (ecx & bit_F16C);
}

bool runs_avx2() {
  return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && has_f16c();
}

bool runs_avx512() {
  return runs_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
}
#endif

struct Level {
  const Kernels* kernels;
  bool (*runs_here)();
};

const std::vector<Level>& levels() {
  static const std::vector<Level> all = {
#if defined(__x86_64__)
      {&avx512::table, runs_avx512},
      {&avx2::table, runs_avx2},
#endif
      {&baseline::table, [] { return true; }},
  };
  return all;
}

const Kernels* best_level() {
  for (const Level& level : levels()) {
    if (level.runs_here()) return level.kernels;
  }
  return &baseline::table;
}

std::atomic<const Kernels*>& active_level() {
  static std::atomic<const Kernels*> active{best_level()};
  return active;
}

std::string joined(const std::vector<std::string>& names) {
  std::string text;
  for (const std::string& name : names) text += (text.empty() ? "" : ", ") + name;
  return text;
}

}  // namespace

const Kernels& kernels() { return *active_level().load(std::memory_order_acquire); }

std::string capability() { return kernels().name; }

std::vector<std::string> compiled_capabilities() {
  std::vector<std::string> names;
  for (const Level& level : levels()) names.emplace_back(level.kernels->name);
  return names;
}

std::vector<std::string> supported_capabilities() {
  std::vector<std::string> names;
  for (const Level& level : levels()) {
    if (level.runs_here()) names.emplace_back(level.kernels->name);
  }
  return names;
}

void set_capability(const std::string& name) {
  for (const Level& level : levels()) {
    if (name == level.kernels->name && level.runs_here()) {
      active_level().store(level.kernels, std::memory_order_release);
      return;
    }
  }
  throw std::invalid_argument("CPU capability must be one of those this machine runs (" +
                              joined(supported_capabilities()) + "), got '" + name + "'");
}

}  // namespace selkern::cpu
