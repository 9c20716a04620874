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
// Measured by bench/swaps.ts on two processors, p99 of runs of 3.5 ms of the quiet one, while 400 MB
// load: nice 10 1.75, 1.76, 1.52; nice 19 1.60, 1.80; nice 10 with this slice 1.69;
// both 1.14, 1.33, 1.08; as SCHED_IDLE 1.89, 1.95, as the system takes its processor for an idle one.
// While 1 GB loads: both 1.19 to 1.41. Kept on the processor where it began: 1.10 to 1.65, on the JS
// thread's 1.18 to 1.62, on another 1.63 to 1.78. Slices of 8 and 30 ms for lanes and of 3 and 12 ms
// for this one: 1.13 to 1.50.
//
// What is left is who wakes on this one's processor while the other sleeps, and waits for the next
// tick.
void Throttle();

}  // namespace tercel
