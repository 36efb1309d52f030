// The places in the kernels' source where threads wait for each other.
#pragma once

#include <ostream>
#include <string>

#include "simt/runtime.h"

namespace simt {

struct Site {
  std::string name;  // file:line
  bool skipped = false;
  bool is_barrier = false;  // and one has been executed there
};

// Always the same object for the same place.
Site* site_of(Place place);
inline std::ostream& operator<<(std::ostream& stream, Place place) {
  return stream << place.file << ":" << place.line;
}

void record_kernel(const std::string& name);

}  // namespace simt
