#include "request.h"

namespace tercel::addon {

Status ReadRequest(napi_env env, const Meta& meta, const Model& model, napi_value* args,
                   size_t arg_count, Request* out) {
  const auto input_count = static_cast<size_t>(meta.data[kMetaInputs]);
  const auto output_count = static_cast<size_t>(meta.data[kMetaOutputs]);
  out->flags = static_cast<uint32_t>(meta.data[kMetaFlags]);
  out->inputs.resize(input_count);
  out->outputs.resize(output_count);
  size_t next_arg = 0;
  auto take_arg = [&]() -> napi_value {
    napi_value value = nullptr;
    if (out->flags & kPacked) {
      if (arg_count > 0) napi_get_element(env, args[0], static_cast<uint32_t>(next_arg++), &value);
      return value;
    }
    return next_arg < arg_count ? args[next_arg++] : nullptr;
  };
  // One value is cached for each input and output: the same one twice would be freed under the first.
  auto seen = [](const auto& list, const auto* last) {
    for (const auto* other = list.data(); other != last; ++other) {
      if (other->index == last->index) return true;
    }
    return false;
  };
  MetaReader reader(meta);
  for (Argument& input : out->inputs) {
    input.index = static_cast<uint32_t>(reader.NextInt());
    if (Status s = ReadShape(&reader, &input); !s.ok()) return s;
    if (input.index >= model.inputs().size() || seen(out->inputs, &input)) {
      return Status::InvalidInput("no such input, or the same one twice");
    }
    const bool raw = out->flags & kRawBytes;
    Status s = ReadTensor(env, "input", model.inputs()[input.index], take_arg(), raw, &input);
    if (!s.ok()) return s;
  }
  for (Request::Output& output : out->outputs) {
    output.index = static_cast<uint32_t>(reader.NextInt());
    output.given = reader.NextInt() != 0;
    output.predicted = false;
    if (output.index >= model.outputs().size() || seen(out->outputs, &output)) {
      return Status::InvalidInput("no such output, or the same one twice");
    }
    if (!output.given) continue;
    const ValueInfo& info = model.outputs()[output.index];
    if (Status s = ReadShape(&reader, &output.argument); !s.ok()) return s;
    if (!output.argument.is_numbers()) {
      return Status::InvalidInput("output \"" + info.name + "\": only tensors of numbers can be given");
    }
    Status s = ReadTensor(env, "output", info, take_arg(), false, &output.argument);
    if (!s.ok()) return s;
  }
  return {};
}

}  // namespace tercel::addon
