// JSON <-> tensor memory, without a JS number in between.
//
// Parsing: a body's number arrays are cut out first (CarveJson), so that what is left is small enough
// for anybody's JSON parser; each array is then read straight to where it will be used. Numbers are
// those of RFC 8259, correctly rounded to the tensor's own type (not to double first). Printing: the
// shortest digits that read back as the same number (std::to_chars).
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "ort/tensor.h"

namespace tercel {

// What a tensor's JSON may be besides finite numbers.
enum class NonFinite : uint8_t {
  kRefused,  // the Open Inference Protocol: plain JSON
  kTokens,   // TensorFlow Serving: NaN, Infinity and -Infinity
};

// Where a body has its tensors.
enum class JsonForm : uint8_t {
  kTensors,  // the Open Inference Protocol: under `data` of the objects in the array `inputs`
  kRows,     // TensorFlow Serving: `instances` and `inputs`, as they are or by name
};

// Bytes of the body, brackets included.
struct JsonSpan {
  size_t begin = 0;
  size_t end = 0;
};

// Finds the arrays of numbers where the form has tensors, and with kRows single numbers too.
// `*envelope` is the text with each of them replaced by the string "<marker>k", k being the index into
// `*spans`; the marker must be one that no client can guess. Only the way there is looked at: the
// parser of the envelope judges the rest, and where brackets do not close nothing is cut out. With
// kRows arrays that hold strings stay where they are.
void CarveJson(std::string_view text, JsonForm form, std::string_view marker, std::string* envelope,
               std::vector<JsonSpan>* spans);

// The shape of nested lists, all of one length at each depth. InvalidInput where they are not; what the
// elements are is not looked at. `offset` is where the text lies in the body.
[[nodiscard]] Status JsonShape(std::string_view text, size_t offset, std::vector<int64_t>* dims);

// Reads an array of numbers (of true and false too for bool), flat or nested in any way, into `count`
// elements at `out`. For errors: `offset` is where the text lies in the body, `datatype` what the
// protocol calls the dtype.
[[nodiscard]] Status ParseJsonTensor(std::string_view text, size_t offset, DType dtype,
                                     NonFinite policy, void* out, size_t count,
                                     std::string_view datatype);

// The most bytes that an array of so many elements takes.
size_t JsonBound(DType dtype, size_t count);
// Prints an array, flat; `out` has room for JsonBound(). InvalidInput for NaN and infinities where they
// are refused.
[[nodiscard]] Status PrintJsonTensor(DType dtype, NonFinite policy, const void* data, size_t count,
                                     char* out, size_t* bytes);

// The same nested as the shape says, by row; a scalar is a bare number.
size_t JsonNestedBound(DType dtype, const std::vector<int64_t>& dims);
[[nodiscard]] Status PrintJsonNested(DType dtype, NonFinite policy, const void* data,
                                     const std::vector<int64_t>& dims, char* out, size_t* bytes);

// Whether numbers of the dtype have a JSON form.
bool HasJsonForm(DType dtype);

}  // namespace tercel
