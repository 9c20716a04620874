#include <charconv>
#include <cmath>
#include <cstring>
#include <limits>
#include <system_error>
#include <type_traits>

#include "json/json_common.h"
#include "json/json_tensor.h"

namespace tercel {

namespace {

using json::IsDigit;
using json::IsSpace;
using json::kPowersOf10;

constexpr int kMostDepth = 100;

// 1e-22 to 1e22, of which those from 1 on are exact.
constexpr double kPowers[] = {1e-22, 1e-21, 1e-20, 1e-19, 1e-18, 1e-17, 1e-16, 1e-15, 1e-14,
                              1e-13, 1e-12, 1e-11, 1e-10, 1e-9,  1e-8,  1e-7,  1e-6,  1e-5,
                              1e-4,  1e-3,  1e-2,  1e-1,  1e0,   1e1,   1e2,   1e3,   1e4,
                              1e5,   1e6,   1e7,   1e8,   1e9,   1e10,  1e11,  1e12,  1e13,
                              1e14,  1e15,  1e16,  1e17,  1e18,  1e19,  1e20,  1e21,  1e22};
double Power(int64_t exponent) { return kPowers[exponent + 22]; }

// A number as it is written: (-1)^negative * digits * 10^exponent, unless `long_digits`.
struct Written {
  uint64_t digits = 0;
  int64_t exponent = 0;
  bool negative = false;
  bool whole = true;         // neither a fraction nor an exponent
  bool long_digits = false;  // more digits than fit
  const char* begin = nullptr;
  const char* end = nullptr;  // null where there is no number
};

// Eight digits at once, each a byte of the word, the first in the lowest: as simdjson does it.
uint64_t EightDigits(uint64_t word) {
  word = (word * 10) + (word >> 8);
  constexpr uint64_t kMask = 0x000000FF000000FF;
  return (((word & kMask) * 0x000F424000000064) + (((word >> 16) & kMask) * 0x0000271000000001)) >> 32;
}

// Digits from `at` on. Without a branch for how many of the last eight bytes are digits: that is what
// differs from number to number. For little-endian machines: all that Node runs on are.
[[gnu::always_inline]] inline const char* Digits(const char* at, const char* end, uint64_t* value) {
  while (end - at >= 8) {
    uint64_t word;
    std::memcpy(&word, at, 8);
    word ^= 0x3030303030303030;
    // The high bit of each byte that is above 9; what a carry spoils lies behind the first of them.
    const uint64_t others = ((word + 0x7676767676767676) | word) & 0x8080808080808080;
    if (others == 0) {
      *value = *value * 100'000'000 + EightDigits(word);
      at += 8;
      continue;
    }
    const int bits = __builtin_ctzll(others) - 7;  // eight for each digit
    if (bits == 0) return at;
    *value = *value * kPowersOf10[static_cast<size_t>(bits / 8)] + EightDigits(word << (64 - bits));
    return at + bits / 8;
  }
  while (at < end && IsDigit(*at)) *value = *value * 10 + static_cast<uint64_t>(*at++ - '0');
  return at;
}

// The same for a fraction. Most have 16 to 18 digits, as doubles are printed, and how many is anybody's
// guess: those take one path, without a branch for it.
[[gnu::always_inline]] inline const char* Fraction(const char* at, const char* end, uint64_t* value) {
  if (end - at >= 24) {
    uint64_t words[3];
    std::memcpy(words, at, sizeof words);
    uint64_t others[3];
    for (int i = 0; i < 3; ++i) {
      words[i] ^= 0x3030303030303030;
      others[i] = ((words[i] + 0x7676767676767676) | words[i]) & 0x8080808080808080;
    }
    if ((others[0] | others[1]) == 0 && others[2] != 0) {
      const int bits = __builtin_ctzll(others[2]) - 7;
      const uint64_t rest = (words[2] << 1) << (63 - bits);  // nothing where there are no more digits
      // What is too long for the word wraps, and is read slowly.
      const uint64_t first = *value * 100'000'000 + EightDigits(words[0]);
      *value =
          (first * 100'000'000 + EightDigits(words[1])) * kPowersOf10[static_cast<size_t>(bits / 8)] +
          EightDigits(rest);
      return at + 16 + bits / 8;
    }
  }
  return Digits(at, end, value);
}

[[gnu::always_inline]] inline Written Scan(const char* at, const char* end) {
  Written number;
  number.begin = at;
  if (at < end && *at == '-') {
    number.negative = true;
    ++at;
  }
  const char* first = at;
  if (end - at >= 2 && IsDigit(*at) && at[1] == '.') {
    number.digits = static_cast<uint64_t>(*at++ - '0');  // the usual case
  } else {
    at = Digits(at, end, &number.digits);
  }
  const auto integral = at - first;
  if (integral == 0 || (*first == '0' && integral > 1)) return number;
  int64_t count = integral;
  const char* significant = first;
  if (at < end && *at == '.') {
    number.whole = false;
    const char* fraction = ++at;
    at = Fraction(at, end, &number.digits);
    if (at == fraction) return number;
    number.exponent = fraction - at;
    count += at - fraction;
  }
  // Zeros in front do not count.
  if (count > 19) {
    for (; significant < at && (*significant == '0' || *significant == '.'); ++significant) {
      count -= *significant == '0';
    }
    number.long_digits = count > 19;
  }
  if (at < end && (*at == 'e' || *at == 'E')) {
    number.whole = false;
    ++at;
    bool minus = false;
    if (at < end && (*at == '-' || *at == '+')) minus = *at++ == '-';
    const char* digits = at;
    int64_t power = 0;
    for (; at < end && IsDigit(*at); ++at) {
      if (power < 100'000'000) power = power * 10 + (*at - '0');
    }
    if (at == digits) return number;
    number.exponent += minus ? -power : power;
  }
  number.end = at;
  return number;
}

// hi * 2^64 + lo over by; hi < by.
uint64_t Divide(uint64_t hi, uint64_t lo, uint64_t by, uint64_t* rest) {
#if defined(__x86_64__)
  uint64_t quotient;
  asm("divq %4" : "=a"(quotient), "=d"(*rest) : "a"(lo), "d"(hi), "r"(by) : "cc");
  return quotient;
#else
  const auto whole = (static_cast<unsigned __int128>(hi) << 64) | lo;
  *rest = static_cast<uint64_t>(whole % by);
  return static_cast<uint64_t>(whole / by);
#endif
}

// digits / 10^power, 0 < power < 20, rounded once: by a division of integers, whose rest says on which
// side of the middle the number lies.
template <typename T>
T Quotient(uint64_t digits, int power) {
  constexpr int kBits = std::numeric_limits<T>::digits;
  const int shift = __builtin_clzll(digits);
  const uint64_t by = kPowersOf10[static_cast<size_t>(power)];
  const int by_shift = __builtin_clzll(by);
  const uint64_t normal = digits << shift;
  uint64_t rest;
  uint64_t quotient = Divide(normal >> 1, normal << 63, by << by_shift, &rest);
  const int up = __builtin_clzll(quotient);
  quotient <<= up;
  constexpr int kDrop = 64 - kBits;
  constexpr uint64_t kHalf = uint64_t{1} << (kDrop - 1);
  uint64_t mantissa = quotient >> kDrop;
  const uint64_t dropped = quotient & (2 * kHalf - 1);
  if (dropped > kHalf || (dropped == kHalf && (rest != 0 || (mantissa & 1)))) ++mantissa;
  // Far from the ends of any range, as digits < 2^64 and power < 20: both factors and the product are
  // exact.
  const uint64_t scale_bits = static_cast<uint64_t>(1023 + kDrop - 63 + by_shift - shift - up) << 52;
  double scale;
  std::memcpy(&scale, &scale_bits, sizeof scale);
  return static_cast<T>(static_cast<double>(mantissa) * scale);
}

// False when it is beyond the type's range.
template <typename T>
bool Slowly(const Written& number, T* out) {
  const auto [end, error] = std::from_chars(number.begin, number.end, *out);
  if (error == std::errc()) return true;
  // Beyond one end of the range or the other: by where its first digit stands that is not zero.
  int64_t magnitude = number.exponent;
  for (const char* at = number.begin; at < number.end && *at != 'e' && *at != 'E'; ++at) {
    magnitude += IsDigit(*at) && (*at != '0' || magnitude != number.exponent);
  }
  if (magnitude > 0) return false;
  *out = number.negative ? -T{0} : T{0};  // too small to be told from zero
  return true;
}

// By way of double, where that is safe: digits and power are each rounded once and their product again,
// so it is off by less than 3 of the 2^29 steps that lie between two floats. Only next to the middle
// between them is that not enough.
bool ByDouble(const Written& number, float* out) {
  if (number.exponent < -22 || number.exponent > 18) return false;
  const double value = static_cast<double>(number.digits) * Power(number.exponent);
  uint64_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  if (((bits + 8 - 0x10000000) & 0x1FFFFFFF) <= 16) return false;
  *out = static_cast<float>(value);
  return true;
}
// Exact factors, rounded once.
bool ByDouble(const Written& number, double* out) {
  if (number.digits > uint64_t{1} << 53 || number.exponent < -22 || number.exponent > 22) return false;
  const auto digits = static_cast<double>(number.digits);
  *out = number.exponent < 0 ? digits / Power(-number.exponent) : digits * Power(number.exponent);
  return true;
}

template <typename T>
bool ToFloat(const Written& number, T* out) {
  if (number.long_digits) return Slowly(number, out);
  T value;
  if (number.digits == 0) {
    value = 0;
  } else if (!ByDouble(number, &value)) {
    if (number.exponent >= 0 || number.exponent < -19) return Slowly(number, out);
    value = Quotient<T>(number.digits, static_cast<int>(-number.exponent));
  }
  *out = number.negative ? -value : value;
  return true;
}

template <typename T>
bool ToInteger(const Written& number, T* out) {
  if (!number.whole) {
    double value;
    if (!ToFloat(number, &value) || std::trunc(value) != value ||
        std::abs(value) > 9007199254740991.0 ||
        value < static_cast<double>(std::numeric_limits<T>::min()) ||
        value > static_cast<double>(std::numeric_limits<T>::max())) {
      return false;
    }
    *out = static_cast<T>(value);
    return true;
  }
  if (number.long_digits) {
    const auto [end, error] = std::from_chars(number.begin, number.end, *out);
    return error == std::errc() && end == number.end;
  }
  constexpr auto kMost = static_cast<uint64_t>(std::numeric_limits<T>::max());
  if (number.negative) {
    if constexpr (std::is_unsigned_v<T>) {
      if (number.digits != 0) return false;
    } else if (number.digits > kMost + 1) {
      return false;
    }
    *out = static_cast<T>(-number.digits);
    return true;
  }
  if (number.digits > kMost) return false;
  *out = static_cast<T>(number.digits);
  return true;
}

bool Convert(const Written& number, float* out) { return ToFloat(number, out); }
bool Convert(const Written& number, double* out) { return ToFloat(number, out); }
template <typename T>
bool Convert(const Written& number, T* out) {
  return ToInteger(number, out);
}
// true, false, 1 and 0.
bool Convert(const Written& number, bool* out) {
  uint8_t value;
  if (!ToInteger(number, &value) || value > 1) return false;
  *out = value != 0;
  return true;
}

bool Word(const char** at, const char* end, std::string_view word) {
  if (static_cast<size_t>(end - *at) < word.size() || std::memcmp(*at, word.data(), word.size()) != 0) {
    return false;
  }
  *at += word.size();
  return true;
}

// What stands at `at`, for an error message.
std::string Excerpt(const char* at, const char* end) {
  if (at >= end) return "the end";
  const char* stop = at;
  while (stop < end && stop - at < 24 && *stop != ',' && *stop != ']' && *stop != '[' &&
         static_cast<unsigned char>(*stop) > ' ' && static_cast<unsigned char>(*stop) < 0x7F) {
    ++stop;
  }
  if (stop == at) ++stop;
  const auto first = static_cast<unsigned char>(*at);
  if (first < ' ' || first >= 0x7F) return "byte " + std::to_string(first);
  return std::string(at, stop);
}

template <typename T>
class TensorParser {
 public:
  TensorParser(std::string_view text, size_t offset, std::string_view datatype, NonFinite policy,
               T* out, size_t count)
      : start_(text.data()),
        end_(start_ + text.size()),
        at_(start_),
        offset_(offset),
        datatype_(datatype),
        policy_(policy),
        out_(out),
        count_(count) {}

