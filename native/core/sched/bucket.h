// Bucket: requests of a model that may share a batch, and the memory in which their rows lie.
//
//   block    inputs (one lease)                  outputs (another)
//            +---------+---------+---------+---  +--------+--------+--------+---
//            | row 0   | row 1   | row 2   | ... | row 0  | row 1  | row 2  | ...
//            +---------+---------+---------+---  +--------+--------+--------+---
//             \__ request 1 ____/ \_ request 2    \__ request 1 __/ \_ request 2
//
// A request is copied into its rows once, by the thread that brings it; a batch is a range of rows, run
// where it lies, and each request's result is the same range of the outputs. Results that somebody
// keeps hold the outputs alone: inputs may be a thousand times as large, and are filled again.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "base/ref.h"
#include "memory/arena.h"
#include "ort/tensor.h"

namespace tercel {

// Room for rows of one bucket. Whoever holds a Ref keeps the memory: the bucket while it fills, the
// jobs whose rows lie in it, the results that point into it.
class RowBlock : public RefCounted<RowBlock> {
 public:
  const Ref<Lease>& inputs() const { return inputs_; }
  // Null where ONNX Runtime allocates the outputs.
  const Ref<Lease>& outputs() const { return outputs_; }

 private:
  friend class RefCounted<RowBlock>;
  friend class Bucket;
  explicit RowBlock(Ref<Lease> inputs) : inputs_(std::move(inputs)) {}
  ~RowBlock() = default;

  const Ref<Lease> inputs_;
  Ref<Lease> outputs_;  // constant while anyone but the bucket holds the block
  uint32_t used_ = 0;   // rows given away; protected by the scheduler's mutex
};

// Constant after Make but for what is marked.
class Bucket : public RefCounted<Bucket> {
 public:
  // An input of one request; dims[0] is its rows.
  struct Shape {
    uint32_t index;  // in the model's inputs
    DType dtype;
    const int64_t* dims;
    size_t rank;
  };
  struct Value {
    uint32_t index;  // in the model's inputs or outputs
    const char* name;
    DType dtype;
    std::vector<int64_t> dims;  // dims[0] stands for the rows
    size_t row_bytes;
    size_t offset;  // of row 0 in a block's inputs, or outputs
  };

  // Null when requests like this cannot share a batch: an input or output has no row dimension, is no
  // tensor of numbers, or two rows are more than a block may be. The infos and plans belong to the
  // model and outlive the bucket. A block holds at most `max_rows`, and outputs only where the plans
  // are trusted.
  static Ref<Bucket> Make(const std::vector<ValueInfo>& input_infos,
                          const std::vector<ValueInfo>& output_infos,
                          const std::vector<ShapePlan>& plans, const std::vector<Shape>& inputs,
                          const std::vector<uint32_t>& outputs, uint32_t max_rows, bool trusts_plans);

  const std::vector<Value>& inputs() const { return inputs_; }
  const std::vector<Value>& outputs() const { return outputs_; }
  // Whether blocks have room for the outputs: their shapes follow from the inputs'.
  bool has_outputs() const { return has_outputs_; }
  uint32_t capacity() const { return capacity_; }
  // As given to Make.
  uint32_t max_rows() const { return max_rows_; }
  bool trusts_plans() const { return trusts_plans_; }

  // Whether a request of these inputs and outputs belongs here, whatever its rows.
  bool Fits(const std::vector<Shape>& inputs, const std::vector<uint32_t>& outputs) const;

  // Where a row of one of inputs() lies in a block of this bucket.
  static uint8_t* InputAt(const RowBlock& block, const Value& value, uint32_t row) {
    return block.inputs_->data() + value.offset + value.row_bytes * row;
  }
  // The same of outputs(). REQUIRES: has_outputs().
  static uint8_t* OutputAt(const RowBlock& block, const Value& value, uint32_t row) {
    return block.outputs_->data() + value.offset + value.row_bytes * row;
  }

  // `rows` consecutive rows in the block that fills with requests of this priority (from 0), or in a
  // fresh one. Null when the arena is full. REQUIRES: rows <= capacity; the scheduler's mutex held.
  Ref<RowBlock> Reserve(Arena* arena, int priority, uint32_t rows, uint32_t* first_row);
  // What comes next begins a fresh block, at its first row. REQUIRES: the scheduler's mutex held.
  void Close(const RowBlock* block);

  // Protected by the scheduler's mutex: rows of queued jobs whose data is there.
  uint32_t ready_rows = 0;

 private:
  friend class RefCounted<Bucket>;
  Bucket() = default;
  ~Bucket() = default;
  // A block that nobody fills, runs or reads; null when the arena is full.
  Ref<RowBlock> TakeBlock(Arena* arena);

  std::vector<Value> inputs_;
  std::vector<Value> outputs_;
  bool has_outputs_ = false;
  bool trusts_plans_ = false;
  uint32_t max_rows_ = 0;
  uint32_t capacity_ = 0;
  size_t input_bytes_ = 0;  // of a block
  size_t output_bytes_ = 0;
  // Protected by the scheduler's mutex.
  std::vector<Ref<RowBlock>> open_;  // by priority; null where none fills
  std::vector<Ref<RowBlock>> kept_;  // to be filled again once nobody else holds them
};

}  // namespace tercel
