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

}  // namespace tercel
