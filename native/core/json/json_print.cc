#include <array>
#include <charconv>
#include <cmath>
#include <cstring>
#include <type_traits>

#include "json/json_common.h"
#include "json/json_tensor.h"

namespace tercel {

namespace {

using json::kPowersOf10;

// The shortest decimal that reads back as the same float: Raffaello Giulietti's Schubfach, after
// Alexander Bolz's Drachennest. A third of the time of std::to_chars.
struct Decimal {
  uint32_t digits;
  int32_t exponent;
};

constexpr int32_t kLeastPower = -31;
constexpr int32_t kMostPower = 45;

// 10^k as 64 bits with the highest set, rounded up.
constexpr uint64_t TopBitsOfPower(int32_t k) {
  unsigned __int128 power = 1;  // of 5, or of 10 below
  if (k >= 0) {
    for (int32_t i = 0; i < k; ++i) power *= 5;
    int bits = 0;
    for (auto rest = power; rest != 0; rest >>= 1) ++bits;
    if (bits <= 64) return static_cast<uint64_t>(power) << (64 - bits);
    const auto top = static_cast<uint64_t>(power >> (bits - 64));
    return top + ((power & ((static_cast<unsigned __int128>(1) << (bits - 64)) - 1)) != 0);
  }
  for (int32_t i = 0; i < -k; ++i) power *= 10;
  // 2^n / 10^-k by long division, until the quotient has 64 bits; it never comes out even.
  unsigned __int128 rest = 1;
  uint64_t quotient = 0;
  while ((quotient >> 63) == 0) {
    rest <<= 1;
    quotient <<= 1;
    if (rest >= power) {
      rest -= power;
      quotient |= 1;
    }
  }
  return quotient + 1;
}

constexpr auto kTopBits = [] {
  std::array<uint64_t, kMostPower - kLeastPower + 1> all{};
  for (int32_t k = kLeastPower; k <= kMostPower; ++k) {
    all[static_cast<size_t>(k - kLeastPower)] = TopBitsOfPower(k);
  }
  return all;
}();

uint32_t RoundToOdd(uint64_t power, uint32_t factor) {
  const auto product = static_cast<unsigned __int128>(power) * factor;
  const auto high = static_cast<uint32_t>(product >> 64);
  const auto low = static_cast<uint32_t>(static_cast<uint64_t>(product) >> 32);
  return high | (low > 1);
}

// REQUIRES: finite, not zero; the sign is ignored.
Decimal Shortest(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  const uint32_t fraction = bits & 0x7FFFFF;
  const auto biased = static_cast<int32_t>((bits >> 23) & 0xFF);
  const uint32_t c = biased ? fraction | 0x800000 : fraction;
  const int32_t q = (biased ? biased : 1) - 150;
  const uint32_t odd = c & 1;  // the ends of the interval belong to it when even
  const bool closer_below = fraction == 0 && biased > 1;
  const int32_t k = (q * 1262611 - (closer_below ? 524031 : 0)) >> 22;
  const int32_t h = q + ((-k * 1741647) >> 19) + 1;
  const uint64_t power = kTopBits[static_cast<size_t>(-k - kLeastPower)];
  const uint32_t low = RoundToOdd(power, (4 * c - 2 + closer_below) << h) + odd;
  const uint32_t middle = RoundToOdd(power, (4 * c) << h);
  const uint32_t high = RoundToOdd(power, (4 * c + 2) << h) - odd;
  const uint32_t s = middle / 4;
  if (s >= 10) {
    const uint32_t tens = s / 10;
    const bool under = low <= 40 * tens;
    const bool over = 40 * tens + 40 <= high;
    if (under != over) return {tens + over, k + 1};
  }
  const bool under = low <= 4 * s;
  const bool over = 4 * s + 4 <= high;
  if (under != over) return {s + over, k};
  const uint32_t half = 4 * s + 2;
  return {s + (middle > half || (middle == half && (s & 1))), k};
}

// Eight digits as bytes, values not characters, the first in the lowest.
uint64_t BytesOfDigits(uint32_t value) {
  uint64_t word = value / 10'000 | static_cast<uint64_t>(value % 10'000) << 32;
  const uint64_t hundreds = ((word * 10486) >> 20) & 0x0000007F0000007F;
  word = hundreds | (word - hundreds * 100) << 16;
  const uint64_t tens = ((word * 103) >> 10) & 0x000F000F000F000F;
  return tens | (word - tens * 10) << 8;
}

// Full up to nine digits in front of the point and three zeros behind it, else with an exponent.
// Without a branch for how many digits there are: that is what differs from number to number. Writes up
// to 24 bytes beyond the end.
char* PrintDecimal(Decimal decimal, char* out) {
  const uint32_t first = decimal.digits / 100'000'000;  // of nine
  const uint64_t others = BytesOfDigits(decimal.digits % 100'000'000);
  char text[32];  // right-aligned in the first half
  std::memset(text, '0', sizeof text);
  text[7] = static_cast<char>('0' + first);
  const uint64_t characters = others | 0x3030303030303030;
  std::memcpy(text + 8, &characters, 8);
  const int32_t guess = ((32 - __builtin_clz(decimal.digits)) * 1233) >> 12;
  const int32_t all = guess + (decimal.digits >= kPowersOf10[static_cast<size_t>(guess)]);
  const int32_t point = all + decimal.exponent;  // digits in front of it
  const int32_t zeros = others ? __builtin_clzll(others) / 8 : 8;
  const int32_t count = all - zeros;
  const char* digits = text + 16 - all;
  if (point > 0 && point <= 9) {
    std::memcpy(out, digits, 16);  // zeros behind them, where there are more in front of the point
    if (count <= point) return out + point;
    out[point] = '.';
    std::memcpy(out + point + 1, digits + point, 16);
    return out + count + 1;
  }
  if (point <= 0 && point > -4) {
    std::memcpy(out, "0.000000", 8);
    out += 2 - point;
    std::memcpy(out, digits, 16);
    return out + count;
  }
  out[0] = digits[0];
  out[1] = '.';
  std::memcpy(out + 2, digits + 1, 16);
  out += count > 1 ? count + 1 : 1;
  *out++ = 'e';
  return std::to_chars(out, out + 8, point - 1).ptr;
}

char* PrintFraction(float value, char* out) {
  if (std::signbit(value)) *out++ = '-';
  if (value == 0) {
    *out++ = '0';
    return out;
  }
  return PrintDecimal(Shortest(value), out);
}
char* PrintFraction(double value, char* out) { return std::to_chars(out, out + 32, value).ptr; }

template <typename T>
char* PrintNumber(T value, char* out) {
  if constexpr (std::is_floating_point_v<T>) {
    // Whole numbers as JavaScript prints them, and quickly.
    const auto whole = static_cast<int32_t>(value > -1e6 && value < 1e6 ? value : T{0});
    if (static_cast<T>(whole) == value && (whole != 0 || !std::signbit(value))) {
      return std::to_chars(out, out + 16, whole).ptr;
    }
    return PrintFraction(value, out);
  } else {
    return std::to_chars(out, out + 32, value).ptr;
  }
}

char* PrintWord(std::string_view word, char* out) {
  std::memcpy(out, word.data(), word.size());
  return out + word.size();
}

template <typename T>
Status Print(NonFinite policy, const T* data, size_t count, char* out, size_t* bytes) {
  char* at = out;
  *at++ = '[';
  for (size_t i = 0; i < count; ++i) {
    if (i > 0) *at++ = ',';
    if constexpr (std::is_same_v<T, bool>) {
      uint8_t byte;  // a model may leave any
      std::memcpy(&byte, data + i, 1);
      at = PrintWord(byte ? "true" : "false", at);
    } else {
      T value;
      std::memcpy(&value, data + i, sizeof value);
      if constexpr (std::is_floating_point_v<T>) {
        if (!std::isfinite(value)) {
          const std::string_view word = std::isnan(value) ? "NaN"
                                        : value < 0       ? "-Infinity"
                                                          : "Infinity";
          if (policy == NonFinite::kRefused) {
            return Status::InvalidInput("element " + std::to_string(i) + " is " + std::string(word) +
                                        ", which JSON cannot say");
          }
          at = PrintWord(word, at);
          continue;
        }
      }
      at = PrintNumber(value, at);
    }
  }
  *at++ = ']';
  *bytes = static_cast<size_t>(at - out);
  return {};
}

}  // namespace

