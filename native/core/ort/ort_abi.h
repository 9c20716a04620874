// The part of the ONNX Runtime C ABI that Tercel calls.
//
// No registry carries ONNX Runtime's header, so the slots, signatures and enum values that we need
// are declared here. OrtApi is an append-only table of function pointers; a slot's index never
// changes. The tests make every call below but those that stand in for a newer one in libraries before
// 1.30 (GetTensorTypeAndShape and what reads its result for values).
#pragma once

#include <cstddef>
#include <cstdint>

extern "C" {

struct OrtStatus;
struct OrtEnv;
struct OrtSession;
struct OrtSessionOptions;
struct OrtRunOptions;
struct OrtValue;
struct OrtMemoryInfo;
struct OrtIoBinding;
struct OrtTypeInfo;
struct OrtTensorTypeAndShapeInfo;
struct OrtSequenceTypeInfo;
struct OrtMapTypeInfo;
struct OrtOptionalTypeInfo;
struct OrtModelMetadata;
struct OrtCUDAProviderOptionsV2;
struct OrtTensorRTProviderOptionsV2;
struct OrtEpDevice;
struct OrtHardwareDevice;
struct OrtKeyValuePairs;

struct OrtAllocator {
  uint32_t version;
  void* (*Alloc)(OrtAllocator*, size_t bytes);
  void (*Free)(OrtAllocator*, void* data);
  const OrtMemoryInfo* (*Info)(const OrtAllocator*);
  void* (*Reserve)(OrtAllocator*, size_t bytes);
  OrtStatus* (*GetStats)(const OrtAllocator*, void** out);
  void* (*AllocOnStream)(OrtAllocator*, size_t bytes, void* stream);
  OrtStatus* (*Shrink)(OrtAllocator*);
};

struct OrtApiBase {
  const void* (*GetApi)(uint32_t version);
  const char* (*GetVersionString)();
};

}  // extern "C"

