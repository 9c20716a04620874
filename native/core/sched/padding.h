// Padding: tensors of different sizes made equal, so that they can share a batch.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

namespace tercel {

// A named dynamic dimension is padded up to the smallest of `sizes` that holds it, or to a multiple.
struct PadRule {
  std::string symbol;
  std::vector<int64_t> sizes;  // ascending; past the last nothing is padded
  int64_t multiple = 0;        // where there are no sizes

  int64_t SizeFor(int64_t size) const;
};

// Copies a tensor of `dims` into the corner of one of `padded` (the same rank, no dimension smaller)
// and fills the rest with the element at `fill`. Both row-major, without gaps.
void Pad(const void* from, const int64_t* dims, const std::vector<int64_t>& padded,
         size_t element_bytes, const void* fill, void* to);
// The reverse: copies the corner of `dims` out of a tensor of `padded`; the bytes copied.
size_t Crop(const void* from, const int64_t* padded, const std::vector<int64_t>& dims,
            size_t element_bytes, void* to);

}  // namespace tercel
