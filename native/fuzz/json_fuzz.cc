// Fuzzes the JSON codec under the sanitizers: tercel_json_fuzz [SECONDS] [SEED]
//
// Texts come from a corpus by small changes. Each is cut, measured, parsed as every dtype into exactly
// the memory that it may have, and printed into exactly the memory that it asks for: what reaches
// beyond is the sanitizer's to say. What parses as float32 is printed and parsed again, bit for bit.
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "base/clock.h"
#include "json/json_tensor.h"

using namespace tercel;

namespace {

const char* const kSeeds[] = {
    R"({"inputs":[{"name":"x","shape":[2,2],"datatype":"FP32","data":[[1,2.5],[-3e-7,1e30]]}],"id":"a"})",
    R"({"instances":[[1,NaN],[3,-Infinity]],"signature_name":"serving_default"})",
    R"({"instances":[{"x":[1,2],"y":true,"z":"s"},{"x":[3,4],"y":5}]})",
    R"({"inputs":{"x":[[[0.1]],[[123456789.125]]],"y":{"b64":"aGk="}}})",
    "[1,-2,3.25,4e5,0.0001,18446744073709551615,-9223372036854775808,true,false]",
    "[3.4028235e38,1.17549435e-38,1e-45,4.9406564584124654e-324,1.7976931348623157e308,1e999,-0]",
};
const char* const kPieces[] = {
    "[",  "]",  "{",    "}",    ",",         ":",           "\"",       "\\",      "-",        ".",
    "e",  "E+", "0",    "9",    "NaN",       "-I",          "null",     "true",    "Infinity", " ",
    "\n", "1e", "[[[[", "]]]]", "\"data\":", "\"inputs\":", "00000000", "99999999"};

std::string Mutated(std::mt19937_64* random, const std::vector<std::string>& corpus) {
  const auto below = [&](size_t n) { return static_cast<size_t>((*random)() % n); };
  std::string text = corpus[below(corpus.size())];
  for (size_t changes = 1 + below(4); changes > 0; --changes) {
    const size_t at = below(text.size() + 1);
    const size_t length = below(std::min<size_t>(48, text.size() - at) + 1);
    switch (below(6)) {
      case 0:
        text.erase(at, length);
        break;
      case 1:
        text.insert(at, text.substr(at, length));
        break;
      case 2:
        text.insert(at, kPieces[below(std::size(kPieces))]);
        break;
      case 3:
        if (at < text.size()) text[at] = static_cast<char>((*random)());
        break;
      case 4: {
        const std::string& other = corpus[below(corpus.size())];
        text.insert(at, other.substr(below(other.size() + 1), 1 + below(32)));
        break;
      }
      default:
        text.resize(at);
    }
    if (text.size() > 4096) text.resize(4096);
  }
  return text;
}

[[noreturn]] void Found(const char* what, const std::string& text) {
  std::fprintf(stderr, "FOUND %s: %s\n", what, text.c_str());
  std::abort();
}

// Memory of exactly so many bytes, which the sanitizer watches.
struct Exact {
  explicit Exact(size_t count) : data(new uint8_t[count == 0 ? 1 : count]) {}
  std::unique_ptr<uint8_t[]> data;
};

void Tensor(const std::string& text, size_t begin, size_t end) {
  const std::string_view span(text.data() + begin, end - begin);
  std::vector<int64_t> dims;
  const bool shaped = JsonShape(span, begin, &dims).ok();
  size_t count = 1;
  for (const int64_t dim : dims) count *= static_cast<size_t>(dim);
  if (!shaped) count = span.size() / 2;
  if (count > span.size()) Found("a shape of more elements than the text has bytes", text);
  for (const DType dtype :
       {DType::kFloat32, DType::kFloat64, DType::kInt8, DType::kUint8, DType::kInt16, DType::kUint16,
        DType::kInt32, DType::kUint32, DType::kInt64, DType::kUint64, DType::kBool}) {
    Exact out(count * DTypeBytes(dtype));
    if (!ParseJsonTensor(span, begin, dtype, NonFinite::kTokens, out.data.get(), count, "T").ok())
      continue;
    if (!shaped) Found("what parsed has no shape", text);
    Exact printed(JsonBound(dtype, count));
    auto* at = reinterpret_cast<char*>(printed.data.get());
    size_t bytes = 0;
    if (!PrintJsonTensor(dtype, NonFinite::kTokens, out.data.get(), count, at, &bytes).ok()) {
      Found("what parsed does not print", text);
    }
    Exact nested(JsonNestedBound(dtype, dims));
    size_t nested_bytes = 0;
    if (!PrintJsonNested(dtype, NonFinite::kTokens, out.data.get(), dims,
                         reinterpret_cast<char*>(nested.data.get()), &nested_bytes)
             .ok()) {
      Found("what parsed does not print nested", text);
    }
    Exact again(count * DTypeBytes(dtype));
    if (!ParseJsonTensor({at, bytes}, 0, dtype, NonFinite::kTokens, again.data.get(), count, "T")
             .ok()) {
      Found("what was printed does not parse", text);
    }
    const std::string_view lists(reinterpret_cast<char*>(nested.data.get()), nested_bytes);
    std::vector<int64_t> dims_again;
    if (!JsonShape(lists, 0, &dims_again).ok()) Found("what was printed nested has no shape", text);
    for (size_t i = 0; i < dims.size() && count > 0; ++i) {
      if (dims_again.size() != dims.size() || dims_again[i] != dims[i]) Found("another shape", text);
    }
    if (std::memcmp(out.data.get(), again.data.get(), count * DTypeBytes(dtype)) != 0) {
      Found("a number changed", text);
    }
  }
}

void One(const std::string& text) {
  for (const JsonForm form : {JsonForm::kTensors, JsonForm::kRows}) {
    std::string envelope;
    std::vector<JsonSpan> spans;
    // A copy of exactly its size: reading past the end is a finding.
    Exact copy(text.size());
    std::memcpy(copy.data.get(), text.data(), text.size());
    CarveJson({reinterpret_cast<char*>(copy.data.get()), text.size()}, form, "M:", &envelope, &spans);
    size_t at = 0;
    for (const JsonSpan& span : spans) {
      if (span.begin < at || span.end < span.begin || span.end > text.size()) Found("a span", text);
      at = span.end;
      Exact exact(span.end - span.begin);
      std::memcpy(exact.data.get(), text.data() + span.begin, span.end - span.begin);
      Tensor(std::string(reinterpret_cast<char*>(exact.data.get()), span.end - span.begin), 0,
             span.end - span.begin);
    }
  }
  Tensor(text, 0, text.size());
}

}  // namespace

int main(int argc, char** argv) {
  const double seconds = argc > 1 ? std::atof(argv[1]) : 10;
  const uint64_t seed = argc > 2 ? std::strtoull(argv[2], nullptr, 10) : 1;
  std::mt19937_64 random(seed);
  std::vector<std::string> corpus(std::begin(kSeeds), std::end(kSeeds));
  const size_t seeds = corpus.size();
  const int64_t end = NowNs() + static_cast<int64_t>(seconds * 1e9);
  uint64_t count = 0;
  for (const std::string& text : std::vector<std::string>(corpus)) One(text);
  while (NowNs() < end) {
    for (int i = 0; i < 100; ++i) {
      const std::string text = Mutated(&random, corpus);
      One(text);
      ++count;
      if (i == 0) corpus.push_back(text);
    }
    if (corpus.size() > 5000) corpus.resize(seeds);
  }
  std::printf("%llu texts, seed %llu: nothing\n", static_cast<unsigned long long>(count),
              static_cast<unsigned long long>(seed));
  return 0;
}
