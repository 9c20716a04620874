#include "base/processor_share.h"

#if defined(__linux__)
#include <sched.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace tercel {

#if defined(__linux__)

void SetSlice(int64_t ns) {
  // struct sched_attr of <linux/sched/types.h>, as of its first version. The C library has none.
  struct {
    uint32_t size;
    uint32_t policy;
    uint64_t flags;
    int32_t nice;
    uint32_t priority;
    uint64_t runtime;
    uint64_t deadline;
    uint64_t period;
  } attributes = {};
  static_assert(sizeof(attributes) == 48);
  if (syscall(SYS_sched_getattr, 0, &attributes, sizeof(attributes), 0) != 0) return;
  if (attributes.policy != SCHED_OTHER) return;  // somebody knows better
  attributes.runtime = static_cast<uint64_t>(ns);
  (void)syscall(SYS_sched_setattr, 0, &attributes, 0);
}

#else

void SetSlice(int64_t) {}

#endif

}  // namespace tercel
