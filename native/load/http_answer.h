// The answer of an HTTP/1.1 server, as far as a load generator has to know it: where it ends, its
// status, and whether the connection stays (RFC 9112).
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace tercel {

class HttpAnswer {
 public:
  enum class State : uint8_t { kMore, kDone, kWrong };

  // For the next answer of the connection.
  void Reset();
  // Takes the next bytes. kWrong: they are no answer, or more than one.
  State Add(std::string_view bytes);
  // Whether the end of the connection is the end of the answer too: it has no length of its own.
  bool EndsWithConnection() const { return has_head_ && framing_ == Framing::kConnection; }

  int status() const { return status_; }
  bool stays() const { return stays_; }
  // What came of it, kept for statuses other than 2xx only.
  const std::string& body() const { return kept_; }

 private:
  enum class Framing : uint8_t { kLength, kChunks, kConnection };
  bool ReadHead(std::string_view head);
  State AddBody(std::string_view bytes);
  State AddChunks(std::string_view bytes);
  void Keep(std::string_view bytes);

  std::string head_;  // until it is whole
  bool has_head_ = false;
  int status_ = 0;
  bool stays_ = true;
  Framing framing_ = Framing::kLength;
  uint64_t left_ = 0;  // of the body, or of the chunk with the line break behind it
  bool in_chunk_ = false;
  bool in_trailer_ = false;
  std::string line_;  // the part of a chunk's size, or of a trailer, that has come
  std::string kept_;
};

}  // namespace tercel
