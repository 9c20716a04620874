#include "base/file_lock.h"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

namespace tercel {

Status FileLock::Try(const std::string& path, std::unique_ptr<FileLock>* out) {
  out->reset();
  auto fail = [&] { return Status::Run("cannot lock \"" + path + "\": " + std::strerror(errno)); };
  const int file = open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644);
  if (file < 0) return fail();
  if (flock(file, LOCK_EX | LOCK_NB) != 0) {
    Status status = errno == EWOULDBLOCK ? Status() : fail();
    close(file);
    return status;
  }
  out->reset(new FileLock(file));
  return {};
}

// The file stays: who waits for it has it open.
FileLock::~FileLock() { close(file_); }

}  // namespace tercel
