#include "ort/ort_library.h"

#include <dlfcn.h>
#if defined(__linux__)
#include <elf.h>
#endif

#include <cstdlib>
#include <cstring>
#include <fstream>
#include <mutex>

namespace tercel {

OrtCalls ort;

namespace {

std::mutex open_mutex;
std::string open_path;     // protected by open_mutex until the first success, then constant
std::string open_version;  // the same

// Whether a library of version 1.`minor` has this slot, of those that Tercel calls.
constexpr bool HasSlot(int slot, int minor) {
  return slot < 320 || (slot < 390 && minor >= 23) || minor >= 30;
}

int MinorVersion(const std::string& version) {
  const size_t dot = version.find('.');
  return dot == std::string::npos ? 0 : std::atoi(version.c_str() + dot + 1);
}

Status Refuse(const std::string& path, const std::string& why) {
  return Status::Model("cannot use ONNX Runtime library \"" + path + "\": " + why);
}

// dlopen maps what the headers name without looking at the file's length: a file that was cut short
// kills the process at the first access behind its end. True when all of it is there, or when it is no
// ELF file of this word size (dlopen then says what it is).
bool IsWhole(const std::string& path) {
#if defined(__linux__) && defined(__LP64__)
  std::ifstream file(path, std::ios::binary | std::ios::ate);
  if (!file) return true;
  const auto size = static_cast<uint64_t>(file.tellg());
  Elf64_Ehdr header;
  file.seekg(0);
  if (!file.read(reinterpret_cast<char*>(&header), sizeof header)) return true;
  if (std::memcmp(header.e_ident, ELFMAG, SELFMAG) != 0) return true;
  if (header.e_ident[EI_CLASS] != ELFCLASS64 || header.e_phentsize != sizeof(Elf64_Phdr)) return true;
  for (int i = 0; i < header.e_phnum; ++i) {
    Elf64_Phdr segment;
    file.seekg(static_cast<std::streamoff>(header.e_phoff + uint64_t(i) * sizeof segment));
    if (!file.read(reinterpret_cast<char*>(&segment), sizeof segment)) return false;
    if (segment.p_type == PT_LOAD &&
        (segment.p_offset > size || segment.p_filesz > size - segment.p_offset)) {
      return false;
    }
  }
#endif
  (void)path;
  return true;
}

}  // namespace

Status OpenOrtLibrary(const std::string& path) {
  std::lock_guard<std::mutex> lock(open_mutex);
  if (!open_path.empty()) {
    if (path == open_path) return {};
    return Refuse(path, "this process already runs on \"" + open_path + "\"");
  }
  if (!IsWhole(path)) return Refuse(path, "the file is cut short");
  // Read by the library when its environment is created; see README, "Privacy".
  setenv("ORT_DISABLE_TELEMETRY", "1", 1);

  void* library = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (!library) {
    const char* reason = dlerror();
    return Refuse(path, reason ? reason : "it cannot be opened");
  }
  auto fail = [&](const std::string& why) {
    dlclose(library);
    return Refuse(path, why);
  };
  auto get_base = reinterpret_cast<const OrtApiBase* (*)()>(dlsym(library, "OrtGetApiBase"));
  if (!get_base) return fail("it has no OrtGetApiBase, so it is not an ONNX Runtime");
  const OrtApiBase* base = get_base();
  if (!base || !base->GetApi || !base->GetVersionString) {
    return fail("its OrtGetApiBase returns nothing");
  }
  const char* version_text = base->GetVersionString();
  const std::string version = version_text ? version_text : "";
  const int minor = MinorVersion(version);
  const std::string oldest = "1." + std::to_string(kOldestApi);
  if (version.rfind("1.", 0) != 0 || minor < static_cast<int>(kOldestApi)) {
    return fail("it is version " + (version.empty() ? "(none)" : version) + ", Tercel needs " + oldest +
                " or newer");
  }
  const uint32_t wanted = minor < static_cast<int>(kNewestApi) ? minor : kNewestApi;
  auto* table = static_cast<void* const*>(base->GetApi(wanted));
  if (!table) {
    return fail("it is version " + version + " but refuses API " + std::to_string(wanted));
  }
  OrtCalls calls;
#define TERCEL_READ(slot, name, result, arguments) \
  if (HasSlot(slot, minor))                        \
    calls.name = reinterpret_cast<result(*) arguments>(reinterpret_cast<uintptr_t>(table[slot]));
  TERCEL_ORT_CALLS(TERCEL_READ)
#undef TERCEL_READ
  ort = calls;
  open_version = version;
  open_path = path;
  return {};
}

const std::string& OrtLibraryPath() { return open_path; }
const std::string& OrtLibraryVersion() { return open_version; }

Status ToStatus(OrtStatus* status, Code code) { return ToStatus(status, code, nullptr); }

Status ToStatus(OrtStatus* status, Code code, const char* context) {
  if (!status) return {};
  std::string message = context ? std::string(context) + ": " : std::string();
  message += ort.GetErrorMessage(status);
  ort.ReleaseStatus(status);
  return {code, std::move(message)};
}

Status RunStatus(OrtStatus* status) {
  if (!status) return {};
  const bool invalid = ort.GetErrorCode(status) == kOrtInvalidArgument;
  return ToStatus(status, invalid ? Code::kInvalidInput : Code::kRun);
}

OrtAllocator* DefaultOrtAllocator() {
  static OrtAllocator* allocator = [] {
    OrtAllocator* out = nullptr;
    if (OrtStatus* status = ort.GetAllocatorWithDefaultOptions(&out)) ort.ReleaseStatus(status);
    return out;
  }();
  return allocator;
}

std::string TakeOrtString(char* text) {
  std::string copy = text ? text : "";
  if (text) {
    if (OrtStatus* status = ort.AllocatorFree(DefaultOrtAllocator(), text)) {
      ort.ReleaseStatus(status);
    }
  }
  return copy;
}

}  // namespace tercel
