// What Tercel does on a GPU, without Node: whether models give the expected outputs there, what a run
// costs in each way, how much of the copies is hidden, and whether memory comes back.
//
//   tercel_gpu LIBRARY BUNDLE [--provider cuda|tensorrt] [--device N] [--seconds S] [--cycles N]
//              [--stand-in LIBCUDART] [--only CASE] [SECTION ...]
//
// LIBRARY is libonnxruntime with the provider's files beside it; BUNDLE what bench/gpu/bundle.ts made.
// Sections: outputs, roof, copies, runs, cycles; all by default. Each figure is a line of JSON on
// stdout, what it means one on stderr; the exit status is 1 where a bar was missed. With --stand-in the
// CPU's sessions take the GPU's place and the library a CUDA runtime's, to see that the program itself
// works; with --only the outputs are those of cases that have CASE in their names.
#include <algorithm>
#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <functional>
#include <thread>

#include "base/clock.h"
#include "binding.h"
#include "gpu/device.h"
#include "gpu/device_runner.h"
#include "gpu/nvml.h"
#include "gpu/tensorrt.h"
#include "gpu_cases.h"
#include "model.h"
#include "runtime.h"

namespace {

using namespace tercel;
using namespace tercel::proof;
namespace fs = std::filesystem;

struct Settings {
  std::string bundle;
  std::string provider = "cuda";
  int device = 0;
  double seconds = 3;
  int cycles = 200;
  std::string stand_in;
  std::string only;  // part of a case's name
  std::vector<std::string> sections;
};

Settings settings;
Runtime* runtime = nullptr;
Device* device = nullptr;
bool missed = false;
double roof_tflops = 0;  // measured by the section of that name

void Must(const Status& status, const std::string& what) {
  if (!status.ok()) Stop(what + ": " + status.message());
}

// One figure. `fields` is JSON without its braces.
void Say(const std::string& section, const std::string& fields, const std::string& text) {
  std::printf("{\"section\":\"%s\",\"provider\":\"%s\",%s}\n", section.c_str(),
              settings.provider.c_str(), fields.c_str());
  std::fflush(stdout);
  std::fprintf(stderr, "%-8s %s\n", section.c_str(), text.c_str());
}

void Bar(const std::string& section, const std::string& what, double value, double bar, bool at_least) {
  const bool holds = at_least ? value >= bar : value <= bar;
  missed |= !holds;
  Say(section,
      Format("\"bar\":\"%s\",\"value\":%.4f,\"limit\":%.4f,\"holds\":%s", what.c_str(), value, bar,
             holds ? "true" : "false"),
      Format("%s: %.3f (%s %.3f): %s", what.c_str(), value, at_least ? "at least" : "at most", bar,
             holds ? "holds" : "MISSED"));
}

// Models.

struct Setup {
  int slots = 1;  // 0: ONNX Runtime copies by itself
  bool graphs = false;
  bool exact = false;  // no TF32
};

Status Load(const std::string& path, const Setup& setup, std::shared_ptr<Model>* out) {
  ModelOptions options;
  options.gpu.slots = setup.slots;
  if (!settings.stand_in.empty()) {
    DeviceRunnerOptions runner;
    runner.slots = setup.slots + 1;
    runner.on_stream = true;
    runner.graphs = setup.graphs;
    if (setup.slots > 0) options.gpu.stand_in = std::move(runner);
  } else {
    const std::string id = std::to_string(settings.device);
    const std::string engines = settings.bundle + "/engines";
    if (settings.provider == "tensorrt") {
      fs::create_directories(engines);
      options.providers.push_back({"tensorrt",
                                   {{"device_id", id},
                                    {"trt_engine_cache_enable", "1"},
                                    {"trt_engine_cache_path", engines},
                                    {"trt_timing_cache_enable", "1"},
                                    {"trt_timing_cache_path", engines}}});
    }
    StringPairs cuda = {{"device_id", id}};
    if (setup.graphs) cuda.emplace_back("enable_cuda_graph", "1");
    if (setup.exact) cuda.emplace_back("use_tf32", "0");
    options.providers.push_back({"cuda", std::move(cuda)});
  }
  ModelSource source;
  source.path = path;
  return Model::Load(runtime, source, options, nullptr, out);
}

std::vector<Binding::ValueRequest> Requests(const std::vector<Value>& values,
                                            const std::vector<ValueInfo>& infos,
                                            bool on_device = false) {
  std::vector<Binding::ValueRequest> requests(infos.size());
  for (const Value& value : values) {
    for (size_t i = 0; i < infos.size(); ++i) {
      if (infos[i].name != value.name) continue;
      requests[i].dims = value.dims;
      requests[i].on_device = on_device;
    }
  }
  return requests;
}

Status Bind(const std::shared_ptr<Model>& model, const Case& test, Ref<Binding>* out) {
  Status status = Binding::Create(model, Requests(test.inputs, model->inputs()),
                                  Requests(test.outputs, model->outputs()), out);
  if (!status.ok()) return status;
  for (const Binding::BoundValue& slot : (*out)->inputs()) {
    for (const Value& value : test.inputs) {
      if (value.name == slot.info->name) {
        std::memcpy(slot.lease->data(), value.bytes.data(), value.bytes.size());
      }
    }
  }
  return {};
}

std::string Compare(const Binding& binding, const Case& test, double relative, double absolute) {
  for (const Binding::BoundValue& slot : binding.outputs()) {
    for (const Value& value : test.outputs) {
      if (value.name != slot.info->name) continue;
      const std::string what = Difference(value, slot.lease->data(), relative, absolute);
      if (!what.empty()) return value.name + ": " + what;
    }
  }
  return "";
}

// By OrtApi::Run on memory of the heap, outputs made by ONNX Runtime: what there is without Tercel.
class PlainRun {
 public:
  PlainRun(Model* model, const Case& test) : model_(model) {
    for (const Value& value : test.inputs) {
      OrtValue* made = nullptr;
      Must(MakeTensor(runtime, value.dtype, value.dims.data(), value.dims.size(),
                      const_cast<uint8_t*>(value.bytes.data()), value.bytes.size(), &made),
           test.name);
      owned_.emplace_back(made);
      inputs_.push_back(made);
      names_.push_back(value.name.c_str());
    }
    for (const ValueInfo& info : model->outputs()) names_.push_back(info.name.c_str());
  }
  Status Run() {
    const size_t inputs = inputs_.size();
    const size_t outputs = names_.size() - inputs;
    std::vector<OrtValue*> results(outputs, nullptr);
    Status status = ToStatus(ort.Run(model_->session(), nullptr, names_.data(), inputs_.data(), inputs,
                                     names_.data() + inputs, outputs, results.data()),
                             Code::kRun);
    results_.clear();
    for (OrtValue* value : results) results_.emplace_back(value);
    return status;
  }

