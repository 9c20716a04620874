// TensorRT, as far as it is asked before its provider is loaded.
#pragma once

namespace tercel {

// Its version, 10000 * major + 100 * minor + patch from 10 on, 1000, 100 and 1 before; 0 where the
// loader finds no libnvinfer. The library, which the provider opens as well, stays open.
int TensorRtVersion();

}  // namespace tercel
