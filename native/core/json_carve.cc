#include <cstring>

#include "json_common.h"
#include "json_tensor.h"

namespace tercel {

namespace {

using json::IsSpace;

class Carver {
 public:
  Carver(std::string_view text, std::vector<JsonSpan>* spans)
      : at_(text.data()), end_(at_ + text.size()), start_(at_), spans_(spans) {}

  // False where the text is not what it should be.
  bool Run() {
    return Object([&](std::string_view key) {
      if (key != "inputs" || Peek() != '[') return Skip();
      return Array([&] {
        if (Peek() != '{') return Skip();
        return Object([&](std::string_view name) {
          if (name != "data" || Peek() != '[') return Skip();
          const char* begin = at_;
          if (!Skip()) return false;
          spans_->push_back({static_cast<size_t>(begin - start_), static_cast<size_t>(at_ - start_)});
          return true;
        });
      });
    });
  }

 private:
  // The next character that is no space; 0 at the end.
  char Peek() {
    while (at_ < end_ && IsSpace(*at_)) ++at_;
    return at_ < end_ ? *at_ : '\0';
  }
  bool Take(char c) {
    if (Peek() != c) return false;
    ++at_;
    return true;
  }
  // A string; `*out` is what is between its quotes, as it stands there.
  bool String(std::string_view* out) {
    if (!Take('"')) return false;
    const char* begin = at_;
    while (at_ < end_ && *at_ != '"') at_ += *at_ == '\\' ? 2 : 1;
    if (at_ >= end_) return false;
    *out = {begin, static_cast<size_t>(at_ - begin)};
    ++at_;
    return true;
  }
  template <typename Value>
  bool Object(Value value) {
    if (!Take('{')) return false;
    if (Take('}')) return true;
    do {
      std::string_view key;
      if (!String(&key) || !Take(':') || !value(key)) return false;
    } while (Take(','));
    return Take('}');
  }
  template <typename Value>
  bool Array(Value value) {
    if (!Take('[')) return false;
    if (Take(']')) return true;
    do {
      if (!value()) return false;
    } while (Take(','));
    return Take(']');
  }
  // Past a value of any kind, by its brackets.
  bool Skip() {
    size_t depth = 0;
    looked_ = at_;
    do {
      const char c = Peek();
      if (c == '[' && depth == 0) {
        if (SkipNumbers()) return true;
        if (unclosed_) return false;
      }
      if (c == '\0') return false;
      if (c == '"') {
        std::string_view ignored;
        if (!String(&ignored)) return false;
      } else if (c == '[' || c == '{') {
        ++depth;
        ++at_;
      } else if (c == ']' || c == '}') {
        if (depth == 0) return false;
        --depth;
        ++at_;
      } else if (depth == 0) {
        // A number or a word: up to what ends it.
        while (at_ < end_ && *at_ != ',' && *at_ != '}' && *at_ != ']') ++at_;
      } else {
        ++at_;
      }
    } while (depth > 0);
    // SkipNumbers() looks beyond the end of a value only where brackets do not match, and then nothing
    // is to be cut out: or a text of such would be looked at once for each of its brackets.
    return at_ >= looked_;
  }
  // Past an array that holds no string, at the speed of memchr. False, and nothing moved, where it
  // does.
  bool SkipNumbers() {
    const char* at = at_ + 1;
    size_t depth = 1;
    while (depth > 0) {
      const auto* close =
          static_cast<const char*>(std::memchr(at, ']', static_cast<size_t>(end_ - at)));
      if (!close) {
        unclosed_ = true;
        return false;
      }
      looked_ = close + 1;
      const auto length = static_cast<size_t>(close - at);
      if (std::memchr(at, '"', length)) return false;
      for (const char* open = at; (open = static_cast<const char*>(std::memchr(
                                       open, '[', static_cast<size_t>(close - open)))) != nullptr;
           ++open) {
        ++depth;
      }
      --depth;
      at = close + 1;
    }
    at_ = at;
    return true;
  }

  const char* at_;
  const char* looked_ = nullptr;  // how far SkipNumbers() looked
  bool unclosed_ = false;         // and found no end
  const char* const end_;
  const char* const start_;
  std::vector<JsonSpan>* const spans_;
};

}  // namespace

void CarveJson(std::string_view text, std::string_view marker, std::string* envelope,
               std::vector<JsonSpan>* spans) {
  spans->clear();
  envelope->clear();
  // What is not closed is not cut: the envelope's parser says so.
  if (!Carver(text, spans).Run()) spans->clear();
  size_t at = 0;
  for (size_t i = 0; i < spans->size(); ++i) {
    const JsonSpan& span = (*spans)[i];
    envelope->append(text.substr(at, span.begin - at));
    envelope->append("\"").append(marker).append(std::to_string(i)).append("\"");
    at = span.end;
  }
  envelope->append(text.substr(at));
}

}  // namespace tercel
