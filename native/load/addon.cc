// The load generator as an addon of its own: only src/measure/load/native-load.ts loads it, so that the
// server's addon does not carry it. Raw Node-API, as an environment may end while a load runs.
#include <node_api.h>

#include <cstring>
#include <memory>
#include <string>
#include <system_error>
#include <thread>
#include <vector>

#include "load/http_load.h"

namespace tercel {

namespace {

napi_value Property(napi_env env, napi_value object, const char* name) {
  napi_value value = nullptr;
  napi_get_named_property(env, object, name, &value);
  return value;
}

// 0 for what is not a number.
double Number(napi_env env, napi_value object, const char* name) {
  double number = 0;
  napi_get_value_double(env, Property(env, object, name), &number);
  return number;
}

int64_t Integer(napi_env env, napi_value object, const char* name) {
  int64_t number = 0;
  napi_get_value_int64(env, Property(env, object, name), &number);
  return number;
}

bool Flag(napi_env env, napi_value object, const char* name) {
  bool flag = false;
  napi_get_value_bool(env, Property(env, object, name), &flag);
  return flag;
}

std::string Text(napi_env env, napi_value object, const char* name) {
  const napi_value value = Property(env, object, name);
  size_t length = 0;
  if (napi_get_value_string_utf8(env, value, nullptr, 0, &length) != napi_ok) return {};
  std::string text(length, '\0');
  napi_get_value_string_utf8(env, value, text.data(), length + 1, &length);
  return text;
}

// The elements of an array of typed arrays, copied.
std::vector<std::string> Texts(napi_env env, napi_value array) {
  uint32_t count = 0;
  if (napi_get_array_length(env, array, &count) != napi_ok) return {};
  std::vector<std::string> texts;
  for (uint32_t i = 0; i < count; ++i) {
    napi_value element = nullptr;
    void* data = nullptr;
    size_t bytes = 0;
    if (napi_get_element(env, array, i, &element) != napi_ok ||
        napi_get_typedarray_info(env, element, nullptr, &bytes, &data, nullptr, nullptr) != napi_ok) {
      return {};
    }
    texts.emplace_back(static_cast<const char*>(data), bytes);
  }
  return texts;
}

// A typed array of 32-bit numbers with at least `count` elements; null otherwise.
template <typename T>
T* Words(napi_env env, napi_value value, size_t count) {
  napi_typedarray_type type = napi_int8_array;
  size_t length = 0;
  void* data = nullptr;
  if (napi_get_typedarray_info(env, value, &type, &length, &data, nullptr, nullptr) != napi_ok) {
    return nullptr;
  }
  const bool has_words = type == napi_int32_array || type == napi_uint32_array;
  return has_words && length >= count ? static_cast<T*>(data) : nullptr;
}

// One load, on a thread of its own. Made, settled and destroyed on the JS thread; the promise's JS
// arrays stay referenced until then.
struct Load {
  napi_deferred deferred = nullptr;
  napi_threadsafe_function settle = nullptr;
  napi_ref arrays[3] = {};
  HttpLoadOptions options;
  HttpLoadProgress* progress = nullptr;
  uint32_t* latency = nullptr;
  uint32_t* service = nullptr;
  HttpLoadResult result;
  Status status;
  std::thread thread;

