#include "ort_library.h"

#include <dlfcn.h>

#include <cstdlib>
#include <mutex>

namespace tercel {

OrtCalls ort;

namespace {

std::mutex open_mutex;
std::string open_path;     // protected by open_mutex until the first success, then constant
std::string open_version;  // the same

int MinorVersion(const std::string& version) {
  const size_t dot = version.find('.');
  return dot == std::string::npos ? 0 : std::atoi(version.c_str() + dot + 1);
}

Status Refuse(const std::string& path, const std::string& why) {
  return Status::Model("cannot use ONNX Runtime library \"" + path + "\": " + why);
}

}  // namespace

Status OpenOrtLibrary(const std::string& path) {
  std::lock_guard<std::mutex> lock(open_mutex);
  if (!open_path.empty()) {
    if (path == open_path) return {};
    return Refuse(path, "this process already runs on \"" + open_path + "\"");
  }
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
  if (slot < 390 || minor >= 30)                   \
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
