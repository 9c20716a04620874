#include "ort/tensor.h"

#include "check.h"

using namespace tercel;

TEST(ShapesAreCountedWithoutOverflow) {
  size_t count = 0, bytes = 0;
  const int64_t fine[] = {2, 3, 4};
  CHECK(CountElements(fine, 3, &count));
  CHECK_EQ(count, size_t{24});
  CHECK(CountBytes(DType::kFloat64, fine, 3, &bytes));
  CHECK_EQ(bytes, size_t{192});
  CHECK(CountElements(nullptr, 0, &count));
  CHECK_EQ(count, size_t{1});
  const int64_t empty[] = {0, 5};
  CHECK(CountElements(empty, 2, &count));
  CHECK_EQ(count, size_t{0});
  const int64_t empty_and_large[] = {0, INT64_MAX};
  CHECK(!CountElements(empty_and_large, 2, &count));
  const int64_t negative[] = {2, -1};
  CHECK(!CountElements(negative, 2, &count));
  const int64_t large[] = {INT64_MAX, 2};
  CHECK(!CountElements(large, 2, &count));
  const int64_t wraps[] = {int64_t{1} << 32, int64_t{1} << 32};
  CHECK(!CountElements(wraps, 2, &count));
  const int64_t bytes_wrap[] = {int64_t{1} << 52};
  CHECK(!CountBytes(DType::kFloat64, bytes_wrap, 1, &bytes));
}

TEST(TypesSayWhatTheyAre) {
  ValueInfo info;
  info.name = "x";
  info.type.kind = OnnxKind::kTensor;
  info.type.dtype = DType::kFloat32;
  info.type.has_shape = true;
  info.type.dims = {-1, -1, 784};
  info.type.symbols = {"batch", "", ""};
  CHECK_EQ(info.type.Text(), std::string("float32[batch,?,784]"));
  const int64_t good[] = {5, 6, 784};
  const int64_t bad[] = {5, 6, 783};
  CHECK_OK(CheckTensor("input", info, DType::kFloat32, good, 3));
  const Status status = CheckTensor("input", info, DType::kInt64, bad, 3);
  CHECK_EQ(status.message(),
           std::string("input \"x\": expected float32[batch,?,784], got int64[5,6,783]"));
  CHECK(status.code() == Code::kInvalidInput);
  CHECK(!CheckTensor("input", info, DType::kFloat32, good, 2).ok());
}

TEST(ShapesFollowFromInputs) {
  auto info = [](std::vector<int64_t> dims, std::vector<std::string> symbols, const char* name = "y") {
    ValueInfo value;
    value.name = name;
    value.type.kind = OnnxKind::kTensor;
    value.type.dtype = DType::kFloat32;
    value.type.has_shape = true;
    value.type.dims = std::move(dims);
    value.type.symbols = std::move(symbols);
    return value;
  };
  std::vector<ValueInfo> inputs;
  inputs.push_back(info({4}, {""}, "a"));
  inputs.push_back(info({-1, -1}, {"n", "m"}, "b"));
  const int64_t second[] = {7, 9};
  auto dims_of = [&](uint32_t i) -> const int64_t* { return i == 1 ? second : nullptr; };
  int64_t dims[kMaxRank];
  const ShapePlan plan(info({-1, 3, -1}, {"m", "", "n"}), inputs);
  CHECK(plan.known());
  CHECK(plan.Fill(dims_of, dims));
  CHECK_EQ(dims[0], int64_t{9});
  CHECK_EQ(dims[1], int64_t{3});
  CHECK_EQ(dims[2], int64_t{7});
  CHECK(!ShapePlan(info({-1}, {"k"}), inputs).known());
  CHECK(!ShapePlan(info({-1}, {""}), inputs).known());
  // An output that is an input is that one's memory.
  const ShapePlan same(info({-1, -1}, {"n", "m"}, "b"), inputs);
  CHECK(!same.known() && same.input() == 1 && plan.input() == -1);
}
