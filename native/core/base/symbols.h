// Functions of a library that was opened at run time.
#pragma once

#include <dlfcn.h>

#include <type_traits>

namespace tercel {

class Symbols {
 public:
  explicit Symbols(void* library) : library_(library) {}
  // Sets the pointer to function `name`; null where there is none.
  template <typename Function>
  void Find(Function** function, const char* name) {
    *function = reinterpret_cast<Function*>(dlsym(library_, name));
    if (!*function && !missing_) missing_ = name;
  }
  // The first that there was none of, or null.
  const char* missing() const { return missing_; }

 private:
  void* const library_;
  const char* missing_ = nullptr;
};

}  // namespace tercel
