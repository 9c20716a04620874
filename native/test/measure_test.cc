// The instruments' native half: answers of HTTP servers, loads, the allocation log, the bare loop.
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <atomic>
#include <cstring>
#include <random>
#include <thread>

#include "base/clock.h"
#include "check.h"
#include "fixture.h"
#include "load/http_answer.h"
#include "load/http_load.h"
#include "measure/bare_loop.h"
#include "measure/roofline.h"
#include "memory/allocation_log.h"

using namespace tercel;
using namespace tercel::test;

namespace {

// Feeds an answer in pieces of `piece` bytes; the state behind the last.
HttpAnswer::State Feed(HttpAnswer* answer, std::string_view text, size_t piece) {
  answer->Reset();
  HttpAnswer::State state = HttpAnswer::State::kMore;
  for (size_t at = 0; at < text.size() && state == HttpAnswer::State::kMore; at += piece) {
    state = answer->Add(text.substr(at, piece));
  }
  return state;
}

// Answers each connection's requests with `reply`, after the requests' heads and bodies of `body`
// bytes.
class Server {
 public:
  Server(std::string reply, size_t request_bytes, int answers = 1 << 30, int delay_ms = 0)
      : reply_(std::move(reply)), request_bytes_(request_bytes), delay_ms_(delay_ms), left_(answers) {
    listener_ = socket(AF_INET, SOCK_STREAM, 0);
    sockaddr_in address = {};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t length = sizeof address;
    CHECK_EQ(bind(listener_, reinterpret_cast<sockaddr*>(&address), length), 0);
    CHECK_EQ(listen(listener_, 64), 0);
    getsockname(listener_, reinterpret_cast<sockaddr*>(&address), &length);
    port = ntohs(address.sin_port);
    acceptor_ = std::thread([this] { Accept(); });
  }
  ~Server() {
    Stop();
    acceptor_.join();
    for (std::thread& thread : threads_) thread.join();
  }
  void Stop() {
    stopping_.store(true);
    shutdown(listener_, SHUT_RDWR);
    if (!closed_.exchange(true)) close(listener_);
  }

  uint16_t port = 0;

 private:
  void Accept() {
    while (!stopping_.load()) {
      const int fd = accept(listener_, nullptr, nullptr);
      if (fd < 0) return;
      threads_.emplace_back([this, fd] { Serve(fd); });
    }
  }
  void Serve(int fd) {
    char buffer[4096];
    size_t have = 0;
    while (true) {
      const ssize_t count = recv(fd, buffer, sizeof buffer, 0);
      if (count <= 0) break;
      have += static_cast<size_t>(count);
      bool ends = false;
      for (; have >= request_bytes_ && !ends; have -= request_bytes_) {
        if (left_.fetch_sub(1) <= 0) {
          Stop();
          ends = true;
        } else {
          if (delay_ms_ > 0) std::this_thread::sleep_for(std::chrono::milliseconds(delay_ms_));
          ends = send(fd, reply_.data(), reply_.size(), 0) < 0;
        }
      }
      if (ends) break;
    }
    close(fd);
  }

  const std::string reply_;
  const size_t request_bytes_;
  const int delay_ms_;
  std::atomic<int> left_;
  std::atomic<bool> stopping_{false};
  std::atomic<bool> closed_{false};
  int listener_ = -1;
  std::thread acceptor_;
  std::vector<std::thread> threads_;
};

constexpr char kRequest[] = "POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 4\r\n\r\nbody";
constexpr size_t kRequestBytes = sizeof kRequest - 1;
constexpr char kReply[] = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

HttpLoadOptions Load(const Server& server, uint32_t connections, double rate = 0) {
  HttpLoadOptions options;
  options.host = "127.0.0.1";
  options.port = server.port;
  options.requests = {kRequest};
  options.connections = connections;
  options.rate = rate;
  options.duration_ns = 200'000'000;
  options.drain_ns = 1'000'000'000;
  return options;
}

}  // namespace