  Status Run() {
    Space();
    if (at_ == end_ || *at_ != '[') return Wrong("an array");
    int depth = 0;
    bool value_may_be = true;  // after '[' or ','
    bool close_may_be = false;
    while (true) {
      Space();
      if (value_may_be && at_ < end_ && *at_ == '[') {
        if (++depth > kMostDepth) {
          return Status::InvalidInput("data is nested more than " + std::to_string(kMostDepth) +
                                      " deep at byte " + std::to_string(Position()));
        }
        ++at_;
        close_may_be = true;
        continue;
      }
      if (close_may_be && at_ < end_ && *at_ == ']') {
        ++at_;
        if (--depth == 0) break;
        value_may_be = false;
        // Then a comma or another bracket.
      } else if (value_may_be) {
        if (Status status = Element(); !status.ok()) return status;
        close_may_be = true;
        value_may_be = false;
      } else {
        return Wrong(close_may_be ? "a comma or ]" : "a number");
      }
      Space();
      if (at_ < end_ && *at_ == ',') {
        ++at_;
        value_may_be = true;
        close_may_be = false;
      } else {
        close_may_be = true;
      }
    }
    Space();
    if (at_ != end_) return Wrong("nothing more");
    if (elements_ != count_) {
      return Status::InvalidInput("the shape holds " + std::to_string(count_) + " elements, data has " +
                                  std::to_string(elements_));
    }
    return {};
  }

