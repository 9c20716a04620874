#include "gpu/tensorrt.h"

#include <dlfcn.h>

#include <initializer_list>

namespace tercel {

int TensorRtVersion() {
  static const int version = [] {
    for (const char* name : {"libnvinfer.so.11", "libnvinfer.so.10", "libnvinfer.so.8"}) {
      void* library = dlopen(name, RTLD_LAZY | RTLD_LOCAL);
      if (!library) continue;
      auto* get = reinterpret_cast<int (*)()>(dlsym(library, "getInferLibVersion"));
      if (get) return get();
      dlclose(library);
    }
    return 0;
  }();
  return version;
}

}  // namespace tercel
