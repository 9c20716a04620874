// BareLoop: the bare ONNX Runtime C call in a loop, with nothing of Tercel around it but the library
// being opened. What everything else is compared with.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/status.h"
#include "ort/ort_library.h"
#include "ort/session_options.h"
#include "ort/tensor.h"

namespace tercel {

class BareLoop {
 public:
  struct Input {
    std::string name;
    DType dtype;
    std::vector<int64_t> dims;
    std::vector<uint8_t> bytes;
  };
  struct Result {
    uint64_t runs = 0;
    int64_t elapsed_ns = 0;
    int64_t cpu_ns = 0;  // of the process, meanwhile
  };

  // A session of its own over the file, with the options' threads, graph level and providers, and ONNX
  // Runtime's own arena; inputs and outputs fixed in a binding for each of `loops` threads.
  static Status Make(OrtEnv* env, const std::string& path, const SessionOptions& options,
                     const std::vector<Input>& inputs, int loops, BareLoop* out);

  // Each thread runs until `duration_ns` has passed, and once at least; with one loop on the calling
  // thread.
  Status Run(int64_t duration_ns, Result* result);

 private:
  struct Loop {
    std::vector<OrtPtr<OrtValue>> values;  // what is bound
    OrtPtr<OrtIoBinding> binding;
  };
  Status MakeBinding(const std::vector<Input>& inputs, Loop* loop);
  Status RunLoop(const Loop& loop, int64_t until_ns, uint64_t* runs);

  OrtPtr<OrtSession> session_;
  OrtPtr<OrtMemoryInfo> memory_;
  std::vector<std::string> input_names_;
  std::vector<std::string> output_names_;
  std::vector<std::vector<uint8_t>> data_;  // the inputs', aligned
  std::vector<Loop> loops_;
};

}  // namespace tercel