TEST(HistogramsKnowValuesByTheirSize) {
  CHECK_EQ(HistogramIndex(-5), size_t{0});
  CHECK_EQ(HistogramIndex(127), size_t{127});
  CHECK_EQ(HistogramIndex(128), size_t{128});
  CHECK_EQ(HistogramIndex(255), size_t{255});
  CHECK_EQ(HistogramIndex(256), size_t{256});
  CHECK_EQ(HistogramIndex(257), size_t{256});
  CHECK_EQ(HistogramIndex(INT64_MAX), kHistogramBuckets - 1);
  for (int64_t ns = 1; ns < int64_t{1} << 41; ns = ns * 9 / 8 + 1) {
    CHECK(HistogramIndex(ns) <= HistogramIndex(ns + 1));
    CHECK(HistogramIndex(ns) < kHistogramBuckets);
  }
}

TEST(HttpAnswersEndWhereTheySay) {
  HttpAnswer answer;
  const std::string chunked =
      "HTTP/1.1 500 Oh\r\ntransfer-encoding: chunked\r\n\r\n4\r\nwiki\r\n5;x=y\r\npedia\r\n0\r\nA: "
      "b\r\n\r\n";
  for (size_t piece = 1; piece <= chunked.size(); ++piece) {
    CHECK(Feed(&answer, kReply, piece) == HttpAnswer::State::kDone);
    CHECK_EQ(answer.status(), 200);
    CHECK(answer.stays());
    CHECK(Feed(&answer, chunked, piece) == HttpAnswer::State::kDone);
    CHECK_EQ(answer.status(), 500);
    CHECK_EQ(answer.body(), std::string("wikipedia"));
    CHECK(Feed(&answer, std::string("HTTP/1.1 100 Continue\r\n\r\n") + kReply, piece) ==
          HttpAnswer::State::kDone);
  }
  CHECK(Feed(&answer, "HTTP/1.0 200 OK\r\n\r\nuntil the end", 7) == HttpAnswer::State::kMore);
  CHECK(answer.EndsWithConnection());
  CHECK(Feed(&answer, "HTTP/1.1 204 No\r\nconnection: Close\r\n\r\n", 100) == HttpAnswer::State::kDone);
  CHECK(!answer.stays());
  for (const char* wrong :
       {"HTTP/2 200 OK\r\n\r\n", "HTTP/1.1 2x0 OK\r\ncontent-length: 0\r\n\r\n",
        "HTTP/1.1 200 OK\r\ncontent-length: 1x\r\n\r\n", "HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
        "HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\nab",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n"}) {
    CHECK(Feed(&answer, wrong, 1000) == HttpAnswer::State::kWrong);
  }
}

TEST(HttpAnswersTakeAnyBytes) {
  std::mt19937 random(7);
  const std::string seeds[] = {
      kReply, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
      "HTTP/1.1 100 C\r\n\r\nHTTP/1.0 404 N\r\nConnection: keep-alive\r\n\r\nx"};
  HttpAnswer answer;
  for (int i = 0; i < 200'000; ++i) {
    std::string text = seeds[random() % 3];
    for (uint32_t changes = random() % 4; changes > 0; --changes) {
      const size_t at = random() % text.size();
      if (random() % 3 == 0)
        text.erase(at, random() % 5);
      else if (random() % 2)
        text[at] = static_cast<char>(random());
      else
        text.insert(at, text.substr(random() % text.size(), random() % 20));
      if (text.empty()) text = "H";
    }
    const HttpAnswer::State whole = Feed(&answer, text, text.size());
    if (whole != HttpAnswer::State::kDone) continue;
    const int status = answer.status();
    // However it comes: what ended at a piece's end may have more behind it.
    const HttpAnswer::State pieces = Feed(&answer, text, 1 + random() % 7);
    CHECK(pieces == HttpAnswer::State::kDone);
    CHECK_EQ(answer.status(), status);
  }
}

TEST(LoadsCountEachAnswerOnce) {
  Server server(kReply, kRequestBytes);
  HttpLoadProgress progress;
  HttpLoadResult closed;
  CHECK_OK(RunHttpLoad(Load(server, 4), &progress, &closed));
  CHECK(closed.completed > 100);
  uint64_t counted = 0;
  for (const uint32_t count : closed.latency) counted += count;
  CHECK_EQ(counted, closed.completed);
  CHECK_EQ(static_cast<uint64_t>(progress.completed), closed.completed);
  CHECK_EQ(closed.bytes_out, closed.completed * kRequestBytes);
  CHECK_EQ(closed.unanswered + closed.broken + closed.unsent, uint64_t{0});
  const double rate = static_cast<double>(closed.completed) / 0.2;
  CHECK(closed.per_second > rate * 0.9 && closed.per_second < rate * 1.1);

  HttpLoadResult open;
  CHECK_OK(RunHttpLoad(Load(server, 4, 1000), &progress, &open));
  CHECK_EQ(open.completed, uint64_t{199});  // the last would be due at the end
  HttpLoadOptions poisson = Load(server, 4, 1000);
  poisson.poisson = true;
  HttpLoadResult first, again;
  CHECK_OK(RunHttpLoad(poisson, &progress, &first));
  CHECK_OK(RunHttpLoad(poisson, &progress, &again));
  CHECK_EQ(first.completed, again.completed);  // the seed decides
}

TEST(SlowAnswersAreNotLostAtTheEnd) {
  Server server(kReply, kRequestBytes, 1 << 30, 70);
  HttpLoadProgress progress;
  HttpLoadResult result;
  CHECK_OK(RunHttpLoad(Load(server, 2), &progress, &result));
  // Three of 70 ms each on two connections, the third behind the end of 200 ms.
  CHECK_EQ(result.completed, uint64_t{6});
  CHECK(result.per_second > 26 && result.per_second < 29);
}

TIMING_TEST(LoadsSayWhatWentWrong) {
  HttpLoadProgress progress;
  {
    Server server("HTTP/1.1 503 Busy\r\ncontent-length: 4\r\n\r\nbusy", kRequestBytes);
    HttpLoadResult result;
    CHECK_OK(RunHttpLoad(Load(server, 2), &progress, &result));
    CHECK_EQ(result.completed, uint64_t{0});
    CHECK(result.other_statuses[503] > 10);
    CHECK_EQ(result.first_error, std::string("busy"));
  }
  {
    Server server(kReply, kRequestBytes, 50);
    HttpLoadResult result;
    HttpLoadOptions options = Load(server, 2);
    options.duration_ns = 10'000'000'000;
    CHECK_OK(RunHttpLoad(options, &progress, &result));
    CHECK(result.gone);
    CHECK_EQ(result.completed, uint64_t{50});
    CHECK(result.broken > 0);
    CHECK(result.elapsed_ns < 5'000'000'000);
    const Status status = RunHttpLoad(options, &progress, &result);
    CHECK(status.code() == Code::kModel);
  }
  {
    Server server("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 0\r\n\r\n", kRequestBytes);
    HttpLoadResult result;
    CHECK_OK(RunHttpLoad(Load(server, 2), &progress, &result));
    CHECK(result.completed > 10);  // over many connections
    CHECK_EQ(result.broken, uint64_t{0});
  }
  {
    Server server("", kRequestBytes);  // never answers
    HttpLoadOptions options = Load(server, 2, 500);
    options.drain_ns = 50'000'000;
    HttpLoadResult result;
    CHECK_OK(RunHttpLoad(options, &progress, &result));
    CHECK_EQ(result.unanswered, uint64_t{2});
    CHECK_EQ(result.unsent, uint64_t{97});
    options.duration_ns = 60'000'000'000;
    HttpLoadProgress stop;
    std::thread stopper([&] {
      std::this_thread::sleep_for(std::chrono::milliseconds(50));
      __atomic_store_n(&stop.stop, 1, __ATOMIC_RELAXED);
    });
    const int64_t start = NowNs();
    CHECK_OK(RunHttpLoad(options, &stop, &result));
    stopper.join();
    CHECK(NowNs() - start < 5'000'000'000);
  }
}

TEST(AllocationsAreLoggedWhileTheLogIsOn) {
  AllocationLog log(8);
  int memory = 0;
  AllocationLog::Record(&memory, 1);
  log.Start();
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&] {
      for (int i = 0; i < 3; ++i) AllocationLog::Record(&memory, 64);
    });
  }
  for (std::thread& thread : threads) thread.join();
  log.Stop();
  AllocationLog::Record(&memory, 1);
  CHECK_EQ(log.size(), size_t{8});
  CHECK_EQ(log.dropped(), uint64_t{4});
  for (size_t i = 0; i < log.size(); ++i) {
    CHECK_EQ(log.events()[i].bytes, int64_t{64});
    CHECK(log.events()[i].ns > 0);
  }
}

