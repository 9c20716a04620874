// Element types, shape arithmetic, and what a model says of its inputs and outputs.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "base/status.h"
#include "ort/ort_abi.h"

namespace tercel {

// ONNX element types; the values are those of TensorProto.DataType and of ONNX Runtime.
enum class DType : int {
  kUndefined = 0,
  kFloat32 = 1,
  kUint8 = 2,
  kInt8 = 3,
  kUint16 = 4,
  kInt16 = 5,
  kInt32 = 6,
  kInt64 = 7,
  kString = 8,
  kBool = 9,
  kFloat16 = 10,
  kFloat64 = 11,
  kUint32 = 12,
  kUint64 = 13,
  kBFloat16 = 16,
};

// The name used in JavaScript ("float32", "bool", ...), or "onnx type N" for one we do not carry.
std::string DTypeName(DType dtype);
// What the Open Inference Protocol calls it ("FP32", "BOOL", ...); "" for one we do not carry.
const char* OipDatatype(DType dtype);
// Bytes of one element; 0 for strings and for types that we do not carry.
size_t DTypeBytes(DType dtype);

inline constexpr size_t kMaxRank = 32;

using Dims = std::vector<int64_t>;

// Elements of a shape. False if a dimension is negative or the product does not fit 2^53.
bool CountElements(const int64_t* dims, size_t rank, size_t* out);
// Bytes of a shape. False as above, or if the bytes do not fit.
bool CountBytes(DType dtype, const int64_t* dims, size_t rank, size_t* out);
// "[1,3,224,224]"
std::string ShapeText(const int64_t* dims, size_t rank);

// The declared type of an input or output.
struct ValueType {
  OnnxKind kind = OnnxKind::kUnknown;
  // Tensors.
  DType dtype = DType::kUndefined;
  bool has_shape = false;
  std::vector<int64_t> dims;         // -1 where the dimension is dynamic
  std::vector<std::string> symbols;  // its name there, "" where it has none
  // Sequences, optionals and map values.
  std::unique_ptr<ValueType> element;
  // Maps.
  DType key = DType::kUndefined;

  // "float32[batch,784]", "sequence(float32[...])"
  std::string Text() const;
};

struct ValueInfo {
  std::string name;
  ValueType type;
};

// How an output's shape follows from the inputs': each dimension is fixed, or named as one of an
// input's. Not known of an output that is an input. A model may declare it wrongly: the run is what
// decides.
class ShapePlan {
 public:
  ShapePlan() = default;
  ShapePlan(const ValueInfo& output, const std::vector<ValueInfo>& inputs);

  bool known() const { return known_; }
  // The input that the output is, or -1. ONNX Runtime hands out the input's own value then, and writes
  // nothing to memory that was made for the output.
  int input() const { return input_; }
  // Whether the first dimension is an input's first, and no other is. REQUIRES: known.
  bool rows_first() const {
    for (size_t i = 0; i < steps_.size(); ++i) {
      const bool is_rows = steps_[i].fixed < 0 && steps_[i].axis == 0;
      if (is_rows != (i == 0)) return false;
    }
    return !steps_.empty();
  }
  size_t rank() const { return steps_.size(); }
  // `input_dims(index)` gives the dimensions of an input of this run, or null. False when one is
  // missing. REQUIRES: known; `dims` holds kMaxRank.
  template <typename InputDims>
  bool Fill(const InputDims& input_dims, int64_t* dims) const {
    for (size_t i = 0; i < steps_.size(); ++i) {
      dims[i] = steps_[i].fixed;
      if (dims[i] >= 0) continue;
      const int64_t* input = input_dims(steps_[i].input);
      if (!input) return false;
      dims[i] = input[steps_[i].axis];
    }
    return true;
  }

 private:
  struct Step {
    int64_t fixed;  // or -1: dimension `axis` of input `input`
    uint32_t input;
    uint32_t axis;
  };
  bool known_ = false;
  int input_ = -1;
  std::vector<Step> steps_;
};

// Whether a tensor of this dtype and shape may be fed to (or received from) `info`.
// `role` is "input" or "output". The message names what was expected and what came.
Status CheckTensor(const char* role, const ValueInfo& info, DType dtype, const int64_t* dims,
                   size_t rank);

}  // namespace tercel