  void Run() {
    status = RunHttpLoad(options, progress, &result);
    std::memcpy(latency, result.latency.data(), result.latency.size() * sizeof(uint32_t));
    std::memcpy(service, result.service.data(), result.service.size() * sizeof(uint32_t));
    napi_call_threadsafe_function(settle, this, napi_tsfn_blocking);
    napi_release_threadsafe_function(settle, napi_tsfn_release);
  }
};

napi_value Describe(napi_env env, const HttpLoadResult& r) {
  napi_value object = nullptr;
  napi_create_object(env, &object);
  auto put = [env](napi_value into, const char* name, double value) {
    napi_value number = nullptr;
    napi_create_double(env, value, &number);
    napi_set_named_property(env, into, name, number);
  };
  put(object, "completed", static_cast<double>(r.completed));
  put(object, "perSecond", r.per_second);
  put(object, "broken", static_cast<double>(r.broken));
  put(object, "unanswered", static_cast<double>(r.unanswered));
  put(object, "unsent", static_cast<double>(r.unsent));
  put(object, "bytesIn", static_cast<double>(r.bytes_in));
  put(object, "bytesOut", static_cast<double>(r.bytes_out));
  put(object, "startNs", static_cast<double>(r.start_ns));
  put(object, "elapsedNs", static_cast<double>(r.elapsed_ns));
  put(object, "cpuNs", static_cast<double>(r.cpu_ns));
  put(object, "lateNs", static_cast<double>(r.late_ns));
  put(object, "maxNs", static_cast<double>(r.max_ns));
  napi_value gone = nullptr, error = nullptr, statuses = nullptr;
  napi_get_boolean(env, r.gone, &gone);
  napi_set_named_property(env, object, "gone", gone);
  napi_create_string_utf8(env, r.first_error.data(), r.first_error.size(), &error);
  napi_set_named_property(env, object, "firstError", error);
  napi_create_object(env, &statuses);
  for (const auto& [status, count] : r.other_statuses) {
    put(statuses, std::to_string(status).c_str(), static_cast<double>(count));
  }
  napi_set_named_property(env, object, "statuses", statuses);
  return object;
}

napi_value MakeError(napi_env env, const std::string& text) {
  napi_value message = nullptr, error = nullptr;
  napi_create_string_utf8(env, text.data(), text.size(), &message);
  napi_create_error(env, nullptr, message, &error);
  return error;
}

// The environment ends: the thread must not write to its arrays any more. Runs before the threadsafe
// function's own hook, which was added earlier.
void EndEarly(void* data) {
  auto* load = static_cast<Load*>(data);
  __atomic_store_n(&load->progress->stop, 1, __ATOMIC_RELAXED);
  load->thread.join();
}

// On the JS thread, once the load is over. `env` is null when the environment ended first: it drops
// what it still had to call.
void Settle(napi_env env, napi_value, void*, void* data) {
  std::unique_ptr<Load> load(static_cast<Load*>(data));
  if (!env) return;
  napi_remove_env_cleanup_hook(env, EndEarly, load.get());
  load->thread.join();
  for (napi_ref array : load->arrays) napi_delete_reference(env, array);
  if (load->status.ok()) {
    napi_resolve_deferred(env, load->deferred, Describe(env, load->result));
  } else {
    napi_reject_deferred(env, load->deferred, MakeError(env, load->status.message()));
  }
}

napi_value Fail(napi_env env, const char* message) {
  napi_throw_type_error(env, nullptr, message);
  return nullptr;
}

// httpLoad({host, port, requests, connections, rate, poisson, seed, durationNs, drainNs, spinNs},
//          progress: Int32Array, latency: Uint32Array, service: Uint32Array): a promise of the result
napi_value HttpLoad(napi_env env, napi_callback_info info) {
  napi_value args[4];
  size_t count = 4;
  napi_get_cb_info(env, info, &count, args, nullptr, nullptr);
  const napi_value object = args[0];
  auto load = std::make_unique<Load>();
  HttpLoadOptions& options = load->options;
  options.host = Text(env, object, "host");
  options.port = static_cast<uint16_t>(Integer(env, object, "port"));
  options.requests = Texts(env, Property(env, object, "requests"));
  options.connections = static_cast<uint32_t>(Integer(env, object, "connections"));
  options.rate = Number(env, object, "rate");
  options.poisson = Flag(env, object, "poisson");
  options.seed = static_cast<uint64_t>(Integer(env, object, "seed"));
  options.duration_ns = Integer(env, object, "durationNs");
  options.drain_ns = Integer(env, object, "drainNs");
  options.spin_ns = Integer(env, object, "spinNs");
  load->progress = Words<HttpLoadProgress>(env, args[1], sizeof(HttpLoadProgress) / sizeof(int32_t));
  load->latency = Words<uint32_t>(env, args[2], kHistogramBuckets);
  load->service = Words<uint32_t>(env, args[3], kHistogramBuckets);
  if (!load->progress || !load->latency || !load->service) {
    return Fail(env, "httpLoad: arrays are missing or too short");
  }
  if (options.requests.empty() || options.connections == 0) {
    return Fail(env, "httpLoad: expected at least one request and one connection");
  }
  napi_value name = nullptr, promise = nullptr;
  napi_create_string_utf8(env, "tercel-load", NAPI_AUTO_LENGTH, &name);
  if (napi_create_threadsafe_function(env, nullptr, nullptr, name, 0, 1, nullptr, nullptr, nullptr,
                                      Settle, &load->settle) != napi_ok) {
    return Fail(env, "httpLoad: no threadsafe function");
  }
  for (size_t i = 0; i < 3; ++i) napi_create_reference(env, args[i + 1], 1, &load->arrays[i]);
  napi_create_promise(env, &load->deferred, &promise);
  Load* raw = load.release();  // Settle's
  try {
    raw->thread = std::thread([raw] { raw->Run(); });
    napi_add_env_cleanup_hook(env, EndEarly, raw);
  } catch (const std::system_error&) {
    std::unique_ptr<Load> unstarted(raw);
    napi_release_threadsafe_function(raw->settle, napi_tsfn_abort);
    for (napi_ref array : raw->arrays) napi_delete_reference(env, array);
    napi_reject_deferred(env, raw->deferred, MakeError(env, "the system has no thread to give"));
  }
  return promise;
}

}  // namespace

}  // namespace tercel

NAPI_MODULE_INIT() {
  napi_value function = nullptr;
  napi_create_function(env, "httpLoad", NAPI_AUTO_LENGTH, tercel::HttpLoad, nullptr, &function);
  napi_set_named_property(env, exports, "httpLoad", function);
  return exports;
}
