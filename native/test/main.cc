// tercel_core_tests LIBRARY TINY_MODEL SLOW_MODEL GATHER_MODEL [NAME ...]: all tests, or those named;
// `timing` names those that judge time, `others` the others.
#include <cstring>

#include "check.h"
#include "fixture.h"

namespace tercel::test {
std::string library_path;
std::string tiny_model;
std::string slow_model;
std::string gather_model;
}  // namespace tercel::test

int main(int argc, char** argv) {
  using namespace tercel::test;
  if (argc < 5) {
    std::fprintf(stderr,
                 "usage: tercel_core_tests LIBRARY TINY_MODEL SLOW_MODEL GATHER_MODEL [NAME ...]\n");
    return 2;
  }
  library_path = argv[1];
  tiny_model = argv[2];
  slow_model = argv[3];
  gather_model = argv[4];
  int passed = 0, failed = 0;
  for (const Case& test : Cases()) {
    bool wanted = argc == 5;
    const char* const group = test.judges_time ? "timing" : "others";
    for (int i = 5; i < argc; ++i) {
      wanted |= std::strcmp(argv[i], test.name) == 0 || std::strcmp(argv[i], group) == 0;
    }
    if (!wanted) continue;
    const int before = Failures();
    test.run();
    const bool ok = Failures() == before;
    ++(ok ? passed : failed);
    std::printf("%s %s\n", ok ? "  ok  " : "  FAIL", test.name);
    std::fflush(stdout);
  }
  std::printf("%d passed, %d failed\n", passed, failed);
  return failed == 0 && passed > 0 ? 0 : 1;
}
