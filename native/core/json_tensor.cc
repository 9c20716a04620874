#include "json_tensor.h"

#include <array>
#include <charconv>
#include <cmath>
#include <cstring>
#include <limits>
#include <system_error>
#include <type_traits>

namespace tercel {

namespace {

constexpr int kMostDepth = 100;

bool IsSpace(char c) { return c == ' ' || c == '\n' || c == '\r' || c == '\t'; }
bool IsDigit(char c) { return static_cast<unsigned char>(c - '0') < 10; }

// ---- Cutting out ----

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

// ---- Numbers ----

constexpr std::array<uint64_t, 20> kPowersOf10 = [] {
  std::array<uint64_t, 20> powers{};
  uint64_t power = 1;
  for (uint64_t& one : powers) {
    one = power;
    power *= 10;
  }
  return powers;
}();
constexpr double kExactPowers[] = {1e0,  1e1,  1e2,  1e3,  1e4,  1e5,  1e6,  1e7,
                                   1e8,  1e9,  1e10, 1e11, 1e12, 1e13, 1e14, 1e15,
                                   1e16, 1e17, 1e18, 1e19, 1e20, 1e21, 1e22};

// 1e-22 to 1e18.
constexpr double kNearPowers[] = {
    1e-22, 1e-21, 1e-20, 1e-19, 1e-18, 1e-17, 1e-16, 1e-15, 1e-14, 1e-13, 1e-12, 1e-11, 1e-10, 1e-9,
    1e-8,  1e-7,  1e-6,  1e-5,  1e-4,  1e-3,  1e-2,  1e-1,  1e0,   1e1,   1e2,   1e3,   1e4,   1e5,
    1e6,   1e7,   1e8,   1e9,   1e10,  1e11,  1e12,  1e13,  1e14,  1e15,  1e16,  1e17,  1e18};

// A number as it is written: (-1)^negative * digits * 10^exponent, unless `long_digits`.
struct Written {
  uint64_t digits = 0;
  int64_t exponent = 0;
  bool negative = false;
  bool whole = true;         // neither a fraction nor an exponent
  bool long_digits = false;  // more digits than fit
  int64_t magnitude = 0;     // about the exponent of its first digit
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
  number.magnitude = integral;
  int64_t count = integral;
  const char* significant = first;
  if (at < end && *at == '.') {
    number.whole = false;
    const char* fraction = ++at;
    at = Digits(at, end, &number.digits);
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
    number.magnitude += minus ? -power : power;
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
  // Beyond one end of the range or the other: by where the first digit stands that is not zero.
  int64_t magnitude = number.magnitude;
  const char* at = number.begin + number.negative;
  if (at < number.end && *at == '0') {
    --magnitude;
    for (at += 2; at < number.end && *at == '0'; ++at) --magnitude;
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
  const double value = static_cast<double>(number.digits) * kNearPowers[number.exponent + 22];
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
  *out = number.exponent < 0 ? digits / kExactPowers[-number.exponent]
                             : digits * kExactPowers[number.exponent];
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

// ---- Printing ----

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

template <typename T>
Status Print(NonFinite policy, const T* data, size_t count, char* out, size_t* bytes) {
  char* at = out;
  *at++ = '[';
  for (size_t i = 0; i < count; ++i) {
    if (i > 0) *at++ = ',';
    if constexpr (std::is_same_v<T, bool>) {
      uint8_t byte;  // a model may leave any
      std::memcpy(&byte, data + i, 1);
      const std::string_view word = byte ? "true" : "false";
      std::memcpy(at, word.data(), word.size());
      at += word.size();
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
          std::memcpy(at, word.data(), word.size());
          at += word.size();
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

// Calls `use` with a null pointer of the dtype's C++ type.
template <typename Use>
auto ForDType(DType dtype, Use use) {
  switch (dtype) {
    case DType::kFloat32:
      return use(static_cast<float*>(nullptr));
    case DType::kFloat64:
      return use(static_cast<double*>(nullptr));
    case DType::kInt8:
      return use(static_cast<int8_t*>(nullptr));
    case DType::kInt16:
      return use(static_cast<int16_t*>(nullptr));
    case DType::kInt32:
      return use(static_cast<int32_t*>(nullptr));
    case DType::kInt64:
      return use(static_cast<int64_t*>(nullptr));
    case DType::kUint8:
      return use(static_cast<uint8_t*>(nullptr));
    case DType::kUint16:
      return use(static_cast<uint16_t*>(nullptr));
    case DType::kUint32:
      return use(static_cast<uint32_t*>(nullptr));
    case DType::kUint64:
      return use(static_cast<uint64_t*>(nullptr));
    default:
      return use(static_cast<bool*>(nullptr));
  }
}

}  // namespace

bool HasJsonForm(DType dtype) {
  return DTypeBytes(dtype) > 0 && dtype != DType::kFloat16 && dtype != DType::kBFloat16;
}

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

Status ParseJsonTensor(std::string_view text, size_t offset, DType dtype, NonFinite policy, void* out,
                       size_t count, std::string_view datatype) {
  if (!HasJsonForm(dtype)) return Status::InvalidInput(DTypeName(dtype) + " has no JSON form");
  return ForDType(dtype, [&](auto* type) {
    using T = std::remove_pointer_t<decltype(type)>;
    return TensorParser<T>(text, offset, datatype, policy, static_cast<T*>(out), count).Run();
  });
}

size_t JsonBound(DType dtype, size_t count) {
  // The longest: -1.17549435e-38, -2.2250738585072014e-308, -9223372036854775808, and a comma.
  const size_t longest = dtype == DType::kFloat32 ? 16 : dtype == DType::kFloat64 ? 25 : 21;
  return 2 + longest * count + 32;
}

Status PrintJsonTensor(DType dtype, NonFinite policy, const void* data, size_t count, char* out,
                       size_t* bytes) {
  if (!HasJsonForm(dtype)) return Status::InvalidInput(DTypeName(dtype) + " has no JSON form");
  return ForDType(dtype, [&](auto* type) {
    using T = std::remove_pointer_t<decltype(type)>;
    return Print(policy, static_cast<const T*>(data), count, out, bytes);
  });
}

}  // namespace tercel