size_t JsonBound(DType dtype, size_t count) {
  // The longest: -1.17549435e-38, -2.2250738585072014e-308, -9223372036854775808, and a comma.
  const size_t longest = dtype == DType::kFloat32 ? 16 : dtype == DType::kFloat64 ? 25 : 21;
  return 2 + longest * count + 32;
}

Status PrintJsonTensor(DType dtype, NonFinite policy, const void* data, size_t count, char* out,
                       size_t* bytes) {
  if (!HasJsonForm(dtype)) return Status::InvalidInput(DTypeName(dtype) + " has no JSON form");
  return json::ForDType(dtype, [&](auto* type) {
    using T = std::remove_pointer_t<decltype(type)>;
    return Print(policy, static_cast<const T*>(data), count, out, bytes);
  });
}

size_t JsonNestedBound(DType dtype, const std::vector<int64_t>& dims) {
  // Two brackets and a comma for each list.
  size_t lists = 1;
  size_t all = 1;
  for (const int64_t dim : dims) {
    lists *= static_cast<size_t>(dim);
    all += lists;
  }
  return JsonBound(dtype, lists) + 3 * all;
}

namespace {

// Lists from `axis` on; `*data` moves on by what was printed.
template <typename T>
Status PrintLists(NonFinite policy, const T** data, const std::vector<int64_t>& dims, size_t axis,
                  char** at) {
  const auto count = static_cast<size_t>(dims[axis]);
  if (axis + 1 == dims.size()) {
    size_t bytes = 0;
    Status status = Print(policy, *data, count, *at, &bytes);
    *data += count;
    *at += bytes;
    return status;
  }
  *(*at)++ = '[';
  for (size_t i = 0; i < count; ++i) {
    if (i > 0) *(*at)++ = ',';
    if (Status status = PrintLists(policy, data, dims, axis + 1, at); !status.ok()) return status;
  }
  *(*at)++ = ']';
  return {};
}

}  // namespace

Status PrintJsonNested(DType dtype, NonFinite policy, const void* data,
                       const std::vector<int64_t>& dims, char* out, size_t* bytes) {
  if (!HasJsonForm(dtype)) return Status::InvalidInput(DTypeName(dtype) + " has no JSON form");
  return json::ForDType(dtype, [&](auto* type) {
    using T = std::remove_pointer_t<decltype(type)>;
    const T* from = static_cast<const T*>(data);
    if (dims.empty()) {
      size_t printed = 0;
      if (Status status = Print(policy, from, 1, out, &printed); !status.ok()) return status;
      std::memmove(out, out + 1, printed - 2);  // without its brackets
      *bytes = printed - 2;
      return Status();
    }
    char* at = out;
    Status status = PrintLists(policy, &from, dims, 0, &at);
    *bytes = static_cast<size_t>(at - out);
    return status;
  });
}

}  // namespace tercel
