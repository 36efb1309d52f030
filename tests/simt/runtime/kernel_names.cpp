#include <cxxabi.h>
#include <dlfcn.h>
#include <elf.h>

#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iterator>
#include <map>
#include <string>

#include "block.h"

namespace simt {

namespace {

// dladdr alone knows no functions of anonymous namespaces; the file's own table does.
std::string symbol_in_file(const char* path, uint64_t address) {
  std::ifstream stream(path, std::ios::binary);
  const std::string file{std::istreambuf_iterator<char>(stream), {}};
  if (file.size() < sizeof(Elf64_Ehdr) || file.compare(0, SELFMAG, ELFMAG) != 0) return "";
  const auto* header = reinterpret_cast<const Elf64_Ehdr*>(file.data());
  if (header->e_ident[EI_CLASS] != ELFCLASS64) return "";
  const auto* sections = reinterpret_cast<const Elf64_Shdr*>(file.data() + header->e_shoff);
  for (int i = 0; i < header->e_shnum; ++i) {
    if (sections[i].sh_type != SHT_SYMTAB) continue;
    const char* names = file.data() + sections[sections[i].sh_link].sh_offset;
    const auto* symbols = reinterpret_cast<const Elf64_Sym*>(file.data() + sections[i].sh_offset);
    for (size_t s = 0; s < sections[i].sh_size / sizeof(Elf64_Sym); ++s) {
      if (symbols[s].st_value == address && ELF64_ST_TYPE(symbols[s].st_info) == STT_FUNC) {
        return names + symbols[s].st_name;
      }
    }
  }
  return "";
}

std::string demangle(const std::string& symbol) {
  char* const demangled = abi::__cxa_demangle(symbol.c_str(), nullptr, nullptr, nullptr);
  const std::string name = demangled ? demangled : symbol;
  std::free(demangled);
  return name;
}

// void space::name<T>(Parameters) -> name<T>
std::string without_context(std::string name) {
  const std::string anonymous = "(anonymous namespace)::";
  for (size_t at; (at = name.find(anonymous)) != std::string::npos;) {
    name.erase(at, anonymous.size());
  }
  size_t start = 0, end = name.size();
  int depth = 0;
  for (size_t i = 0; i < name.size(); ++i) {
    depth += (name[i] == '<') - (name[i] == '>');
    if (depth != 0) continue;
    if (name[i] == '(') {
      end = i;
      break;
    }
    if (name[i] == ' ' || name[i] == ':') start = i + 1;
  }
  return name.substr(start, end - start);
}

std::string find_name(const void* kernel) {
  Dl_info info;
  if (!dladdr(kernel, &info)) return "a kernel without a name";
  if (info.dli_sname && info.dli_saddr == kernel) return without_context(demangle(info.dli_sname));
  const auto base = reinterpret_cast<uint64_t>(info.dli_fbase);
  const std::string symbol =
      symbol_in_file(info.dli_fname, reinterpret_cast<uint64_t>(kernel) - base);
  return symbol.empty() ? "a kernel without a name" : without_context(demangle(symbol));
}

}  // namespace

const std::string& kernel_name(const void* kernel) {
  static std::map<const void*, std::string> names;
  std::string& name = names[kernel];
  if (name.empty()) name = find_name(kernel);
  return name;
}

}  // namespace simt
