#include "sched/padding.h"

#include <cstring>

namespace tercel {

namespace {

// Walks over the rows (innermost dimension) of the corner `dims` in a tensor of `padded`, calling
// visit(offset in the padded tensor, offset in the corner), both in elements.
template <typename Visit>
void ForEachRow(const int64_t* dims, const int64_t* padded, size_t rank, const Visit& visit) {
  for (size_t i = 0; i < rank; ++i) {
    if (dims[i] == 0) return;
  }
  std::vector<int64_t> at(rank, 0);
  const int64_t row = dims[rank - 1];
  for (int64_t in_corner = 0;; in_corner += row) {
    int64_t offset = 0;
    for (size_t i = 0; i < rank; ++i) offset = offset * padded[i] + at[i];
    visit(static_cast<size_t>(offset), static_cast<size_t>(in_corner));
    size_t axis = rank - 1;
    while (axis > 0 && ++at[axis - 1] == dims[axis - 1]) at[--axis] = 0;
    if (axis == 0) return;
  }
}

}  // namespace

int64_t PadRule::SizeFor(int64_t size) const {
  for (const int64_t candidate : sizes) {
    if (candidate >= size) return candidate;
  }
  if (sizes.empty() && multiple > 0) return (size + multiple - 1) / multiple * multiple;
  return size;
}

void Pad(const void* from, const int64_t* dims, const std::vector<int64_t>& padded,
         size_t element_bytes, const void* fill, void* to) {
  auto* target = static_cast<uint8_t*>(to);
  size_t elements = 1;
  for (const int64_t dim : padded) elements *= static_cast<size_t>(dim);
  for (size_t i = 0; i < elements; ++i) std::memcpy(target + i * element_bytes, fill, element_bytes);
  const size_t row_bytes = static_cast<size_t>(dims[padded.size() - 1]) * element_bytes;
  ForEachRow(dims, padded.data(), padded.size(), [&](size_t offset, size_t in_corner) {
    std::memcpy(target + offset * element_bytes,
                static_cast<const uint8_t*>(from) + in_corner * element_bytes, row_bytes);
  });
}

size_t Crop(const void* from, const int64_t* padded, const std::vector<int64_t>& dims,
            size_t element_bytes, void* to) {
  size_t elements = 1;
  for (const int64_t dim : dims) elements *= static_cast<size_t>(dim);
  const size_t row_bytes = static_cast<size_t>(dims.back()) * element_bytes;
  ForEachRow(dims.data(), padded, dims.size(), [&](size_t offset, size_t in_corner) {
    std::memcpy(static_cast<uint8_t*>(to) + in_corner * element_bytes,
                static_cast<const uint8_t*>(from) + offset * element_bytes, row_bytes);
  });
  return elements * element_bytes;
}

}  // namespace tercel