 private:
  void Space() {
    while (at_ < end_ && IsSpace(*at_)) ++at_;
  }
  size_t Position() const { return offset_ + static_cast<size_t>(at_ - start_); }
  Status Wrong(const std::string& expected) const {
    return Status::InvalidInput("data: expected " + expected + " at byte " +
                                std::to_string(Position()) + ", got " + Excerpt(at_, end_));
  }
  Status Refused() const {
    return Status::InvalidInput("element " + std::to_string(elements_) + " of data, " +
                                Excerpt(at_, end_) + ", is no " + std::string(datatype_) + " (byte " +
                                std::to_string(Position()) + ")");
  }

  Status Element() {
    T value{};
    const char* at = at_;
    const Written number = Scan(at, end_);
    if (number.end) {
      if (!Convert(number, &value)) return Refused();
      at = number.end;
    } else if (!Special(&at, &value)) {
      return Refused();
    }
    if (elements_ < count_) std::memcpy(out_ + elements_, &value, sizeof value);
    ++elements_;
    at_ = at;
    return {};
  }

  bool Special(const char** at, T* value) const {
    if constexpr (std::is_same_v<T, bool>) {
      if (Word(at, end_, "true")) {
        *value = true;
        return true;
      }
      return Word(at, end_, "false");
    } else if constexpr (std::is_floating_point_v<T>) {
      if (policy_ != NonFinite::kTokens) return false;
      if (Word(at, end_, "NaN")) {
        *value = std::numeric_limits<T>::quiet_NaN();
        return true;
      }
      const bool negative = Word(at, end_, "-");
      if (!Word(at, end_, "Infinity")) return false;
      *value = negative ? -std::numeric_limits<T>::infinity() : std::numeric_limits<T>::infinity();
      return true;
    } else {
      return false;
    }
  }

  const char* const start_;
  const char* const end_;
  const char* at_;
  const size_t offset_;
  const std::string_view datatype_;
  const NonFinite policy_;
  T* const out_;
  const size_t count_;
  size_t elements_ = 0;
};

}  // namespace

bool HasJsonForm(DType dtype) {
  return DTypeBytes(dtype) > 0 && dtype != DType::kFloat16 && dtype != DType::kBFloat16;
}

Status ParseJsonTensor(std::string_view text, size_t offset, DType dtype, NonFinite policy, void* out,
                       size_t count, std::string_view datatype) {
  if (!HasJsonForm(dtype)) return Status::InvalidInput(DTypeName(dtype) + " has no JSON form");
  return json::ForDType(dtype, [&](auto* type) {
    using T = std::remove_pointer_t<decltype(type)>;
    return TensorParser<T>(text, offset, datatype, policy, static_cast<T*>(out), count).Run();
  });
}

}  // namespace tercel
