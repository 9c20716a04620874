// Numbers between text and tensors: exact both ways, strict about what is no JSON, exact about where.
#include <charconv>
#include <cmath>
#include <cstring>
#include <random>
#include <string>
#include <vector>

#include "base/clock.h"
#include "check.h"
#include "json/json_tensor.h"

using namespace tercel;

namespace {

template <typename T>
struct TypeOf;
template <>
struct TypeOf<float> {
  static constexpr DType kDType = DType::kFloat32;
};
template <>
struct TypeOf<double> {
  static constexpr DType kDType = DType::kFloat64;
};
template <>
struct TypeOf<int8_t> {
  static constexpr DType kDType = DType::kInt8;
};
template <>
struct TypeOf<int64_t> {
  static constexpr DType kDType = DType::kInt64;
};
template <>
struct TypeOf<uint64_t> {
  static constexpr DType kDType = DType::kUint64;
};

template <typename T>
Status Parse(std::string_view text, std::vector<T>* out, NonFinite policy = NonFinite::kRefused) {
  return ParseJsonTensor(text, 0, TypeOf<T>::kDType, policy, out->data(), out->size(), "FP32");
}

template <typename T>
std::string Print(const std::vector<T>& values, NonFinite policy = NonFinite::kRefused) {
  std::string text(JsonBound(TypeOf<T>::kDType, values.size()), ' ');
  size_t bytes = 0;
  Status status =
      PrintJsonTensor(TypeOf<T>::kDType, policy, values.data(), values.size(), text.data(), &bytes);
  if (!status.ok()) return status.message();
  text.resize(bytes);
  return text;
}

template <typename T, typename Bits>
void RoundTripsExactly(uint64_t seed) {
  std::mt19937_64 random(seed);
  std::vector<T> values(20'000), back(values.size());
  for (size_t i = 0; i < values.size(); ++i) {
    do {
      const auto bits = static_cast<Bits>(random());
      std::memcpy(&values[i], &bits, sizeof bits);
    } while (!std::isfinite(values[i]));
    // Half of them of an everyday size.
    if (i % 2) values[i] = static_cast<T>(static_cast<double>(random() % 2'000'001) / 1e6 - 1);
  }
  values[0] = 0;
  values[1] = -T{0};
  values[2] = std::numeric_limits<T>::max();
  values[3] = std::numeric_limits<T>::lowest();
  values[4] = std::numeric_limits<T>::min();
  values[5] = std::numeric_limits<T>::denorm_min();
  CHECK_OK(Parse(Print(values), &back));
  CHECK_EQ(std::memcmp(values.data(), back.data(), values.size() * sizeof(T)), 0);
}

}  // namespace

TEST(JsonNumbersAreExactBothWays) {
  RoundTripsExactly<float, uint32_t>(1);
  RoundTripsExactly<double, uint64_t>(2);
}

// What others print: any number of digits, in any notation, against the standard library's reader.
TEST(JsonNumbersAreRoundedOnce) {
  std::mt19937_64 random(3);
  std::string text = "[";
  std::vector<std::string> numbers;
  for (int i = 0; i < 20'000; ++i) {
    std::string number = random() % 2 ? "-" : "";
    const auto digits = 1 + random() % 24;
    const auto point = random() % (digits + 1);
    std::string body;
    for (size_t k = 0; k < digits; ++k) body += static_cast<char>('0' + random() % 10);
    std::string whole = body.substr(0, point);
    while (whole.size() > 1 && whole[0] == '0') whole.erase(0, 1);
    number += whole.empty() ? "0" : whole;
    if (point < digits) number += "." + body.substr(point);
    if (random() % 3 == 0) number += "e" + std::to_string(static_cast<int>(random() % 30) - 20);
    numbers.push_back(number);
    text += (i ? ", " : "") + number;
  }
  // The middle between two floats, a little more and a little less: what a second rounding gets wrong.
  for (const char* number :
       {"1.00000005960464477539", "1.000000059604644775390625", "1.00000005960464477540",
        "1.0000000596046448", "16777217.0", "0.1000000052154064178466796875", "9007199254740993",
        "9007199254740993.0"}) {
    numbers.emplace_back(number);
    text += std::string(", ") + number;
  }
  text += "]";
  std::vector<float> floats(numbers.size());
  std::vector<double> doubles(numbers.size());
  CHECK_OK(Parse(text, &floats));
  CHECK_OK(Parse(text, &doubles));
  size_t wrong = 0;
  for (size_t i = 0; i < numbers.size(); ++i) {
    float one = 0;
    double two = 0;
    const char* end = numbers[i].data() + numbers[i].size();
    std::from_chars(numbers[i].data(), end, one);
    std::from_chars(numbers[i].data(), end, two);
    wrong += std::memcmp(&one, &floats[i], sizeof one) != 0;
    wrong += std::memcmp(&two, &doubles[i], sizeof two) != 0;
  }
  CHECK_EQ(wrong, size_t{0});
}

TEST(JsonIntegersAreExactAndInRange) {
  std::vector<int64_t> longs(3);
  CHECK_OK(Parse("[-9223372036854775808, 9223372036854775807, 1e3]", &longs));
  CHECK_EQ(longs[0], INT64_MIN);
  CHECK_EQ(longs[1], INT64_MAX);
  CHECK_EQ(longs[2], int64_t{1000});
  CHECK_EQ(Print(longs), std::string("[-9223372036854775808,9223372036854775807,1000]"));
  std::vector<uint64_t> large(1);
  CHECK_OK(Parse("[18446744073709551615]", &large));
  CHECK_EQ(large[0], UINT64_MAX);
  for (const char* text : {"[18446744073709551616]", "[-1]", "[1.5]", "[1e30]"}) {
    CHECK(!Parse(text, &large).ok());
  }
  std::vector<int8_t> small(2);
  CHECK_OK(Parse("[-128, 127.0]", &small));
  CHECK(!Parse("[-129, 0]", &small).ok());
  CHECK(!Parse("[128, 0]", &small).ok());
}

TEST(JsonIsStrictAndSaysWhere) {
  std::vector<float> two(2);
  for (const char* text : {"[1,2]", " [ 1 , 2 ] ", "[[1],[2]]", "[[1,2]]", "[[[1],[]],2]", "[1e0,2E+0]",
                           "[-0.0,2]", "[1\n,\t2]"}) {
    CHECK_OK(Parse(text, &two));
  }
  const std::pair<const char*, const char*> wrong[] = {
      {"[1,2", "data: expected a comma or ] at byte 4, got the end"},
      {"[1,,2]", "element 1 of data, ,, is no FP32 (byte 3)"},
      {"[1,2,]", "element 2 of data, ], is no FP32 (byte 5)"},
      {"[1 2]", "data: expected a comma or ] at byte 3, got 2"},
      {"[01,2]", "element 0 of data, 01, is no FP32 (byte 1)"},
      {"[1.,2]", "element 0 of data, 1., is no FP32 (byte 1)"},
      {"[.5,2]", "element 0 of data, .5, is no FP32 (byte 1)"},
      {"[+1,2]", "element 0 of data, +1, is no FP32 (byte 1)"},
      {"[1e,2]", "element 0 of data, 1e, is no FP32 (byte 1)"},
      {"[-,2]", "element 0 of data, -, is no FP32 (byte 1)"},
      {"[0x1,2]", "data: expected a comma or ] at byte 2, got x1"},
      {"[\"1\",2]", "element 0 of data, \"1\", is no FP32 (byte 1)"},
      {"[null,2]", "element 0 of data, null, is no FP32 (byte 1)"},
      {"[true,2]", "element 0 of data, true, is no FP32 (byte 1)"},
      {"[NaN,2]", "element 0 of data, NaN, is no FP32 (byte 1)"},
      {"[1,2]]", "data: expected nothing more at byte 5, got ]"},
      {"[[1,2]", "data: expected a comma or ] at byte 6, got the end"},
      {"[1,1e39]", "element 1 of data, 1e39, is no FP32 (byte 3)"},
      {"[1,2,3]", "the shape holds 2 elements, data has 3"},
      {"[1]", "the shape holds 2 elements, data has 1"},
      {"[]", "the shape holds 2 elements, data has 0"},
      {"7", "data: expected an array at byte 0, got 7"},
      {"", "data: expected an array at byte 0, got the end"},
  };
  for (const auto& [text, message] : wrong) CHECK_EQ(Parse(text, &two).message(), std::string(message));
  CHECK(Parse(std::string(101, '[') + "1,2" + std::string(101, ']'), &two).message().find("100 deep") !=
        std::string::npos);
  CHECK_OK(Parse(std::string(100, '[') + "1,2" + std::string(100, ']'), &two));
  // Too small to be told from zero is zero.
  CHECK_OK(Parse("[1e-400, -1e-400]", &two));
  CHECK(two[0] == 0 && two[1] == 0 && std::signbit(two[1]));
  const std::string small = "0." + std::string(400, '0') + "1";
  CHECK_OK(Parse("[" + small + ", -" + small + "e5]", &two));
  CHECK(two[0] == 0 && two[1] == 0);
  CHECK(!Parse("[1, " + small + "e500]", &two).ok());
  CHECK_OK(Parse("[NaN, -Infinity]", &two, NonFinite::kTokens));
  CHECK(std::isnan(two[0]) && std::isinf(two[1]) && two[1] < 0);
  CHECK_EQ(Print(two, NonFinite::kTokens), std::string("[NaN,-Infinity]"));
  CHECK_EQ(Print(two), std::string("element 0 is NaN, which JSON cannot say"));
}

TEST(JsonBoolsArePrintedWhateverTheirByte) {
  const uint8_t bytes[] = {0, 1, 2, 255};
  std::string text(JsonBound(DType::kBool, 4), ' ');
  size_t size = 0;
  CHECK_OK(PrintJsonTensor(DType::kBool, NonFinite::kRefused, bytes, 4, text.data(), &size));
  CHECK_EQ(text.substr(0, size), std::string("[false,true,true,true]"));
}

TIMING_TEST(CarvingIsLinear) {
  std::string envelope;
  std::vector<JsonSpan> spans;
  // Brackets that do not match must not cost a look at the whole text each.
  for (const std::string unit : {"[[}],", "[},", "[[[", "{\"data\":["}) {
    std::string hostile = "{\"inputs\":[";
    for (int i = 0; i < 100'000; ++i) hostile += unit;
    const int64_t start = NowNs();
    CarveJson(hostile + "1]}", JsonForm::kTensors, "M:", &envelope, &spans);
    CHECK(NowNs() - start < 1'000'000'000);
  }
}

TEST(JsonArraysAreCutOut) {
  std::string envelope;
  std::vector<JsonSpan> spans;
  const std::string text =
      R"({"id":"a\"]","inputs":[{"name":"x","data":[[1,2],[3]],"shape":[3]},)"
      R"( {"data" : ["]", "\\"] ,"name":"[s"}, {"data":7}],"data":[9],"outputs":[{"data":[8]}]})";
  CarveJson(text, JsonForm::kTensors, "M:", &envelope, &spans);
  CHECK_EQ(spans.size(), size_t{2});
  CHECK_EQ(text.substr(spans[0].begin, spans[0].end - spans[0].begin), std::string("[[1,2],[3]]"));
  CHECK_EQ(text.substr(spans[1].begin, spans[1].end - spans[1].begin), std::string(R"(["]", "\\"])"));
  CHECK_EQ(envelope, std::string(R"({"id":"a\"]","inputs":[{"name":"x","data":"M:0","shape":[3]},)"
                                 R"( {"data" : "M:1" ,"name":"[s"}, {"data":7}],"data":[9],)"
                                 R"("outputs":[{"data":[8]}]})"));
  // Whatever is cut short, is not cut out, and nothing is read past its end.
  for (size_t length = 0; length < text.size(); ++length) {
    const std::string part = text.substr(0, length);
    CarveJson(part, JsonForm::kTensors, "M:", &envelope, &spans);
    if (spans.empty()) CHECK_EQ(envelope, part);
  }
}

namespace {

// What is cut out of rows, and what is left.
std::string Rows(const std::string& text, std::vector<std::string>* cut) {
  std::string envelope;
  std::vector<JsonSpan> spans;
  CarveJson(text, JsonForm::kRows, "M:", &envelope, &spans);
  cut->clear();
  for (const JsonSpan& span : spans) cut->push_back(text.substr(span.begin, span.end - span.begin));
  return envelope;
}

std::string ShapeOf(const std::string& text) {
  std::vector<int64_t> dims;
  if (Status status = JsonShape(text, 100, &dims); !status.ok()) return status.message();
  std::string shape;
  for (const int64_t dim : dims) shape += std::to_string(dim) + " ";
  return shape;
}

std::string Nested(const std::vector<float>& values, const std::vector<int64_t>& dims) {
  std::string text(JsonNestedBound(DType::kFloat32, dims), ' ');
  size_t bytes = 0;
  CHECK_OK(
      PrintJsonNested(DType::kFloat32, NonFinite::kTokens, values.data(), dims, text.data(), &bytes));
  text.resize(bytes);
  return text;
}

}  // namespace

TEST(JsonRowsAreCutOut) {
  std::vector<std::string> cut;
  CHECK_EQ(Rows(R"({"instances": [[1, 2], [3, NaN]] , "x": [1]})", &cut),
           std::string(R"({"instances": "M:0" , "x": [1]})"));
  CHECK_EQ(cut[0], std::string("[[1, 2], [3, NaN]]"));
  CHECK_EQ(
      Rows(R"({"instances":[{"a":[1],"b":2 ,"c":"s","d":true},{"a":["s"],"b":-Infinity}]})", &cut),
      std::string(R"({"instances":[{"a":"M:0","b":"M:1" ,"c":"s","d":true},{"a":["s"],"b":"M:2"}]})"));
  CHECK_EQ(cut.size(), size_t{3});
  CHECK_EQ(cut[1], std::string("2"));
  CHECK_EQ(cut[2], std::string("-Infinity"));
  CHECK_EQ(Rows(R"({"inputs":{"a":[[1]],"b":{"b64":"eA=="}}})", &cut),
           std::string(R"({"inputs":{"a":"M:0","b":{"b64":"eA=="}}})"));
  CHECK_EQ(Rows(R"({"inputs":[1,2]})", &cut), std::string(R"({"inputs":"M:0"})"));
  CHECK_EQ(Rows(R"({"instances":["a",{"b64":"eA=="}]})", &cut),
           std::string(R"({"instances":["a",{"b64":"eA=="}]})"));
  for (const char* broken :
       {"", "{", R"({"inputs":[)", R"({"instances":[{"a":[1}]})", R"({"inputs":-)"}) {
    CHECK_EQ(Rows(broken, &cut), std::string(broken));
    CHECK(cut.empty());
  }
}

TEST(JsonShapesAreOfOneLength) {
  CHECK_EQ(ShapeOf("[1,2,3]"), std::string("3 "));
  CHECK_EQ(ShapeOf(" [ [1 , 2],[3,4],[5,6] ] "), std::string("3 2 "));
  CHECK_EQ(ShapeOf("[[[]],[[]]]"), std::string("2 1 0 "));
  CHECK_EQ(ShapeOf("[]"), std::string("0 "));
  CHECK_EQ(ShapeOf("[[1],[2,3]]"),
           std::string("a list of 2 where the others have 1, which ends at byte 109"));
  CHECK_EQ(ShapeOf("[1,[2]]"), std::string("a list where the others have numbers at byte 103"));
  CHECK_EQ(ShapeOf("[[1],2]"), std::string("a number where the others have lists at byte 105"));
  CHECK_EQ(ShapeOf("[[],1]"), std::string("a number where the others have lists at byte 104"));
  CHECK_EQ(ShapeOf("[1]]"), std::string("a bracket too many at byte 103"));
  CHECK_EQ(ShapeOf("[[1]"), std::string("a list that does not end at byte 104"));
  CHECK_EQ(ShapeOf(std::string(40, '[')),
           std::string("lists are nested more than 32 deep at byte 132"));
  CHECK_EQ(ShapeOf(""), std::string("no list at byte 100"));
  CHECK_EQ(ShapeOf("1"), std::string("a number where the others have lists at byte 100"));
}

TEST(JsonPrintsNested) {
  CHECK_EQ(Nested({1, 2.5f, -3, 0, 5, 6}, {3, 2}), std::string("[[1,2.5],[-3,0],[5,6]]"));
  CHECK_EQ(Nested({1, 2}, {2, 1, 1}), std::string("[[[1]],[[2]]]"));
  CHECK_EQ(Nested({0.1f}, {}), std::string("0.1"));
  CHECK_EQ(Nested({NAN}, {1}), std::string("[NaN]"));
  CHECK_EQ(Nested({}, {2, 0}), std::string("[[],[]]"));
  CHECK_EQ(Nested({}, {0, 2}), std::string("[]"));
}
