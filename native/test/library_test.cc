#include "check.h"
#include "fixture.h"
#include "ort/ort_library.h"

using namespace tercel;

TEST(LibraryIsOpenedOnce) {
  test::TheRuntime();
  CHECK_OK(OpenOrtLibrary(test::library_path));
  CHECK_EQ(OrtLibraryPath(), test::library_path);
  CHECK(OrtLibraryVersion().rfind("1.", 0) == 0);
  const Status other = OpenOrtLibrary("/nope/libonnxruntime.so");
  CHECK(other.code() == Code::kModel);
  CHECK(other.message().find("already runs on") != std::string::npos);
}

TEST(EveryCallIsThere) {
  test::TheRuntime();
#define TERCEL_CHECK(slot, name, result, arguments) CHECK(ort.name != nullptr);
  TERCEL_ORT_CALLS(TERCEL_CHECK)
#undef TERCEL_CHECK
}

TEST(ProvidersAreListed) {
  test::TheRuntime();
  std::vector<std::string> names;
  CHECK_OK(AvailableProviders(&names));
  bool cpu = false;
  for (const std::string& name : names) cpu |= name == "CPUExecutionProvider";
  CHECK(cpu);
}
