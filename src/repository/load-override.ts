// What a configuration that came in a load call may say: who may load a model may not run, read or write what
// else lies on this machine, nor hand native code an address.
import { InvalidInputError } from '../errors.js';
import type { ModelOptions } from '../types/model-options.js';

/**
 * Options of providers that are numbers, switches or names of the provider's own. Others are files, libraries,
 * pointers written as numbers, or not known here.
 */
const PROVIDER_OPTIONS = new Set([
  'device_id',
  'gpu_mem_limit',
  'arena_extend_strategy',
  'cudnn_conv_algo_search',
  'cudnn_conv_use_max_workspace',
  'cudnn_conv1d_pad_to_nc1d',
  'do_copy_in_default_stream',
  'enable_cuda_graph',
  'prefer_nhwc',
  'use_tf32',
  'fuse_conv_bias',
  'sdpa_kernel',
  'use_ep_level_unified_stream',
  'enable_skip_layer_norm_strict_mode',
  'trt_max_workspace_size',
  'trt_max_partition_iterations',
  'trt_min_subgraph_size',
  'trt_fp16_enable',
  'trt_bf16_enable',
  'trt_int8_enable',
  'trt_dla_enable',
  'trt_dla_core',
  'trt_layer_norm_fp32_fallback',
  'trt_build_heuristics_enable',
  'trt_sparsity_enable',
  'trt_builder_optimization_level',
  'trt_auxiliary_streams',
  'trt_context_memory_sharing_enable',
  'trt_force_sequential_engine_build',
  'trt_profile_min_shapes',
  'trt_profile_opt_shapes',
  'trt_profile_max_shapes',
]);

/** Session config entries, by name or by what they begin with. */
const CONFIG_ENTRIES =
  /^(session\.(in(tra|ter)_op\.\w+|dynamic_block_base|set_denormal_as_zero|disable_prepacking|disable_quant_qdq|enable_quant_qdq_cleanup|qdq_\w+|disable_double_qdq_remover|disable_aot_function_inlining|strict_shape_type_inference|use_device_allocator_for_initializers|force_spinning_stop|use_env_allocators)|optimization\.(enable|disable)_\w+|mlas\.\w+)$/;

/** @throws InvalidInputError naming what cannot be given */
export function checkLoadOverride(name: string, options: ModelOptions): void {
  const refuse = (what: string): never => {
    throw new InvalidInputError(
      `config of model "${name}": ${what} cannot be given in a load call`,
    );
  };
  if (options.customOpLibraries) refuse('customOpLibraries');
  if (options.gpu?.engineCache) refuse('gpu.engineCache');
  const entry = Object.keys(options.config ?? {}).find((key) => !CONFIG_ENTRIES.test(key));
  if (entry !== undefined) refuse(`config entry "${entry}"`);
  for (const provider of options.providers ?? []) {
    if (typeof provider === 'string') continue;
    if (provider.library !== undefined) refuse(`the library of provider "${provider.name}"`);
    const option = Object.keys(provider.options ?? {}).find((key) => !PROVIDER_OPTIONS.has(key));
    if (option !== undefined) refuse(`option "${option}" of provider "${provider.name}"`);
  }
}
