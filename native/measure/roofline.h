// What the machine can do at best: bytes a second from memory, floating-point operations a second.
// (S. Williams et al., "Roofline: an insightful visual performance model", 2009.)
#pragma once

namespace tercel {

struct Roof {
  double bytes_per_second = 0;  // reading and writing, of arrays larger than the caches
  double flops_per_second = 0;  // float32, a multiply-add counts as two
};

// Takes some 300 ms on so many threads.
Roof MeasureRoof(int threads);

}  // namespace tercel
