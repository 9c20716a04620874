#include "memory/shared_memory.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <limits>

namespace tercel {

namespace {

constexpr size_t kMaxKey = 255;  // NAME_MAX

// A key with or without its leading slash, as clients write both.
bool IsKey(const std::string& key) {
  const size_t start = key.starts_with('/') ? 1 : 0;
  const std::string name = key.substr(start);
  return !name.empty() && name.size() <= kMaxKey - 1 && name != "." && name != ".." &&
         name.find('/') == std::string::npos && name.find('\0') == std::string::npos;
}

std::string Why(const char* what, const std::string& key) {
  return std::string(what) + " shared memory \"" + key + "\": " + std::strerror(errno);
}

// The object stays open: its size tells whether what is mapped is still there.
class SharedMapping final : public Mapping {
 public:
  SharedMapping(int file, void* base, size_t bytes, uint64_t end)
      : file_(file), base_(base), bytes_(bytes), end_(end) {}
  ~SharedMapping() override {
    munmap(base_, bytes_);
    close(file_);
  }
  bool Intact() const override {
    struct stat now {};
    return fstat(file_, &now) == 0 && static_cast<uint64_t>(now.st_size) >= end_;
  }

 private:
  const int file_;
  void* const base_;
  const size_t bytes_;
  const uint64_t end_;
};

}  // namespace

Status MapSharedMemory(const std::string& key, uint64_t offset, uint64_t bytes, Ref<Lease>* out) {
  if (!IsKey(key)) return Status::InvalidInput("\"" + key + "\" cannot be a shared memory key");
  if (bytes == 0) return Status::InvalidInput("shared memory \"" + key + "\": a region of 0 bytes");
  const std::string path = key.starts_with('/') ? key : "/" + key;
  const int file = shm_open(path.c_str(), O_RDWR | O_CLOEXEC, 0);
  if (file < 0) return Status::InvalidInput(Why("cannot open", key));
  struct stat object {};
  if (fstat(file, &object) != 0) {
    const Status status = Status::InvalidInput(Why("cannot look at", key));
    close(file);
    return status;
  }
  const auto size = static_cast<uint64_t>(object.st_size);
  if (offset > size || bytes > size - offset || bytes > std::numeric_limits<size_t>::max() / 2) {
    close(file);
    return Status::InvalidInput("shared memory \"" + key + "\" has " + std::to_string(size) +
                                " bytes; a region of " + std::to_string(bytes) + " from " +
                                std::to_string(offset) + " on does not fit");
  }
  const auto page = static_cast<uint64_t>(sysconf(_SC_PAGESIZE));
  const uint64_t lead = offset % page;
  const auto mapped = static_cast<size_t>(bytes + lead);
  void* base = mmap(nullptr, mapped, PROT_READ | PROT_WRITE, MAP_SHARED, file,
                    static_cast<off_t>(offset - lead));
  if (base == MAP_FAILED) {
    const Status status = Status::InvalidInput(Why("cannot map", key));
    close(file);
    return status;
  }
  *out = Lease::Over(static_cast<uint8_t*>(base) + lead, static_cast<size_t>(bytes),
                     std::make_unique<SharedMapping>(file, base, mapped, offset + bytes));
  return {};
}

}  // namespace tercel
