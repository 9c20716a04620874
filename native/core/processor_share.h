// What a thread asks of the system's scheduler. Linux; elsewhere nothing happens.
#pragma once

#include <cstdint>

namespace tercel {

// How long the thread may compute before others are looked at; 0 for the usual time. Shares stay as
// they are. The longest is 100 ms; Linux before 6.12 knows only the usual one, some 3 ms.
//
// A slice that ends in a run gives the processor to somebody else for a tick of 4 ms, however low their
// priority is: a run of 4 ms takes 8. Who wakes with a shorter slice than the one that computes goes
// first.
void SetSlice(int64_t ns);

// For work that can wait: others that want the processor get all of it but a seventieth, and at once.
// Threads that this one begins are like it.
//
// Measured by bench/swaps.ts on two processors, p99 of runs of 3.5 ms while 400 MB load, of the quiet
// one: nice 10 1.75, 1.76, 1.52; nice 19 1.60, 1.80; nice 10 with this slice 1.69;
// both 1.14, 1.33, 1.08. As SCHED_IDLE 1.89, 1.95: the system then takes its processor for an idle one.
void Throttle();

}  // namespace tercel
