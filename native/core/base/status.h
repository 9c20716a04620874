// Status: the outcome of an operation. Success is a null pointer and costs nothing.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <utility>

namespace tercel {

// What went wrong, as the public error classes name it.
enum class Code : uint8_t {
  kOk = 0,
  kInvalidInput,  // the caller's argument
  kModel,         // a model, a provider or the library cannot be loaded
  kOverload,      // a bounded queue or the arena is full
  kTimeout,       // the request's deadline passed
  kClosed,        // the model, binding or environment was closed
  kRun,           // the graph failed while running
  kAborted,       // the caller cancelled
};

class [[nodiscard]] Status {
 public:
  Status() = default;
  Status(Code code, std::string message) : rep_(new Rep{code, std::move(message)}) {}
  Status(Status&&) = default;
  Status& operator=(Status&&) = default;
  Status(const Status& other) : rep_(other.rep_ ? new Rep(*other.rep_) : nullptr) {}
  Status& operator=(const Status& other) {
    rep_.reset(other.rep_ ? new Rep(*other.rep_) : nullptr);
    return *this;
  }

  static Status InvalidInput(std::string message) { return {Code::kInvalidInput, std::move(message)}; }
  static Status Model(std::string message) { return {Code::kModel, std::move(message)}; }
  static Status Overload(std::string message) { return {Code::kOverload, std::move(message)}; }
  static Status Timeout(std::string message) { return {Code::kTimeout, std::move(message)}; }
  static Status Closed(std::string message) { return {Code::kClosed, std::move(message)}; }
  static Status Run(std::string message) { return {Code::kRun, std::move(message)}; }
  static Status Aborted(std::string message) { return {Code::kAborted, std::move(message)}; }

  bool ok() const { return rep_ == nullptr; }
  Code code() const { return rep_ ? rep_->code : Code::kOk; }
  const std::string& message() const {
    static const std::string kEmpty;
    return rep_ ? rep_->message : kEmpty;
  }

 private:
  struct Rep {
    Code code;
    std::string message;
  };
  std::unique_ptr<Rep> rep_;
};

}  // namespace tercel
