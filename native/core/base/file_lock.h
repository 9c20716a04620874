// FileLock: one holder in the machine at a time, by flock(2): the kernel lets it go with its process.
#pragma once

#include <memory>
#include <string>

#include "base/status.h"

namespace tercel {

class FileLock {
 public:
  // Makes the file if need be. *out stays null while another holds it; kRun when it cannot be made.
  static Status Try(const std::string& path, std::unique_ptr<FileLock>* out);
  ~FileLock();
  FileLock(const FileLock&) = delete;
  FileLock& operator=(const FileLock&) = delete;

 private:
  explicit FileLock(int file) : file_(file) {}
  const int file_;
};

}  // namespace tercel
