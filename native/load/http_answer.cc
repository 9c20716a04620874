#include "load/http_answer.h"

#include <algorithm>
#include <charconv>
#include <cstring>

namespace tercel {

namespace {

constexpr size_t kMostHeadBytes = 64 * 1024;
constexpr size_t kMostKeptBytes = 1024;

bool SameName(std::string_view text, std::string_view lower) {
  if (text.size() != lower.size()) return false;
  for (size_t i = 0; i < text.size(); ++i) {
    const char c = text[i] >= 'A' && text[i] <= 'Z' ? static_cast<char>(text[i] + 32) : text[i];
    if (c != lower[i]) return false;
  }
  return true;
}

std::string_view Trimmed(std::string_view text) {
  while (!text.empty() && (text.front() == ' ' || text.front() == '\t')) text.remove_prefix(1);
  while (!text.empty() && (text.back() == ' ' || text.back() == '\t')) text.remove_suffix(1);
  return text;
}

}  // namespace

void HttpAnswer::Reset() {
  head_.clear();
  line_.clear();
  kept_.clear();
  has_head_ = in_chunk_ = in_trailer_ = false;
  status_ = 0;
  stays_ = true;
  framing_ = Framing::kLength;
  left_ = 0;
}

HttpAnswer::State HttpAnswer::Add(std::string_view bytes) {
  while (!has_head_) {
    // The usual answer is here whole: its head need not be kept.
    const bool first = head_.empty();
    const size_t before = head_.size();
    if (!first) head_.append(bytes);
    const std::string_view text = first ? bytes : std::string_view(head_);
    const size_t end = text.find("\r\n\r\n", before > 3 ? before - 3 : 0);
    if (end == std::string_view::npos) {
      if (first) head_.assign(bytes);
      return head_.size() > kMostHeadBytes ? State::kWrong : State::kMore;
    }
    if (!ReadHead(text.substr(0, end + 2))) return State::kWrong;
    bytes.remove_prefix(end + 4 - before);
    head_.clear();
    // Of an interim answer, such as 100 Continue, nothing but the head comes.
    has_head_ = status_ >= 200;
    if (!has_head_ && bytes.empty()) return State::kMore;
  }
  return AddBody(bytes);
}

bool HttpAnswer::ReadHead(std::string_view head) {
  if (head.size() < 14 || head.substr(0, 7) != "HTTP/1.") return false;
  stays_ = head[7] == '1';
  const auto [end, error] = std::from_chars(head.data() + 9, head.data() + 12, status_);
  if (error != std::errc() || end != head.data() + 12 || status_ < 100) return false;
  framing_ = Framing::kConnection;
  left_ = 0;
  for (size_t at = head.find("\r\n") + 2; at < head.size();) {
    const size_t line_end = head.find("\r\n", at);
    const std::string_view line = head.substr(at, line_end - at);
    at = line_end + 2;
    const size_t colon = line.find(':');
    if (colon == std::string_view::npos) return false;
    const std::string_view name = line.substr(0, colon);
    if (SameName(name, "content-length") && framing_ != Framing::kChunks) {
      const std::string_view value = Trimmed(line.substr(colon + 1));
      const auto [stop, wrong] = std::from_chars(value.data(), value.data() + value.size(), left_);
      if (wrong != std::errc() || stop != value.data() + value.size()) return false;
      framing_ = Framing::kLength;
    } else if (SameName(name, "transfer-encoding")) {
      framing_ = Framing::kChunks;
      left_ = 0;
    } else if (SameName(name, "connection")) {
      const std::string_view value = Trimmed(line.substr(colon + 1));
      if (SameName(value, "close")) stays_ = false;
      if (SameName(value, "keep-alive")) stays_ = true;
    }
  }
  if (status_ == 204 || status_ == 304) {
    framing_ = Framing::kLength;
    left_ = 0;
  }
  if (framing_ == Framing::kConnection) stays_ = false;
  return true;
}

void HttpAnswer::Keep(std::string_view bytes) {
  if (status_ >= 200 && status_ <= 299) return;
  kept_.append(bytes.substr(0, kMostKeptBytes - std::min(kMostKeptBytes, kept_.size())));
}

HttpAnswer::State HttpAnswer::AddBody(std::string_view bytes) {
  switch (framing_) {
    case Framing::kConnection:
      Keep(bytes);
      return State::kMore;
    case Framing::kLength:
      if (bytes.size() > left_) return State::kWrong;
      Keep(bytes);
      left_ -= bytes.size();
      return left_ == 0 ? State::kDone : State::kMore;
    case Framing::kChunks:
      return AddChunks(bytes);
  }
  return State::kWrong;
}

HttpAnswer::State HttpAnswer::AddChunks(std::string_view bytes) {
  while (!bytes.empty()) {
    if (in_chunk_) {
      const size_t count = static_cast<size_t>(std::min<uint64_t>(left_, bytes.size()));
      // The two last are the line break.
      if (left_ > 2) Keep(bytes.substr(0, static_cast<size_t>(std::min<uint64_t>(left_ - 2, count))));
      left_ -= count;
      bytes.remove_prefix(count);
      in_chunk_ = left_ > 0;
      continue;
    }
    const size_t end = bytes.find('\n');
    if (end == std::string_view::npos) {
      line_.append(bytes);
      return line_.size() > kMostHeadBytes ? State::kWrong : State::kMore;
    }
    line_.append(bytes.substr(0, end));
    bytes.remove_prefix(end + 1);
    if (!line_.empty() && line_.back() == '\r') line_.pop_back();
    if (in_trailer_) {
      const bool done = line_.empty();
      line_.clear();
      if (done) return bytes.empty() ? State::kDone : State::kWrong;
      continue;
    }
    uint64_t size = 0;
    const auto [stop, error] = std::from_chars(line_.data(), line_.data() + line_.size(), size, 16);
    const bool known = error == std::errc() && size < (uint64_t{1} << 60) &&
                       (stop == line_.data() + line_.size() || *stop == ';' || *stop == ' ');
    line_.clear();
    if (!known) return State::kWrong;
    in_trailer_ = size == 0;
    in_chunk_ = size > 0;
    left_ = size > 0 ? size + 2 : 0;
  }
  return State::kMore;
}

}  // namespace tercel
