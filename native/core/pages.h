// Where slabs come from: anonymous memory of the system, with huge pages and locking on request.
#pragma once

#include <cstddef>

namespace tercel {

struct PageOptions {
  bool huge = true;   // ask for transparent huge pages; ignored where the system has none
  bool lock = false;  // keep resident (mlock)
};

// Maps `bytes` of zeroed memory aligned to `alignment`, a power of two. Null when the system refuses,
// or when `lock` is asked for and the limit on locked memory (ulimit -l) does not allow it.
// REQUIRES: bytes is a multiple of alignment.
void* MapPages(size_t bytes, size_t alignment, const PageOptions& options);
void UnmapPages(void* data, size_t bytes);

// Whether the system hands out huge pages on request.
bool HugePagesAvailable();

}  // namespace tercel