 private:
  Model* model_;
  std::vector<OrtPtr<OrtValue>> owned_, results_;
  std::vector<const OrtValue*> inputs_;
  std::vector<const char*> names_;
};

// Timing.

struct Timing {
  double p50_us = 0;
  double p99_us = 0;
  double per_second = 0;
};

// `make` gives each thread what it runs; all begin together, after a few runs each.
Timing Time(int threads, const std::function<std::function<Status()>()>& make) {
  std::vector<std::vector<double>> times(threads);
  std::vector<std::thread> all;
  std::atomic<int> warm{0};
  std::atomic<int64_t> begin{0};
  std::atomic<int64_t> end{0};
  std::atomic<bool> failed{false};
  const auto length = static_cast<int64_t>(settings.seconds * 1e9);
  for (int t = 0; t < threads; ++t) {
    all.emplace_back([&, t] {
      const std::function<Status()> run = make();
      for (int i = 0; i < 20; ++i) failed = failed || !run().ok();
      ++warm;
      while (warm < threads) std::this_thread::yield();
      int64_t none = 0;
      begin.compare_exchange_strong(none, NowNs());
      while (!failed) {
        const int64_t start = NowNs();
        if (start > begin + length) break;
        const Status status = run();
        if (!status.ok()) {
          std::fprintf(stderr, "%s\n", status.message().c_str());
          failed = true;
        }
        times[t].push_back(static_cast<double>(NowNs() - start) / 1e3);
      }
      const int64_t now = NowNs();
      for (int64_t seen = end; seen < now && !end.compare_exchange_weak(seen, now);) {
      }
    });
  }
  for (std::thread& thread : all) thread.join();
  if (failed) Stop("a run failed");
  std::vector<double> together;
  for (const auto& one : times) together.insert(together.end(), one.begin(), one.end());
  std::sort(together.begin(), together.end());
  Timing timing;
  if (together.empty()) return timing;
  timing.p50_us = together[together.size() / 2];
  timing.p99_us = together[std::min(together.size() - 1, together.size() * 99 / 100)];
  timing.per_second = static_cast<double>(together.size()) * 1e9 / static_cast<double>(end - begin);
  return timing;
}

std::string Fields(const Timing& timing) {
  return Format("\"p50Us\":%.1f,\"p99Us\":%.1f,\"perSecond\":%.2f", timing.p50_us, timing.p99_us,
                timing.per_second);
}

// Sections.

void Outputs() {
  int right = 0, wrong = 0, refused = 0;
  std::vector<fs::path> folders;
  for (const auto& entry : fs::directory_iterator(settings.bundle + "/cases")) folders.push_back(entry);
  std::sort(folders.begin(), folders.end());
  for (const fs::path& folder : folders) {
    const Case test = ReadCase(folder);
    if (test.name.find(settings.only) == std::string::npos) continue;
    std::string what;
    for (const Setup& setup : {Setup{0, false, true}, Setup{2, false, true}, Setup{2, true, true}}) {
      // Said first: ONNX Runtime ends the process where something is wrong enough.
      std::fprintf(stderr, "%-8s %s, slots %d, graphs %d\n", "outputs", test.name.c_str(), setup.slots,
                   setup.graphs);
      std::shared_ptr<Model> model;
      Ref<Binding> binding;
      Status status = Load(test.model, setup, &model);
      // Not every graph can be captured: that is a plain error.
      if (!status.ok() && setup.graphs) {
        ++refused;
        continue;
      }
      if (status.ok()) status = Bind(model, test, &binding);
      for (int i = 0; i < 3 && status.ok() && what.empty(); ++i) {
        status = binding->RunSync();
        if (status.ok()) what = Compare(*binding, test, 1e-3, 1e-5);
      }
      if (!status.ok()) what = status.message();
      if (!what.empty()) {
        what = Format("slots %d, graphs %d: ", setup.slots, setup.graphs) + what;
        break;
      }
    }
    ++(what.empty() ? right : wrong);
    if (!what.empty()) Say("outputs", "\"wrong\":\"" + test.name + "\"", test.name + ": " + what);
  }
  if (right + wrong == 0) Stop("no case has \"" + settings.only + "\" in its name");
  Say("outputs", Format("\"right\":%d,\"wrong\":%d,\"notCaptured\":%d", right, wrong, refused),
      Format("%d cases right, %d wrong; %d not captured as graphs", right, wrong, refused));
  Bar("outputs", "wrong cases", wrong, 0, false);
}

// What the GPU does at best, by models of one node whose values stay there.
void Roof() {
  for (const char* name : {"matmul", "add"}) {
    std::shared_ptr<Model> model;
    const Case test = ReadCase(settings.bundle + "/roof/" + name);
    Must(Load(test.model, {1, false, false}, &model), name);
    Ref<Binding> binding;
    Must(Binding::Create(model, Requests(test.inputs, model->inputs(), true),
                         Requests(test.outputs, model->outputs(), true), &binding),
         name);
    const Timing timing = Time(1, [&] { return [&] { return binding->RunSync(); }; });
    double bytes = 0;
    for (const auto* values : {&test.inputs, &test.outputs}) {
      for (const Value& value : *values) bytes += static_cast<double>(value.bytes.size());
    }
    const double side = static_cast<double>(test.inputs[0].dims.back());
    const bool multiplies = std::string(name) == "matmul";
    const double figure =
        timing.per_second * (multiplies ? 2 * side * side * side / 1e12 : bytes / 1e9);
    if (multiplies) roof_tflops = figure;
    Say("roof", Format("\"%s\":%.2f", multiplies ? "tflops" : "gbPerSecond", figure),
        Format("%s: %.1f %s", name, figure,
               multiplies ? "TFLOP/s (TF32 where the GPU has it)" : "GB/s"));
  }
}

double RawBandwidth(bool in, size_t bytes) {
  const CudaRuntime* cuda = device->cuda();
  Ref<Lease> host = Lease::Take(runtime->arena(), bytes);
  if (!host) Stop("copies: no memory on the host");
  Ref<DeviceLease> there;
  Must(device->Allocate(bytes, &there), "copies");
  CudaStream stream = nullptr;
  CudaEvent start = nullptr, end = nullptr;
  (void)cuda->set_device(device->id());
  (void)cuda->stream_create(&stream, kCudaStreamNonBlocking);
  (void)cuda->event_create(&start, 0);
  (void)cuda->event_create(&end, 0);
  std::vector<double> rates;
  for (int i = 0; i < 21; ++i) {
    (void)cuda->event_record(start, stream);
    (void)(in ? cuda->copy(there->data(), host->data(), bytes, kCudaCopyToDevice, stream)
              : cuda->copy(host->data(), there->data(), bytes, kCudaCopyToHost, stream));
    (void)cuda->event_record(end, stream);
    (void)cuda->event_synchronize(end);
    float ms = 0;
    (void)cuda->event_elapsed(&ms, start, end);
    if (ms > 0) rates.push_back(static_cast<double>(bytes) / 1e6 / ms);
  }
  (void)cuda->event_destroy(start);
  (void)cuda->event_destroy(end);
  (void)cuda->stream_destroy(stream);
  std::sort(rates.begin(), rates.end());
  return rates.empty() ? 0 : rates[rates.size() / 2];
}

// A model that copies much: its inputs and outputs are those of `add`.
void Copies() {
  const Case test = ReadCase(settings.bundle + "/roof/add");
  const size_t bytes = test.inputs[0].bytes.size();
  const double raw_in = RawBandwidth(true, bytes), raw_out = RawBandwidth(false, bytes);
  std::shared_ptr<Model> model;
  Must(Load(test.model, {1, false, false}, &model), "add");
  Ref<Binding> binding;
  Must(Bind(model, test, &binding), "add");
  const DeviceStats before = device->Stats();
  for (int i = 0; i < 30; ++i) Must(binding->RunSync(), "add");
  const DeviceStats after = device->Stats();
  auto rate = [](uint64_t moved, int64_t ns) { return static_cast<double>(moved) / double(ns); };
  const double in = rate(after.bytes_in - before.bytes_in, after.copy_in_ns - before.copy_in_ns);
  const double out = rate(after.bytes_out - before.bytes_out, after.copy_out_ns - before.copy_out_ns);
  Say("copies",
      Format("\"rawInGb\":%.2f,\"rawOutGb\":%.2f,\"inGb\":%.2f,\"outGb\":%.2f,\"bytes\":%zu", raw_in,
             raw_out, in, out, bytes),
      Format("%zu MB: in %.1f of %.1f GB/s, out %.1f of %.1f GB/s", bytes >> 20, in, raw_in, out,
             raw_out));
  Bar("copies", "pinned copies in, of the bandwidth", in / raw_in, 0.9, true);
  Bar("copies", "pinned copies out, of the bandwidth", out / raw_out, 0.9, true);
}

void Runs() {
  for (const char* name : {"resnet", "minilm"}) {
    for (const int rows : {1, 32}) {
      const Case test = ReadCase(settings.bundle + Format("/bench/%s-%d", name, rows));
      const std::string title = Format("%s, batch %d", name, rows);
      auto say = [&](const char* mode, const Timing& timing, const std::string& more = "") {
        const double tflops = test.flops * timing.per_second / 1e12;
        Say("runs",
            Format("\"model\":\"%s\",\"rows\":%d,\"mode\":\"%s\",\"tflops\":%.3f,", name, rows, mode,
                   tflops) +
                Fields(timing) + more,
            title + ", " + mode + ": " +
                Format("p50 %.0f us, p99 %.0f us, %.0f rows/s, %.2f TFLOP/s%s", timing.p50_us,
                       timing.p99_us, timing.per_second * rows, tflops,
                       roof_tflops > 0 ? Format(" (%.2f of the roof)", tflops / roof_tflops).c_str()
                                       : ""));
      };
      // Each thread has a binding of its own, and checks at the end what it has.
      auto bound = [&](const Setup& setup, int threads, std::vector<Ref<Binding>>* made) {
        auto model = std::make_shared<std::shared_ptr<Model>>();
        Must(Load(test.model, setup, model.get()), title);
        made->resize(threads);
        for (Ref<Binding>& binding : *made) Must(Bind(*model, test, &binding), title);
        std::atomic<int> next{0};
        const Timing timing = Time(threads, [&] {
          Binding* binding = (*made)[next++].get();
          return [binding] { return binding->RunSync(); };
        });
        for (const Ref<Binding>& binding : *made) {
          // TF32 has 10 bits of fraction.
          const std::string what = Compare(*binding, test, 3e-2, 3e-2);
          if (!what.empty()) Stop(title + ": " + what);
        }
        return timing;
      };
      {
        std::shared_ptr<Model> model;
        Must(Load(test.model, {0, false, false}, &model), title);
        PlainRun plain(model.get(), test);
        say("plain", Time(1, [&] { return [&] { return plain.Run(); }; }));
      }
      std::vector<Ref<Binding>> bindings;
      const DeviceStats before = device->Stats();
      const Timing alone = bound({1, false, false}, 1, &bindings);
      const DeviceStats after = device->Stats();
      const double copy_us = static_cast<double>(after.copy_in_ns - before.copy_in_ns +
                                                 after.copy_out_ns - before.copy_out_ns) /
                             1e3 / static_cast<double>(std::max<uint64_t>(1, after.runs - before.runs));
      say("bound, pinned", alone, Format(",\"copyUs\":%.2f", copy_us));
      const Timing beside = bound({3, false, false}, 3, &bindings);
      say("bound, three slots", beside);
      const Timing graph = bound({1, true, false}, 1, &bindings);
      say("graphs", graph);
      const Timing graphs = bound({3, true, false}, 3, &bindings);
      say("graphs, three slots", graphs);
      // Where copies are next to nothing there is nothing to hide.
      if (copy_us > 20) {
        auto hidden = [&](const Timing& one, const Timing& three) {
          return (1e6 / one.per_second - 1e6 / three.per_second) / copy_us;
        };
        Bar("runs", title + ": copy time hidden", hidden(alone, beside), 0.8, true);
        Bar("runs", title + ", graphs: copy time hidden", hidden(graph, graphs), 0.8, true);
      }
    }
  }
}

size_t UsedBytes() {
  runtime->ReturnMemory();
  size_t free = 0, total = 0;
  Must(device->MemoryInfo(&free, &total), "memory");
  return total - free;
}

void Cycles() {
  const Case test = ReadCase(settings.bundle + "/bench/resnet-1");
  auto once = [&] {
    std::shared_ptr<Model> model;
    Ref<Binding> binding;
    Must(Load(test.model, {2, false, false}, &model), "cycles");
    Must(Bind(model, test, &binding), "cycles");
    for (int i = 0; i < 3; ++i) Must(binding->RunSync(), "cycles");
  };
  // What the libraries take once and keep.
  for (int i = 0; i < 5; ++i) once();
  const size_t before = UsedBytes();
  const int64_t start = NowNs();
  for (int i = 0; i < settings.cycles; ++i) once();
  const size_t after = UsedBytes();
  const double grown = (static_cast<double>(after) - static_cast<double>(before)) / 1e6;
  Say("cycles",
      Format("\"cycles\":%d,\"seconds\":%.1f,\"beforeMb\":%.1f,\"afterMb\":%.1f", settings.cycles,
             static_cast<double>(NowNs() - start) / 1e9, static_cast<double>(before) / 1e6,
             static_cast<double>(after) / 1e6),
      Format("%d loads and unloads: %.1f MB of the GPU in use before, %.1f after", settings.cycles,
             static_cast<double>(before) / 1e6, static_cast<double>(after) / 1e6));
  Bar("cycles", "MB of the GPU's memory that did not come back", grown, 16, false);
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 3) {
    Stop(
        "usage: tercel_gpu LIBRARY BUNDLE [--provider cuda|tensorrt] [--device N] [--seconds S] "
        "[--cycles N] [--stand-in LIBCUDART] [--only CASE] [outputs] [roof] [copies] [runs] [cycles]");
  }
  settings.bundle = argv[2];
  for (int i = 3; i < argc; ++i) {
    const std::string word = argv[i];
    auto next = [&]() -> std::string {
      if (++i >= argc) Stop(word + " needs a value");
      return argv[i];
    };
    if (word == "--provider") {
      settings.provider = next();
    } else if (word == "--device") {
      settings.device = std::atoi(next().c_str());
    } else if (word == "--seconds") {
      settings.seconds = std::atof(next().c_str());
    } else if (word == "--cycles") {
      settings.cycles = std::atoi(next().c_str());
    } else if (word == "--stand-in") {
      settings.stand_in = next();
    } else if (word == "--only") {
      settings.only = next();
    } else {
      settings.sections.push_back(word);
    }
  }
  RuntimeOptions options;
  options.library = argv[1];
  options.arena.pages.pin = true;
  options.cuda_library = settings.stand_in;
  Must(Runtime::Get(options, &runtime), "start");
  Must(Device::Get(settings.device, &device), "start");
  GpuReading reading;
  (void)ReadGpu(device->pci_bus_id(), &reading).ok();
  Say("machine",
      Format("\"gpu\":\"%s\",\"driver\":\"%s\",\"capability\":\"%s\",\"onnxRuntime\":\"%s\","
             "\"cudaRuntime\":%d,\"tensorRt\":%d",
             reading.name.c_str(), reading.driver.c_str(), device->capability().c_str(),
             OrtLibraryVersion().c_str(), device->cuda()->version, TensorRtVersion()),
      reading.name + ", driver " + reading.driver + ", ONNX Runtime " + OrtLibraryVersion());
  const std::pair<const char*, void (*)()> known[] = {
      {"outputs", Outputs}, {"roof", Roof}, {"copies", Copies}, {"runs", Runs}, {"cycles", Cycles}};
  for (const std::string& section : settings.sections) {
    const bool exists = std::any_of(std::begin(known), std::end(known),
                                    [&](const auto& one) { return section == one.first; });
    if (!exists) Stop("there is no section \"" + section + "\"");
  }
  for (const auto& [name, run] : known) {
    const auto& wanted = settings.sections;
    if (wanted.empty() || std::find(wanted.begin(), wanted.end(), name) != wanted.end()) run();
  }
  return missed ? 1 : 0;
}
