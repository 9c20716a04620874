// The floor: what the bare ONNX Runtime C call costs, with nothing of Tercel around it but the library
// being opened. bench/ compares everything with this.
//
//   tercel_floor LIBRARY MODEL THREADS [DIMENSION=VALUE ...]
//
// prints "ready", then for each line "N" on stdin runs the model N times (RunWithBinding, fixed inputs
// and outputs, one environment with ONNX Runtime's own arena) and prints the nanoseconds of one run.
// It answers until stdin closes, so that a bench can take turns with it in one run.
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <string>
#include <vector>

#include "base/clock.h"
#include "ort/ort_library.h"
#include "ort/tensor.h"

namespace {

using namespace tercel;

void Check(OrtStatus* status, const char* what) {
  const Status s = ToStatus(status, Code::kRun, what);
  if (s.ok()) return;
  std::fprintf(stderr, "%s\n", s.message().c_str());
  std::exit(1);
}

struct Bound {
  std::vector<uint8_t> memory;
  OrtValue* value = nullptr;
};

// Makes a zeroed tensor of the declared type. Input data of ones keeps ids and masks valid.
void MakeValue(OrtTypeInfo* info, const std::map<std::string, int64_t>& dimensions,
               const OrtMemoryInfo* cpu, Bound* bound) {
  const OrtTensorTypeAndShapeInfo* tensor = nullptr;
  Check(ort.CastTypeInfoToTensorInfo(info, &tensor), "type");
  int type = 0;
  size_t rank = 0;
  Check(ort.GetTensorElementType(tensor, &type), "element type");
  Check(ort.GetDimensionsCount(tensor, &rank), "rank");
  std::vector<int64_t> dims(rank);
  std::vector<const char*> names(rank);
  Check(ort.GetDimensions(tensor, dims.data(), rank), "dimensions");
  Check(ort.GetSymbolicDimensions(tensor, names.data(), rank), "symbols");
  for (size_t i = 0; i < rank; ++i) {
    if (dims[i] >= 0) continue;
    auto it = dimensions.find(names[i] ? names[i] : "");
    dims[i] = it == dimensions.end() ? 1 : it->second;
  }
  size_t bytes = 0;
  CountBytes(static_cast<DType>(type), dims.data(), rank, &bytes);
  bound->memory.resize(bytes + 64);
  auto address = (reinterpret_cast<uintptr_t>(bound->memory.data()) + 63) & ~uintptr_t{63};
  auto* data = reinterpret_cast<uint8_t*>(address);
  if (static_cast<DType>(type) == DType::kInt64) {
    for (size_t i = 0; i < bytes / 8; ++i) reinterpret_cast<int64_t*>(data)[i] = 1;
  } else if (static_cast<DType>(type) == DType::kFloat32) {
    for (size_t i = 0; i < bytes / 4; ++i) reinterpret_cast<float*>(data)[i] = 0.5f;
  }
  Check(ort.CreateTensorWithDataAsOrtValue(cpu, data, bytes, dims.data(), rank, type, &bound->value),
        "value");
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 4) {
    std::fprintf(stderr, "usage: tercel_floor LIBRARY MODEL THREADS [DIMENSION=VALUE ...]\n");
    return 2;
  }
  if (const Status s = OpenOrtLibrary(argv[1]); !s.ok()) {
    std::fprintf(stderr, "%s\n", s.message().c_str());
    return 1;
  }
  std::map<std::string, int64_t> dimensions;
  for (int i = 4; i < argc; ++i) {
    if (const char* equals = std::strchr(argv[i], '=')) {
      dimensions[std::string(argv[i], static_cast<size_t>(equals - argv[i]))] = std::atoll(equals + 1);
    }
  }
  OrtEnv* env = nullptr;
  Check(ort.CreateEnv(3, "floor", &env), "environment");
  OrtSessionOptions* options = nullptr;
  Check(ort.CreateSessionOptions(&options), "options");
  Check(ort.SetIntraOpNumThreads(options, std::atoi(argv[3])), "threads");
  Check(ort.SetInterOpNumThreads(options, 1), "threads");
  Check(ort.AddSessionConfigEntry(options, "session.intra_op.allow_spinning", "0"), "spinning");
  OrtSession* session = nullptr;
  Check(ort.CreateSession(env, argv[2], options, &session), "session");
  OrtMemoryInfo* cpu = nullptr;
  Check(ort.CreateCpuMemoryInfo(kOrtDeviceAllocator, kOrtMemDefault, &cpu), "memory");
  OrtIoBinding* binding = nullptr;
  Check(ort.CreateIoBinding(session, &binding), "binding");

  std::vector<Bound> bound;
  size_t inputs = 0, outputs = 0;
  Check(ort.SessionGetInputCount(session, &inputs), "inputs");
  Check(ort.SessionGetOutputCount(session, &outputs), "outputs");
  bound.resize(inputs + outputs);
  for (size_t i = 0; i < inputs + outputs; ++i) {
    const bool is_input = i < inputs;
    const size_t index = is_input ? i : i - inputs;
    char* name = nullptr;
    OrtTypeInfo* info = nullptr;
    OrtAllocator* allocator = DefaultOrtAllocator();
    Check(is_input ? ort.SessionGetInputName(session, index, allocator, &name)
                   : ort.SessionGetOutputName(session, index, allocator, &name),
          "name");
    Check(is_input ? ort.SessionGetInputTypeInfo(session, index, &info)
                   : ort.SessionGetOutputTypeInfo(session, index, &info),
          "type");
    MakeValue(info, dimensions, cpu, &bound[i]);
    ort.ReleaseTypeInfo(info);
    Check(is_input ? ort.BindInput(binding, name, bound[i].value)
                   : ort.BindOutput(binding, name, bound[i].value),
          "bind");
    TakeOrtString(name);
  }

  std::printf("ready\n");
  std::fflush(stdout);
  char line[64];
  while (std::fgets(line, sizeof line, stdin)) {
    const long runs = std::atol(line);
    if (runs <= 0) break;
    const int64_t start = NowNs();
    for (long i = 0; i < runs; ++i) {
      if (OrtStatus* status = ort.RunWithBinding(session, nullptr, binding)) Check(status, "run");
    }
    std::printf("%.1f\n", static_cast<double>(NowNs() - start) / static_cast<double>(runs));
    std::fflush(stdout);
  }
  for (Bound& b : bound) ort.ReleaseValue(b.value);
  ort.ReleaseIoBinding(binding);
  ort.ReleaseSession(session);
  return 0;
}
