#include "case.h"

#include <cstdio>
#include <map>
#include <string>

namespace simt_cases {

namespace {

std::map<std::string, void (*)()>& cases() {
  static std::map<std::string, void (*)()> cases;
  return cases;
}

}  // namespace

Case::Case(const char* name, void (*run)()) { cases()[name] = run; }

std::ostringstream& say() {
  static std::ostringstream text;
  return text;
}

}  // namespace simt_cases

EXPORTED const char* run_case(const char* name) {
  static std::string text;
  const auto found = simt_cases::cases().find(name);
  if (found == simt_cases::cases().end()) return "no such case";
  simt_cases::say().str("");
  found->second();
  text = simt_cases::say().str();
  return text.c_str();
}

int main(int count, char** names) {
  for (int i = 1; i < count; ++i) std::fputs(run_case(names[i]), stdout);
}