namespace tercel {

// The oldest OrtApi that has every slot below but the newest one (checked by version).
inline constexpr uint32_t kOldestApi = 22;
inline constexpr uint32_t kNewestApi = 30;

enum OrtErrorCode : int { kOrtInvalidArgument = 2, kOrtEpFail = 11 };
enum OrtAllocatorType : int { kOrtDeviceAllocator = 0 };
enum OrtMemType : int { kOrtMemDefault = 0, kOrtMemCpuOutput = -1 };
enum OrtDeviceType : int { kOrtDeviceCpu = 0, kOrtDeviceGpu = 1 };
enum OrtLanguage : int { kOrtNodeJs = 6 };

enum class OnnxKind : int {
  kUnknown = 0,
  kTensor = 1,
  kSequence = 2,
  kMap = 3,
  kOpaque = 4,
  kSparse = 5,
  kOptional = 6,
};

// X(slot, name, result, arguments)
// clang-format off
#define TERCEL_ORT_CALLS(X) \
  X(0, CreateStatus, OrtStatus*, (int code, const char* message)) \
  X(1, GetErrorCode, int, (const OrtStatus*)) \
  X(2, GetErrorMessage, const char*, (const OrtStatus*)) \
  X(3, CreateEnv, OrtStatus*, (int log_level, const char* log_id, OrtEnv** out)) \
  X(6, DisableTelemetryEvents, OrtStatus*, (const OrtEnv*)) \
  X(7, CreateSession, OrtStatus*, (const OrtEnv*, const char* path, const OrtSessionOptions*, OrtSession** out)) \
  X(8, CreateSessionFromArray, OrtStatus*, (const OrtEnv*, const void* data, size_t bytes, const OrtSessionOptions*, OrtSession** out)) \
  X(9, Run, OrtStatus*, (OrtSession*, const OrtRunOptions*, const char* const* input_names, const OrtValue* const* inputs, size_t input_count, const char* const* output_names, size_t output_count, OrtValue** outputs)) \
  X(10, CreateSessionOptions, OrtStatus*, (OrtSessionOptions** out)) \
  X(11, SetOptimizedModelFilePath, OrtStatus*, (OrtSessionOptions*, const char* path)) \
  X(13, SetSessionExecutionMode, OrtStatus*, (OrtSessionOptions*, int mode)) \
  X(14, EnableProfiling, OrtStatus*, (OrtSessionOptions*, const char* prefix)) \
  X(16, EnableMemPattern, OrtStatus*, (OrtSessionOptions*)) \
  X(17, DisableMemPattern, OrtStatus*, (OrtSessionOptions*)) \
  X(18, EnableCpuMemArena, OrtStatus*, (OrtSessionOptions*)) \
  X(19, DisableCpuMemArena, OrtStatus*, (OrtSessionOptions*)) \
  X(22, SetSessionLogSeverityLevel, OrtStatus*, (OrtSessionOptions*, int level)) \
  X(23, SetSessionGraphOptimizationLevel, OrtStatus*, (OrtSessionOptions*, int level)) \
  X(24, SetIntraOpNumThreads, OrtStatus*, (OrtSessionOptions*, int threads)) \
  X(25, SetInterOpNumThreads, OrtStatus*, (OrtSessionOptions*, int threads)) \
  X(30, SessionGetInputCount, OrtStatus*, (const OrtSession*, size_t* out)) \
  X(31, SessionGetOutputCount, OrtStatus*, (const OrtSession*, size_t* out)) \
  X(33, SessionGetInputTypeInfo, OrtStatus*, (const OrtSession*, size_t index, OrtTypeInfo** out)) \
  X(34, SessionGetOutputTypeInfo, OrtStatus*, (const OrtSession*, size_t index, OrtTypeInfo** out)) \
  X(36, SessionGetInputName, OrtStatus*, (const OrtSession*, size_t index, OrtAllocator*, char** out)) \
  X(37, SessionGetOutputName, OrtStatus*, (const OrtSession*, size_t index, OrtAllocator*, char** out)) \
  X(39, CreateRunOptions, OrtStatus*, (OrtRunOptions** out)) \
  X(46, RunOptionsSetTerminate, OrtStatus*, (OrtRunOptions*)) \
  X(47, RunOptionsUnsetTerminate, OrtStatus*, (OrtRunOptions*)) \
  X(48, CreateTensorAsOrtValue, OrtStatus*, (OrtAllocator*, const int64_t* dims, size_t rank, int type, OrtValue** out)) \
  X(49, CreateTensorWithDataAsOrtValue, OrtStatus*, (const OrtMemoryInfo*, void* data, size_t bytes, const int64_t* dims, size_t rank, int type, OrtValue** out)) \
  X(51, GetTensorMutableData, OrtStatus*, (OrtValue*, void** out)) \
  X(53, GetStringTensorDataLength, OrtStatus*, (const OrtValue*, size_t* out)) \
  X(54, GetStringTensorContent, OrtStatus*, (const OrtValue*, void* out, size_t bytes, size_t* offsets, size_t count)) \
  X(55, CastTypeInfoToTensorInfo, OrtStatus*, (const OrtTypeInfo*, const OrtTensorTypeAndShapeInfo** out)) \
  X(56, GetOnnxTypeFromTypeInfo, OrtStatus*, (const OrtTypeInfo*, int* out)) \
  X(60, GetTensorElementType, OrtStatus*, (const OrtTensorTypeAndShapeInfo*, int* out)) \
  X(61, GetDimensionsCount, OrtStatus*, (const OrtTensorTypeAndShapeInfo*, size_t* out)) \
  X(62, GetDimensions, OrtStatus*, (const OrtTensorTypeAndShapeInfo*, int64_t* dims, size_t rank)) \
  X(63, GetSymbolicDimensions, OrtStatus*, (const OrtTensorTypeAndShapeInfo*, const char** names, size_t rank)) \
  X(65, GetTensorTypeAndShape, OrtStatus*, (const OrtValue*, OrtTensorTypeAndShapeInfo** out)) \
  X(67, GetValueType, OrtStatus*, (const OrtValue*, int* out)) \
  X(68, CreateMemoryInfo, OrtStatus*, (const char* name, int allocator_type, int device, int mem_type, OrtMemoryInfo** out)) \
  X(69, CreateCpuMemoryInfo, OrtStatus*, (int allocator_type, int mem_type, OrtMemoryInfo** out)) \
  X(72, MemoryInfoGetId, OrtStatus*, (const OrtMemoryInfo*, int* out)) \
  X(76, AllocatorFree, OrtStatus*, (OrtAllocator*, void* data)) \
  X(78, GetAllocatorWithDefaultOptions, OrtStatus*, (OrtAllocator** out)) \
  X(80, GetValue, OrtStatus*, (const OrtValue*, int index, OrtAllocator*, OrtValue** out)) \
  X(81, GetValueCount, OrtStatus*, (const OrtValue*, size_t* out)) \
  X(82, CreateValue, OrtStatus*, (const OrtValue* const* values, size_t count, int kind, OrtValue** out)) \
  X(93, ReleaseStatus, void, (OrtStatus*)) \
  X(94, ReleaseMemoryInfo, void, (OrtMemoryInfo*)) \
  X(95, ReleaseSession, void, (OrtSession*)) \
  X(96, ReleaseValue, void, (OrtValue*)) \
  X(97, ReleaseRunOptions, void, (OrtRunOptions*)) \
  X(98, ReleaseTypeInfo, void, (OrtTypeInfo*)) \
  X(99, ReleaseTensorTypeAndShapeInfo, void, (OrtTensorTypeAndShapeInfo*)) \
  X(100, ReleaseSessionOptions, void, (OrtSessionOptions*)) \
  X(103, CastTypeInfoToMapTypeInfo, OrtStatus*, (const OrtTypeInfo*, const OrtMapTypeInfo** out)) \
  X(104, CastTypeInfoToSequenceTypeInfo, OrtStatus*, (const OrtTypeInfo*, const OrtSequenceTypeInfo** out)) \
  X(105, GetMapKeyType, OrtStatus*, (const OrtMapTypeInfo*, int* out)) \
  X(106, GetMapValueType, OrtStatus*, (const OrtMapTypeInfo*, OrtTypeInfo** out)) \
  X(107, GetSequenceElementType, OrtStatus*, (const OrtSequenceTypeInfo*, OrtTypeInfo** out)) \
  X(110, SessionEndProfiling, OrtStatus*, (OrtSession*, OrtAllocator*, char** out)) \
  X(111, SessionGetModelMetadata, OrtStatus*, (const OrtSession*, OrtModelMetadata** out)) \
  X(112, ModelMetadataGetProducerName, OrtStatus*, (const OrtModelMetadata*, OrtAllocator*, char** out)) \
  X(113, ModelMetadataGetGraphName, OrtStatus*, (const OrtModelMetadata*, OrtAllocator*, char** out)) \
  X(115, ModelMetadataGetDescription, OrtStatus*, (const OrtModelMetadata*, OrtAllocator*, char** out)) \
  X(116, ModelMetadataLookupCustomMetadataMap, OrtStatus*, (const OrtModelMetadata*, OrtAllocator*, const char* key, char** out)) \
  X(117, ModelMetadataGetVersion, OrtStatus*, (const OrtModelMetadata*, int64_t* out)) \
  X(118, ReleaseModelMetadata, void, (OrtModelMetadata*)) \
  X(123, ModelMetadataGetCustomMetadataMapKeys, OrtStatus*, (const OrtModelMetadata*, OrtAllocator*, char*** keys, int64_t* count)) \
  X(124, AddFreeDimensionOverrideByName, OrtStatus*, (OrtSessionOptions*, const char* name, int64_t value)) \
  X(125, GetAvailableProviders, OrtStatus*, (char*** out, int* count)) \
  X(126, ReleaseAvailableProviders, OrtStatus*, (char**, int count)) \
  X(130, AddSessionConfigEntry, OrtStatus*, (OrtSessionOptions*, const char* key, const char* value)) \
  X(131, CreateAllocator, OrtStatus*, (const OrtSession*, const OrtMemoryInfo*, OrtAllocator** out)) \
  X(132, ReleaseAllocator, void, (OrtAllocator*)) \
  X(133, RunWithBinding, OrtStatus*, (OrtSession*, const OrtRunOptions*, const OrtIoBinding*)) \
  X(134, CreateIoBinding, OrtStatus*, (OrtSession*, OrtIoBinding** out)) \
  X(135, ReleaseIoBinding, void, (OrtIoBinding*)) \
  X(136, BindInput, OrtStatus*, (OrtIoBinding*, const char* name, const OrtValue*)) \
  X(137, BindOutput, OrtStatus*, (OrtIoBinding*, const char* name, const OrtValue*)) \
  X(138, BindOutputToDevice, OrtStatus*, (OrtIoBinding*, const char* name, const OrtMemoryInfo*)) \
  X(140, GetBoundOutputValues, OrtStatus*, (const OrtIoBinding*, OrtAllocator*, OrtValue*** out, size_t* count)) \
  X(145, SetLanguageProjection, OrtStatus*, (const OrtEnv*, int language)) \
  X(146, SessionGetProfilingStartTimeNs, OrtStatus*, (const OrtSession*, uint64_t* out)) \
  X(165, AddRunConfigEntry, OrtStatus*, (OrtRunOptions*, const char* key, const char* value)) \
  X(170, AppendExecutionProviderTensorRt, OrtStatus*, (OrtSessionOptions*, const OrtTensorRTProviderOptionsV2*)) \
  X(171, CreateTensorRtProviderOptions, OrtStatus*, (OrtTensorRTProviderOptionsV2** out)) \
  X(172, UpdateTensorRtProviderOptions, OrtStatus*, (OrtTensorRTProviderOptionsV2*, const char* const* keys, const char* const* values, size_t count)) \
  X(174, ReleaseTensorRtProviderOptions, void, (OrtTensorRTProviderOptionsV2*)) \
  X(176, RegisterAllocator, OrtStatus*, (OrtEnv*, OrtAllocator*)) \
  X(192, HasValue, OrtStatus*, (const OrtValue*, int* out)) \
  X(194, GetTensorMemoryInfo, OrtStatus*, (const OrtValue*, const OrtMemoryInfo** out)) \
  X(204, AppendExecutionProviderCuda, OrtStatus*, (OrtSessionOptions*, const OrtCUDAProviderOptionsV2*)) \
  X(205, CreateCudaProviderOptions, OrtStatus*, (OrtCUDAProviderOptionsV2** out)) \
  X(206, UpdateCudaProviderOptions, OrtStatus*, (OrtCUDAProviderOptionsV2*, const char* const* keys, const char* const* values, size_t count)) \
  X(208, ReleaseCudaProviderOptions, void, (OrtCUDAProviderOptionsV2*)) \
  X(216, AppendExecutionProvider, OrtStatus*, (OrtSessionOptions*, const char* name, const char* const* keys, const char* const* values, size_t count)) \
  X(225, MemoryInfoGetDeviceType, void, (const OrtMemoryInfo*, int* out)) \
  X(228, RegisterCustomOpsLibrary, OrtStatus*, (OrtSessionOptions*, const char* path)) \
  X(250, CastTypeInfoToOptionalTypeInfo, OrtStatus*, (const OrtTypeInfo*, const OrtOptionalTypeInfo** out)) \
  X(251, GetOptionalContainedTypeInfo, OrtStatus*, (const OrtOptionalTypeInfo*, OrtTypeInfo** out)) \
  X(252, GetResizedStringTensorElementBuffer, OrtStatus*, (OrtValue*, size_t index, size_t bytes, char** out)) \
  X(273, SetDeterministicCompute, OrtStatus*, (OrtSessionOptions*, bool)) \
  X(279, AddExternalInitializersFromFilesInMemory, OrtStatus*, (OrtSessionOptions*, const char* const* names, char* const* buffers, const size_t* lengths, size_t count)) \
  X(293, SessionOptionsSetLoadCancellationFlag, OrtStatus*, (OrtSessionOptions*, bool cancel)) \
  X(298, GetKeyValuePairs, void, (const OrtKeyValuePairs*, const char* const** keys, const char* const** values, size_t* count)) \
  X(301, RegisterExecutionProviderLibrary, OrtStatus*, (OrtEnv*, const char* name, const char* path)) \
  X(303, GetEpDevices, OrtStatus*, (const OrtEnv*, const OrtEpDevice* const** out, size_t* count)) \
  X(304, AppendExecutionProviderV2, OrtStatus*, (OrtSessionOptions*, OrtEnv*, const OrtEpDevice* const* devices, size_t devices_count, const char* const* keys, const char* const* values, size_t count)) \
  X(307, HardwareDeviceType, int, (const OrtHardwareDevice*)) \
  X(308, HardwareDeviceVendorId, uint32_t, (const OrtHardwareDevice*)) \
  X(309, HardwareDeviceVendor, const char*, (const OrtHardwareDevice*)) \
  X(310, HardwareDeviceDeviceId, uint32_t, (const OrtHardwareDevice*)) \
  X(312, EpDeviceEpName, const char*, (const OrtEpDevice*)) \
  X(313, EpDeviceEpVendor, const char*, (const OrtEpDevice*)) \
  X(314, EpDeviceEpMetadata, const OrtKeyValuePairs*, (const OrtEpDevice*)) \
  X(315, EpDeviceEpOptions, const OrtKeyValuePairs*, (const OrtEpDevice*)) \
  X(316, EpDeviceDevice, const OrtHardwareDevice*, (const OrtEpDevice*)) \
  X(380, SessionGetMemoryInfoForInputs, OrtStatus*, (const OrtSession*, const OrtMemoryInfo** out, size_t count)) \
  X(381, SessionGetMemoryInfoForOutputs, OrtStatus*, (const OrtSession*, const OrtMemoryInfo** out, size_t count)) \
  X(414, GetTensorElementTypeAndShapeDataReference, OrtStatus*, (const OrtValue*, int* type, const int64_t** dims, size_t* rank))
// clang-format on

// The calls, by name, read out of the library's table once.
struct OrtCalls {
#define TERCEL_DECLARE(slot, name, result, arguments) result(*name) arguments = nullptr;
  TERCEL_ORT_CALLS(TERCEL_DECLARE)
#undef TERCEL_DECLARE
};

}  // namespace tercel
