// What needs the CUDA runtime, with a fake of it that counts who calls (fixtures/fake_cudart.cc).
#include <cstdlib>
#include <cstring>
#include <thread>
#include <vector>

#include "check.h"
#include "fixture.h"
#include "gpu/cuda_runtime.h"
#include "memory/arena.h"

using namespace tercel;
using tercel::test::FakeCuda;
using tercel::test::OpenFakeCuda;

namespace {

ArenaOptions Pinned() {
  ArenaOptions options;
  options.pages.pin = true;
  return options;
}

}  // namespace

TEST(TheCudaRuntimeIsOpenedOnceOrSaysWhyNot) {
  const CudaRuntime* cuda = nullptr;
  auto refused = [&](const char* library, const char* reason) {
    const Status status = OpenCudaRuntime(library, &cuda);
    CHECK(status.code() == Code::kModel);
    CHECK(status.message().find(reason) != std::string::npos);
    CHECK(cuda == nullptr && TheCudaRuntime() == nullptr);
  };
  if (!TheCudaRuntime()) {
    refused("/nope/libcudart.so.12", "/nope/libcudart.so.12: cannot open");
    refused("libm.so.6", "libm.so.6 has no cudaHost");
    setenv("FAKE_CUDA_DEVICES", "0", 1);
    refused(FAKE_CUDA_RUNTIME, "finds no GPU");
    setenv("FAKE_CUDA_DEVICES", "-1", 1);
    refused(FAKE_CUDA_RUNTIME, "finds no GPU: no CUDA-capable device is detected");
    unsetenv("FAKE_CUDA_DEVICES");
  }
  CHECK_OK(OpenCudaRuntime(FAKE_CUDA_RUNTIME, &cuda));
  CHECK_EQ(cuda->version, 12040);
  CHECK_EQ(cuda->devices, 1);
  const CudaRuntime* again = nullptr;
  CHECK_OK(OpenCudaRuntime("", &again));
  CHECK(again == cuda && TheCudaRuntime() == cuda);
}

TEST(SlabsArePinnedOnceAndLetGo) {
  FakeCuda* counts = OpenFakeCuda();
  {
    Arena arena(Pinned());
    std::vector<void*> all;
    for (size_t bytes : {size_t{100}, size_t{1} << 20, size_t{100} << 20}) {
      all.push_back(arena.Allocate(bytes));
      CHECK(all.back() != nullptr);
      std::memset(all.back(), 1, bytes);
    }
    const ArenaStats stats = arena.Stats();
    CHECK(stats.pinned);
    CHECK_EQ(static_cast<uint64_t>(counts->registered), stats.slabs);
    CHECK_EQ(counts->registered_bytes.load(), stats.reserved_bytes);
    // What is taken again from a slab costs no call.
    const int calls = counts->register_calls;
    for (void*& data : all) arena.Free(data);
    for (int i = 0; i < 100; ++i) arena.Free(arena.Allocate(1 << 20));
    CHECK_EQ(counts->register_calls.load(), calls);
    CHECK(arena.Trim() > 0);
    CHECK_EQ(counts->registered.load(), 0);
    CHECK(arena.Allocate(64) != nullptr);
    CHECK_EQ(counts->registered.load(), 1);
  }
  CHECK_EQ(counts->registered.load(), 0);
  CHECK_EQ(counts->strange.load(), 0);
}

TEST(AnArenaIsPinnedLaterAsFarAsThatGoes) {
  FakeCuda* counts = OpenFakeCuda();
  {
    Arena arena{ArenaOptions()};
    void* before = arena.Allocate(1 << 20);
    CHECK_EQ(counts->registered.load(), 0);
    arena.Pin();
    arena.Pin();
    CHECK_EQ(counts->registered.load(), 1);
    CHECK(arena.Stats().pinned);
    void* after = arena.Allocate(100 << 20);
    CHECK_EQ(counts->registered.load(), 2);
    // What cannot be pinned is memory all the same.
    counts->registrations_left = 0;
    void* unpinned = arena.Allocate(100 << 20);
    CHECK(unpinned != nullptr);
    counts->registrations_left = -1;
    CHECK_EQ(counts->registered.load(), 2);
    for (void* data : {before, after, unpinned}) arena.Free(data);
    arena.Trim();
    CHECK_EQ(counts->registered.load(), 0);
    CHECK(arena.Allocate(64) != nullptr);
  }
  CHECK_EQ(counts->registered.load(), 0);
  CHECK_EQ(counts->strange.load(), 0);
}

TEST(MemoryThatCannotBePinnedIsRefusedAndGivenBack) {
  FakeCuda* counts = OpenFakeCuda();
  Arena arena(Pinned());
  counts->registrations_left = 1;
  void* first = arena.Allocate(1 << 20);
  CHECK(first != nullptr);
  CHECK(arena.Allocate(100 << 20) == nullptr);
  CHECK_EQ(arena.Stats().slabs, uint64_t{1});
  CHECK_EQ(arena.Stats().reserved_bytes, uint64_t{counts->registered_bytes});
  // There is room in what was pinned before.
  void* second = arena.Allocate(1 << 20);
  CHECK(second != nullptr);
  counts->registrations_left = -1;
  void* large = arena.Allocate(100 << 20);
  CHECK(large != nullptr);
  for (void* data : {first, second, large}) arena.Free(data);
  arena.Trim();
  CHECK_EQ(counts->registered.load(), 0);
  CHECK_EQ(counts->strange.load(), 0);
}
