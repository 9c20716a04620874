#include <cstring>

#include "json/json_common.h"
#include "json/json_tensor.h"

namespace tercel {

namespace {

using json::IsDigit;
using json::IsSpace;

class Carver {
 public:
  Carver(std::string_view text, std::vector<JsonSpan>* spans)
      : at_(text.data()), end_(at_ + text.size()), start_(at_), spans_(spans) {}

  // False where the text is not what it should be.
  bool Run(JsonForm form) { return form == JsonForm::kTensors ? Tensors() : Rows(); }

 private:
  bool Tensors() {
    return Object([&](std::string_view key) {
      if (key != "inputs" || Peek() != '[') return Skip();
      return Array([&] {
        if (Peek() != '{') return Skip();
        return Object([&](std::string_view name) {
          if (name != "data" || Peek() != '[') return Skip();
          return SkipAndCut();
        });
      });
    });
  }

  bool Rows() {
    const auto by_name = [&] { return Object([&](std::string_view) { return Numbers(); }); };
    return Object([&](std::string_view key) {
      if (key == "inputs") return Peek() == '{' ? by_name() : Numbers();
      if (key != "instances" || Peek() != '[') return Skip();
      const char* begin = at_;
      ++at_;
      const bool objects = Peek() == '{';
      at_ = begin;
      if (!objects) return Numbers();
      return Array([&] { return Peek() == '{' ? by_name() : Skip(); });
    });
  }

  // A value of any kind; numbers, and arrays of nothing but numbers, are cut out.
  bool Numbers() {
    const char c = Peek();
    if (c == '[') {
      const char* begin = at_;
      const size_t cut = spans_->size();
      if (!SkipAndCut()) return false;
      if (!numbers_) spans_->resize(cut);
      return at_ > begin;
    }
    const bool number = IsDigit(c) || c == '-' || c == 'N' || c == 'I';
    return number ? SkipAndCut() : Skip();
  }

  bool SkipAndCut() {
    const char* begin = at_;
    if (!Skip()) return false;
    const char* end = at_;
    while (end > begin && IsSpace(end[-1])) --end;
    spans_->push_back({static_cast<size_t>(begin - start_), static_cast<size_t>(end - start_)});
    return true;
  }

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
    numbers_ = false;
    do {
      const char c = Peek();
      if (c == '[' && depth == 0) {
        if (SkipNumbers()) {
          numbers_ = true;
          return true;
        }
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
  bool numbers_ = false;          // whether what was skipped was an array without strings
  const char* const end_;
  const char* const start_;
  std::vector<JsonSpan>* const spans_;
};

constexpr size_t kMostDepth = 32;

}  // namespace

Status JsonShape(std::string_view text, size_t offset, std::vector<int64_t>* dims) {
  dims->clear();
  int64_t counts[kMostDepth] = {};
  int64_t known[kMostDepth];  // elements of the lists at a depth; -1 where none has ended yet
  size_t depth = 0;
  size_t leaves = 0;  // the depth of the numbers; 0 where none came yet
  const auto fail = [&](size_t at, const std::string& what) {
    return Status::InvalidInput(what + " at byte " + std::to_string(offset + at));
  };
  for (size_t at = 0; at < text.size();) {
    const char c = text[at];
    if (c == '[') {
      if (depth == kMostDepth) return fail(at, "lists are nested more than 32 deep");
      if (leaves != 0 && depth >= leaves) return fail(at, "a list where the others have numbers");
      if (depth > 0) ++counts[depth - 1];
      if (dims->size() == depth) {
        dims->push_back(-1);
        known[depth] = -1;
      }
      counts[depth++] = 0;
      ++at;
    } else if (c == ']') {
      if (depth == 0) return fail(at, "a bracket too many");
      const int64_t count = counts[--depth];
      if (known[depth] >= 0 && known[depth] != count) {
        return fail(at, "a list of " + std::to_string(count) + " where the others have " +
                            std::to_string(known[depth]) + ", which ends");
      }
      known[depth] = count;
      ++at;
    } else if (c == ',' || IsSpace(c)) {
      ++at;
    } else {
      if (leaves == 0) leaves = depth;
      if (depth != leaves || depth == 0) return fail(at, "a number where the others have lists");
      if (dims->size() > depth) return fail(at, "a number where the others have lists");
      ++counts[depth - 1];
      while (at < text.size() && text[at] != ',' && text[at] != ']' && text[at] != '[') ++at;
    }
  }
  if (depth != 0) return fail(text.size(), "a list that does not end");
  if (dims->empty()) return fail(text.size(), "no list");
  for (size_t i = 0; i < dims->size(); ++i) (*dims)[i] = known[i];
  return {};
}

void CarveJson(std::string_view text, JsonForm form, std::string_view marker, std::string* envelope,
               std::vector<JsonSpan>* spans) {
  spans->clear();
  envelope->clear();
  // What is not closed is not cut: the envelope's parser says so.
  if (!Carver(text, spans).Run(form)) spans->clear();
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
