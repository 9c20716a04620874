#include "memory/shared_memory.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cstring>

#include "check.h"

using namespace tercel;

namespace {

// An object as a client makes it, gone at the end.
class Object {
 public:
  explicit Object(size_t bytes) {
    file_ = shm_open(key().c_str(), O_CREAT | O_RDWR | O_EXCL, 0600);
    CHECK(file_ >= 0);
    Resize(bytes);
    data_ = static_cast<uint8_t*>(mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, file_, 0));
  }
  ~Object() {
    close(file_);
    shm_unlink(key().c_str());
  }
  void Resize(size_t bytes) const { CHECK_EQ(ftruncate(file_, static_cast<off_t>(bytes)), 0); }
  static std::string key() { return "/tercel-test-" + std::to_string(getpid()); }
  uint8_t* data() const { return data_; }

 private:
  int file_;
  uint8_t* data_;
};

}  // namespace

TEST(SharedMemoryIsTheSameMemory) {
  const uint64_t before = Lease::Live();
  {
    Object object(3 * 4096);
    object.data()[5000] = 42;
    Ref<Lease> lease;
    // Without the slash, and from no page's start on.
    CHECK_OK(MapSharedMemory(Object::key().substr(1), 5000, 7000, &lease));
    CHECK_EQ(lease->bytes(), size_t{7000});
    CHECK_EQ(int{lease->data()[0]}, 42);
    lease->data()[6999] = 7;
    CHECK_EQ(int{object.data()[11999]}, 7);
    CHECK(lease->intact());
    LeaseTable table;
    table.Add(lease.get());
    CHECK(table.Find(lease->data() + 1, 6999).get() == lease.get());
    CHECK(!table.Find(lease->data() + 1, 7000));
    table.Remove(lease.get());
    object.Resize(8000);
    CHECK(!lease->intact());
  }
  CHECK_EQ(Lease::Live(), before);
}

TEST(SharedMemoryRefusesWhatIsNotThere) {
  Object object(4096);
  Ref<Lease> lease;
  const auto refuses = [&](const std::string& key, uint64_t offset, uint64_t bytes) {
    const Status status = MapSharedMemory(key, offset, bytes, &lease);
    CHECK(status.code() == Code::kInvalidInput);
    CHECK(!lease);
  };
  refuses(Object::key(), 0, 4097);
  refuses(Object::key(), 4096, 1);
  refuses(Object::key(), 4097, UINT64_MAX);
  refuses(Object::key(), UINT64_MAX, 2);
  refuses(Object::key(), 0, 0);
  refuses(Object::key() + "-other", 0, 1);
  for (const char* key : {"", "/", ".", "/..", "a/b", "/../etc/passwd"}) refuses(key, 0, 1);
  refuses(std::string(300, 'x'), 0, 1);
  refuses(std::string("a\0b", 3), 0, 1);
}
