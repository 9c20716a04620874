#include "sched/bucket.h"

#include <algorithm>

#include "sched/job.h"

namespace tercel {

namespace {

// A block is one batch: larger ones gain nothing, and are held as a whole while one result of it is.
constexpr size_t kMaxBlockBytes = size_t{64} << 20;
// Blocks kept to be filled again: one fills, each lane runs one or two, JS reads the results of others.
constexpr size_t kKeptBlocks = 8;
constexpr size_t kMaxKeptBytes = kMaxBlockBytes;

size_t RoundUp(size_t bytes) { return (bytes + 63) & ~size_t{63}; }

// Bytes of one row; 0 when the tensor has no rows or cannot be laid out by rows.
size_t RowBytes(DType dtype, const int64_t* dims, size_t rank) {
  size_t bytes = 0;
  if (rank == 0 || DTypeBytes(dtype) == 0 || !CountBytes(dtype, dims + 1, rank - 1, &bytes)) return 0;
  return bytes;
}

}  // namespace

Ref<Bucket> Bucket::Make(const std::vector<ValueInfo>& input_infos,
                         const std::vector<ValueInfo>& output_infos,
                         const std::vector<ShapePlan>& plans, const std::vector<Shape>& inputs,
                         const std::vector<uint32_t>& outputs, uint32_t max_rows, bool trusts_plans) {
  Ref<Bucket> bucket(new Bucket);
  size_t bytes_of_row = 0;
  for (const Shape& shape : inputs) {
    const ValueType& type = input_infos[shape.index].type;
    const size_t row_bytes = RowBytes(shape.dtype, shape.dims, shape.rank);
    if (row_bytes == 0 || !type.has_shape || type.dims.empty() || type.dims[0] >= 0) return nullptr;
    bucket->inputs_.push_back({shape.index, input_infos[shape.index].name.c_str(), shape.dtype,
                               std::vector<int64_t>(shape.dims, shape.dims + shape.rank), row_bytes,
                               0});
    bytes_of_row += row_bytes;
  }
  bucket->has_outputs_ = bucket->trusts_plans_ = trusts_plans;
  for (const uint32_t index : outputs) {
    const ValueType& type = output_infos[index].type;
    if (type.kind != OnnxKind::kTensor || !type.has_shape || type.dims.empty() || type.dims[0] >= 0 ||
        DTypeBytes(type.dtype) == 0) {
      return nullptr;
    }
    Value value{index, output_infos[index].name.c_str(), type.dtype, {}, 0, 0};
    int64_t dims[kMaxRank];
    auto dims_of = [&](uint32_t input) -> const int64_t* {
      for (const Shape& shape : inputs) {
        if (shape.index == input) return shape.dims;
      }
      return nullptr;
    };
    // Its first dimension may be another one of an input's, and its others may grow with the rows.
    if (plans[index].known() && !plans[index].rows_first()) return nullptr;
    if (plans[index].known() && plans[index].Fill(dims_of, dims)) {
      value.dims.assign(dims, dims + plans[index].rank());
      value.row_bytes = RowBytes(type.dtype, dims, plans[index].rank());
    }
    if (value.row_bytes == 0) bucket->has_outputs_ = false;
    bytes_of_row += value.row_bytes;
    bucket->outputs_.push_back(std::move(value));
  }
  if (inputs.empty() || bytes_of_row > kMaxBlockBytes / 2) return nullptr;
  bucket->max_rows_ = max_rows;
  bucket->capacity_ = static_cast<uint32_t>(std::min<size_t>(max_rows, kMaxBlockBytes / bytes_of_row));
  auto place = [&](std::vector<Value>* values) {
    size_t offset = 0;
    for (Value& value : *values) {
      value.offset = offset;
      offset += RoundUp(value.row_bytes * bucket->capacity_);
    }
    return offset;
  };
  bucket->input_bytes_ = place(&bucket->inputs_);
  if (bucket->has_outputs_) bucket->output_bytes_ = place(&bucket->outputs_);
  bucket->open_.resize(kPriorities);
  return bucket;
}

bool Bucket::Fits(const std::vector<Shape>& inputs, const std::vector<uint32_t>& outputs) const {
  if (inputs.size() != inputs_.size() || outputs.size() != outputs_.size()) return false;
  for (size_t i = 0; i < inputs.size(); ++i) {
    const Shape& shape = inputs[i];
    const Value& value = inputs_[i];
    if (shape.index != value.index || shape.dtype != value.dtype || shape.rank != value.dims.size() ||
        !std::equal(shape.dims + 1, shape.dims + shape.rank, value.dims.begin() + 1)) {
      return false;
    }
  }
  for (size_t i = 0; i < outputs.size(); ++i) {
    if (outputs[i] != outputs_[i].index) return false;
  }
  return true;
}

Ref<RowBlock> Bucket::TakeBlock(Arena* arena) {
  Ref<RowBlock> taken;
  for (const Ref<RowBlock>& block : kept_) {
    // JS may share the outputs without the block, and the inputs where an output is one.
    if (!block->HasOneRef() || !block->inputs_->HasOneRef()) continue;
    if (!has_outputs_ || block->outputs_->HasOneRef()) return block;
    if (!taken) taken = block;
  }
  const bool is_new = !taken;
  if (is_new) {
    Ref<Lease> inputs = Lease::Take(arena, input_bytes_);
    if (!inputs) return nullptr;
    taken = Ref<RowBlock>(new RowBlock(std::move(inputs)));
  }
  if (has_outputs_) {
    Ref<Lease> outputs = Lease::Take(arena, output_bytes_);
    if (!outputs) return nullptr;
    taken->outputs_ = std::move(outputs);
  }
  const size_t kept_bytes = (kept_.size() + 1) * (input_bytes_ + output_bytes_);
  if (is_new && kept_.size() < kKeptBlocks && kept_bytes <= kMaxKeptBytes) {
    kept_.push_back(taken);
  }
  return taken;
}

Ref<RowBlock> Bucket::Reserve(Arena* arena, int priority, uint32_t rows, uint32_t* first_row) {
  Ref<RowBlock>& open = open_[static_cast<size_t>(priority)];
  if (!open || open->used_ + rows > capacity_) {
    open.reset();  // it may be free by now
    open = TakeBlock(arena);
    if (!open) return nullptr;
    open->used_ = 0;
  }
  *first_row = open->used_;
  open->used_ += rows;
  return open;
}

void Bucket::Close(const RowBlock* block) {
  for (Ref<RowBlock>& open : open_) {
    if (open.get() == block) open.reset();
  }
}

}  // namespace tercel
