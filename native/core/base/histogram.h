// Where a value of a latency histogram is counted. After HdrHistogram (Gil Tene): each power of two is
// divided into 128 buckets, so that a value is known to 1/128 of itself, from 1 ns to 78 minutes.
// src/measure/load/histogram.ts is the other side of this layout.
#pragma once

#include <cstddef>
#include <cstdint>

namespace tercel {

inline constexpr int kHistogramBits = 7;
inline constexpr size_t kHistogramBuckets = size_t{36} << kHistogramBits;

// Larger values count as the largest.
inline size_t HistogramIndex(int64_t ns) {
  const auto value = static_cast<uint64_t>(ns < 0 ? 0 : ns);
  if (value < (uint64_t{1} << kHistogramBits)) return value;
  const int shift = 63 - __builtin_clzll(value) - kHistogramBits;
  const size_t index =
      (static_cast<size_t>(shift) << kHistogramBits) + static_cast<size_t>(value >> shift);
  return index < kHistogramBuckets ? index : kHistogramBuckets - 1;
}

}  // namespace tercel
