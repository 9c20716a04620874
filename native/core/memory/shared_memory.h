// System shared memory: objects that another process made with shm_open(), mapped as leases, so that
// runs use them in place like any memory of ours.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

#include "base/status.h"
#include "memory/arena.h"

namespace tercel {

// Maps `bytes` of the object from `offset` on, to read and write. The mapping ends with the last
// reference to the lease. InvalidInput for a key that can be no object's, an object that cannot be
// opened, and a range beyond its end. The object may have any owner who lets us: the operator decides
// whether clients may name one at all.
[[nodiscard]] Status MapSharedMemory(const std::string& key, uint64_t offset, uint64_t bytes,
                                     Ref<Lease>* out);

}  // namespace tercel
