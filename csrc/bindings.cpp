#include <pybind11/pybind11.h>
#include <pybind11/stl.h>
#include <torch/headeronly/version.h>

#include <sstream>
#include <string>

#include "common/stringize.h"
#include "cpu/capability.h"

namespace py = pybind11;

namespace {

const char* compiler() {
#if defined(__clang__)
  return "clang " __clang_version__;
#else
  return "gcc " __VERSION__;
#endif
}

py::object cuda_version() {
#ifdef SELKERN_CUDA_VERSION
  return py::str(SELKERN_STRINGIZE(SELKERN_CUDA_VERSION));
#else
  return py::none();
#endif
}

py::list cuda_architectures() {
  py::list names;
#ifdef SELKERN_CUDA_ARCHITECTURES
  std::istringstream list(SELKERN_STRINGIZE(SELKERN_CUDA_ARCHITECTURES));
  for (std::string name; std::getline(list, name, ';');) names.append(name);
#endif
  return names;
}

py::dict build_info() {
  py::dict info;
  info["version"] = SELKERN_STRINGIZE(SELKERN_VERSION);
  info["torch"] = SELKERN_STRINGIZE(TORCH_VERSION_MAJOR) "." SELKERN_STRINGIZE(
      TORCH_VERSION_MINOR) "." SELKERN_STRINGIZE(TORCH_VERSION_PATCH);
  info["compiler"] = compiler();
  info["cuda"] = cuda_version();
  info["cuda_architectures"] = cuda_architectures();
  info["cpu_capabilities"] = selkern::cpu::compiled_capabilities();
  return info;
}

}  // namespace

PYBIND11_MODULE(_C, module) {
  module.def("build_info", &build_info);
  module.def("cpu_capability", &selkern::cpu::capability);
  module.def("supported_cpu_capabilities", &selkern::cpu::supported_capabilities);
  module.def("set_cpu_capability", &selkern::cpu::set_capability, py::arg("name"));
}
