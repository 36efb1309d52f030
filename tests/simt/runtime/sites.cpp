#include "sites.h"

#include <cstdlib>
#include <cstring>
#include <map>
#include <set>
#include <sstream>

#include "races.h"

namespace simt {

namespace {

std::map<std::string, Site>& sites() {
  static std::map<std::string, Site> sites;
  return sites;
}

std::set<std::string>& kernels() {
  static std::set<std::string> kernels;
  return kernels;
}

std::set<std::string> split(const char* names) {
  std::set<std::string> all;
  std::stringstream stream(names ? names : "");
  for (std::string name; std::getline(stream, name, ',');) all.insert(name);
  return all;
}

std::set<std::string>& skipped() {
  static std::set<std::string> names = split(std::getenv("SIMT_SKIP_BARRIER"));
  return names;
}

bool is_skipped(const std::string& site) {
  for (const std::string& name : skipped()) {
    const size_t start = site.size() - name.size();
    if (name.size() > site.size() || site.compare(start, name.size(), name) != 0) continue;
    if (start == 0 || site[start - 1] == '/') return true;
  }
  return false;
}

const char* keep(std::string text) {
  static std::string kept;
  kept = std::move(text);
  return kept.c_str();
}

}  // namespace

Site* site_of(Place place) {
  // The threads of a block mostly come to the same place one after another.
  static Place last = {nullptr, 0};
  static Site* last_site = nullptr;
  if (place.file == last.file && place.line == last.line) return last_site;

  const races::Ignore ignore;
  static std::map<std::pair<const char*, int>, Site*> known;
  Site*& site = known[{place.file, place.line}];
  if (!site) {
    const std::string name = std::string(place.file) + ":" + std::to_string(place.line);
    site = &sites()[name];
    site->name = name;
    site->skipped = is_skipped(name);
  }
  last = place;
  last_site = site;
  return site;
}

void record_kernel(const std::string& name) { kernels().insert(name); }

}  // namespace simt

#pragma GCC visibility push(default)
extern "C" {

// Leaves out the barriers at these places: file:line, separated by commas, with as many of the
// file's folders as needed. Nothing: none.
void simt_skip_barrier(const char* names) {
  simt::skipped() = simt::split(names);
  for (auto& [name, site] : simt::sites()) site.skipped = simt::is_skipped(name);
}

// One line for each barrier that has been executed, and for each kernel.
const char* simt_barrier_sites() {
  std::string lines;
  for (const auto& [name, site] : simt::sites()) {
    if (site.is_barrier) lines += name + "\n";
  }
  return simt::keep(lines);
}

const char* simt_kernels() {
  std::string lines;
  for (const std::string& name : simt::kernels()) lines += name + "\n";
  return simt::keep(lines);
}

// Forgets what has been executed.
void simt_reset() {
  simt::kernels().clear();
  for (auto& [name, site] : simt::sites()) site.is_barrier = false;
}

}  // extern "C"
#pragma GCC visibility pop