TEST(RunsAllocateThroughTheLog) {
  auto model = LoadModel(tiny_model);
  Ref<Inbox> inbox(new Inbox);
  AllocationLog log(1000);
  log.Start();
  Ref<Job> job = TinyJob(model.get(), inbox, 1);
  CHECK_OK(model->scheduler().Submit(job));
  inbox->Wait(1);
  job.reset();
  model.reset();
  log.Stop();
  int64_t freed = 0, made = 0;
  for (size_t i = 0; i < log.size(); ++i) ++(log.events()[i].bytes == 0 ? freed : made);
  CHECK(freed >= made);  // what the load made goes with the model
}

TEST(TheArenaSaysWhereItsMemoryIs) {
  Arena arena{ArenaOptions{}};
  void* small = arena.Allocate(100);
  void* large = arena.Allocate(1 << 20);
  const Arena::Usage usage = arena.Use();
  CHECK_EQ(usage.slabs.size(), size_t{1});
  const auto address = reinterpret_cast<uintptr_t>(large);
  CHECK(address > usage.slabs[0].first && address < usage.slabs[0].first + usage.slabs[0].second);
  uint64_t free_objects = 0;
  for (const Arena::ClassUse& use : usage.classes) {
    if (use.object_bytes == 128) free_objects = use.free_objects;
  }
  CHECK_EQ(free_objects, uint64_t{65536 / 128 - 1});
  CHECK(usage.largest_free_bytes <= usage.free_page_bytes);
  CHECK(usage.free_page_bytes > (uint64_t{14} << 20));
  arena.Free(small);
  arena.Free(large);
}

TEST(TheBareLoopRuns) {
  const std::vector<float> data(8, 0.5f);
  const auto* bytes = reinterpret_cast<const uint8_t*>(data.data());
  BareLoop loop;
  CHECK_OK(BareLoop::Make(TheRuntime()->env(), tiny_model, ModelOptions{},
                          {{"x", DType::kFloat32, {2, 4}, {bytes, bytes + 32}}}, 2, &loop));
  BareLoop::Result result;
  CHECK_OK(loop.Run(20'000'000, &result));
  CHECK(result.runs > 100);
  CHECK(result.elapsed_ns >= 20'000'000);
  BareLoop wrong;
  CHECK(!BareLoop::Make(TheRuntime()->env(), tiny_model, ModelOptions{},
                        {{"x", DType::kFloat32, {2, 3}, {bytes, bytes + 24}}}, 1, &wrong)
             .ok());
}

TEST(TheRoofIsAboveTheFloor) {
  const Roof roof = MeasureRoof(1);
  CHECK(roof.bytes_per_second > 1e8);
  CHECK(roof.flops_per_second > 1e8);
}
