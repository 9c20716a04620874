// A small test harness: no library needs to be installed to test the core.
//
//   TEST(Name) { CHECK(condition); CHECK_EQ(a, b); }
//   TIMING_TEST(Name) { ... }  // judges time: to be run alone
#pragma once

#include <cstdio>
#include <functional>
#include <sstream>
#include <string>
#include <vector>

namespace tercel::test {

struct Case {
  const char* name;
  bool judges_time;
  void (*run)();
};

inline std::vector<Case>& Cases() {
  static std::vector<Case> cases;
  return cases;
}

inline int& Failures() {
  static int failures = 0;
  return failures;
}

struct Register {
  Register(const char* name, bool judges_time, void (*run)()) {
    Cases().push_back({name, judges_time, run});
  }
};

inline void Fail(const char* file, int line, const std::string& what) {
  ++Failures();
  std::printf("    %s:%d: %s\n", file, line, what.c_str());
}

template <typename A, typename B>
void CheckEq(const char* file, int line, const char* text, const A& a, const B& b) {
  if (a == b) return;
  std::ostringstream message;
  message << text << ": got " << a << ", expected " << b;
  Fail(file, line, message.str());
}

}  // namespace tercel::test

#define TERCEL_TEST(name, judges_time)                                             \
  static void name();                                                              \
  static const ::tercel::test::Register register_##name(#name, judges_time, name); \
  static void name()
#define TEST(name) TERCEL_TEST(name, false)
#define TIMING_TEST(name) TERCEL_TEST(name, true)
#define CHECK(condition) \
  if (!(condition)) ::tercel::test::Fail(__FILE__, __LINE__, #condition)
#define CHECK_EQ(a, b) ::tercel::test::CheckEq(__FILE__, __LINE__, #a, a, b)
#define CHECK_OK(status)                                                                      \
  do {                                                                                        \
    const ::tercel::Status check_status = (status);                                           \
    if (!check_status.ok()) ::tercel::test::Fail(__FILE__, __LINE__, check_status.message()); \
  } while (false)
