// The monotonic clock, in nanoseconds.
#pragma once

#include <time.h>

#include <cstdint>

namespace tercel {

inline int64_t NowNs() {
  timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return int64_t{now.tv_sec} * 1'000'000'000 + now.tv_nsec;
}

// The same to a few milliseconds, at a quarter of the cost where the system has such a clock.
inline int64_t CoarseNowNs() {
#ifdef CLOCK_MONOTONIC_COARSE
  timespec now;
  clock_gettime(CLOCK_MONOTONIC_COARSE, &now);
  return int64_t{now.tv_sec} * 1'000'000'000 + now.tv_nsec;
#else
  return NowNs();
#endif
}

// Milliseconds since 1970 of a moment by the monotonic clock.
inline double WallMs(int64_t monotonic_ns) {
  timespec now;
  clock_gettime(CLOCK_REALTIME, &now);
  const double now_ms = static_cast<double>(now.tv_sec) * 1e3 + static_cast<double>(now.tv_nsec) / 1e6;
  return now_ms - static_cast<double>(NowNs() - monotonic_ns) / 1e6;
}

}  // namespace tercel
