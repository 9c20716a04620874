"""NVIDIA's own client, unmodified, over HTTP and gRPC."""

import base64
import json
import os
import queue
import threading
from functools import partial

import ml_dtypes
import numpy as np
import pytest
import requests
import tritonclient.grpc as grpcclient
import tritonclient.grpc.aio as grpcaio
import tritonclient.http as httpclient
import tritonclient.http.aio as httpaio
import tritonclient.utils.shared_memory as shm
from tritonclient.utils import InferenceServerException, np_to_triton_dtype

HAS_TRITON_MODELS = os.path.isdir(os.path.join(os.environ["TERCEL_REPOSITORY"], "simple"))
needs_triton_models = pytest.mark.skipif(not HAS_TRITON_MODELS, reason="no shared models beside the project")


@pytest.fixture(params=["http", "grpc"])
def kind(request):
    return request.param


@pytest.fixture
def module(kind):
    return {"http": httpclient, "grpc": grpcclient}[kind]


@pytest.fixture
def client(kind, module, served):
    client = module.InferenceServerClient(getattr(served, kind))
    yield client
    client.close()


DTYPES = {
    "bool": np.array([[True, False, True]]),
    "uint8": np.array([[0, 7, 255]], np.uint8),
    "uint16": np.array([[0, 7, 65535]], np.uint16),
    "uint32": np.array([[0, 7, 2**32 - 1]], np.uint32),
    "uint64": np.array([[0, 7, 2**64 - 1]], np.uint64),
    "int8": np.array([[-128, 7, 127]], np.int8),
    "int16": np.array([[-(2**15), 7, 2**15 - 1]], np.int16),
    "int32": np.array([[-(2**31), 7, 2**31 - 1]], np.int32),
    "int64": np.array([[-(2**63), 7, 2**63 - 1]], np.int64),
    "fp16": np.array([[-1.5, 0.1, 65504]], np.float16),
    "fp32": np.array([[-1.5, 0.1, 3.4e38]], np.float32),
    "fp64": np.array([[-1.5, 0.1, 1e308]], np.float64),
    "bytes": np.array([[b"", "über".encode(), b"\x00a\x00"]], dtype=np.object_),
}


def tensor(module, name, value, **how):
    given = module.InferInput(name, list(value.shape), np_to_triton_dtype(value.dtype))
    given.set_data_from_numpy(value, **how)
    return given


@pytest.mark.parametrize("name", DTYPES)
def test_every_datatype_in_binary(client, module, name):
    value = DTYPES[name]
    result = client.infer(f"identity_{name}", [tensor(module, "x", value)], request_id="17")
    np.testing.assert_array_equal(result.as_numpy("y"), value)
    response = result.get_response()
    assert (response["id"] if isinstance(response, dict) else response.id) == "17"


def test_bfloat16(client, module):
    value = np.array([[1.5, -2.0, 0.0]], ml_dtypes.bfloat16)
    result = client.infer("identity_bf16", [tensor(module, "x", value)])
    np.testing.assert_array_equal(result.as_numpy("y"), value)


@pytest.mark.parametrize("name", [name for name in DTYPES if name != "fp16"])
def test_every_datatype_in_json(served, name):
    value = DTYPES[name]
    with httpclient.InferenceServerClient(served.http) as client:
        result = client.infer(
            f"identity_{name}",
            [tensor(httpclient, "x", value, binary_data=False)],
            outputs=[httpclient.InferRequestedOutput("y", binary_data=False)],
        )
    got = result.as_numpy("y")
    if name == "bytes":
        got = np.array([[text.encode() for text in got[0]]], dtype=np.object_)
    np.testing.assert_array_equal(got.astype(value.dtype), value)


@needs_triton_models
def test_simple(client, module):
    a = np.arange(16, dtype=np.int32).reshape(1, 16)
    b = np.ones((1, 16), np.int32)
    inputs = [tensor(module, "INPUT0", a), tensor(module, "INPUT1", b)]
    result = client.infer("simple", inputs)
    np.testing.assert_array_equal(result.as_numpy("OUTPUT0"), a + b)
    np.testing.assert_array_equal(result.as_numpy("OUTPUT1"), a - b)
    only = client.infer("simple", inputs, outputs=[module.InferRequestedOutput("OUTPUT1")])
    np.testing.assert_array_equal(only.as_numpy("OUTPUT1"), a - b)
    assert only.as_numpy("OUTPUT0") is None


@needs_triton_models
def test_strings(client, module):
    a = np.array([[str(i).encode() for i in range(16)]], dtype=np.object_)
    b = np.array([[b"1"] * 16], dtype=np.object_)
    result = client.infer("simple_string", [tensor(module, "INPUT0", a), tensor(module, "INPUT1", b)])
    assert [int(s) for s in result.as_numpy("OUTPUT0")[0]] == [i + 1 for i in range(16)]


@needs_triton_models
@pytest.mark.parametrize("classes", [1, 3, 100])
def test_classification(client, module, classes):
    a = np.arange(32, dtype=np.int32).reshape(2, 16)
    result = client.infer(
        "simple",
        [tensor(module, "INPUT0", a), tensor(module, "INPUT1", np.zeros((2, 16), np.int32))],
        outputs=[module.InferRequestedOutput("OUTPUT0", class_count=classes)],
    )
    best = [[f"{16 * row + i}:{i}".encode() for i in reversed(range(16))] for row in range(2)]
    assert result.as_numpy("OUTPUT0").tolist() == [row[:classes] for row in best]


def test_classification_with_labels(client, module):
    value = np.array([[0.25, 2.5, -1, 1.25]], np.float32)
    result = client.infer(
        "labelled", [tensor(module, "x", value)], outputs=[module.InferRequestedOutput("y", class_count=2)]
    )
    assert result.as_numpy("y").tolist() == [[b"2.500000:1:dog", b"1.250000:3:owl"]]


@pytest.mark.parametrize("request_algorithm", ["gzip", "deflate", None])
@pytest.mark.parametrize("response_algorithm", ["gzip", "deflate", None])
def test_http_compression(served, request_algorithm, response_algorithm):
    value = np.zeros((64, 64), np.float32)
    with httpclient.InferenceServerClient(served.http) as client:
        result = client.infer(
            "identity_fp32",
            [tensor(httpclient, "x", value)],
            request_compression_algorithm=request_algorithm,
            response_compression_algorithm=response_algorithm,
        )
    np.testing.assert_array_equal(result.as_numpy("y"), value)


@pytest.mark.parametrize("algorithm", ["gzip", "deflate"])
def test_grpc_compression(served, algorithm):
    value = np.zeros((64, 64), np.float32)
    with grpcclient.InferenceServerClient(served.grpc) as client:
        result = client.infer(
            "identity_fp32", [tensor(grpcclient, "x", value)], compression_algorithm=algorithm
        )
    np.testing.assert_array_equal(result.as_numpy("y"), value)


def test_async_http(served):
    with httpclient.InferenceServerClient(served.http, concurrency=8) as client:
        values = [np.full((1, 4), i, np.float32) for i in range(32)]
        pending = [client.async_infer("identity_fp32", [tensor(httpclient, "x", v)]) for v in values]
        for value, one in zip(values, pending):
            np.testing.assert_array_equal(one.get_result().as_numpy("y"), value)


def test_async_grpc(served):
    with grpcclient.InferenceServerClient(served.grpc) as client:
        done = queue.Queue()
        for i in range(32):
            value = np.full((1, 4), i, np.float32)
            client.async_infer(
                "identity_fp32",
                [tensor(grpcclient, "x", value)],
                callback=partial(lambda i, result, error: done.put((i, result, error)), i),
            )
        for _ in range(32):
            i, result, error = done.get(timeout=20)
            assert error is None
            assert result.as_numpy("y")[0, 0] == i


def test_cancel_grpc(served):
    with grpcclient.InferenceServerClient(served.grpc) as client:
        done = queue.Queue()
        inputs = [
            tensor(grpcclient, "x", np.zeros((64, 64), np.float32)),
            tensor(grpcclient, "rounds", np.array(20_000_000, np.int64)),
        ]
        call = client.async_infer("slow", inputs, callback=lambda result, error: done.put(error))
        threading.Timer(0.2, call.cancel).start()
        assert "CANCELLED" in str(done.get(timeout=10).status())
        # The lane is free again at once.
        inputs[1] = tensor(grpcclient, "rounds", np.array(1, np.int64))
        client.infer("slow", inputs, client_timeout=5)


def test_deadline_grpc(served):
    with grpcclient.InferenceServerClient(served.grpc) as client:
        inputs = [
            tensor(grpcclient, "x", np.zeros((64, 64), np.float32)),
            tensor(grpcclient, "rounds", np.array(20_000_000, np.int64)),
        ]
        with pytest.raises(InferenceServerException, match="Deadline Exceeded|DEADLINE"):
            client.infer("slow", inputs, client_timeout=0.2)
        with pytest.raises(InferenceServerException, match="(?i)deadline|time"):
            client.infer("slow", inputs, timeout=100_000)
        inputs[1] = tensor(grpcclient, "rounds", np.array(1, np.int64))
        client.infer("slow", inputs, client_timeout=5)


@pytest.mark.asyncio
async def test_asyncio(served):
    value = np.ones((1, 4), np.float32)
    async with httpaio.InferenceServerClient(served.http) as client:
        assert await client.is_server_live()
        result = await client.infer("identity_fp32", [tensor(httpclient, "x", value)])
        np.testing.assert_array_equal(result.as_numpy("y"), value)
    async with grpcaio.InferenceServerClient(served.grpc) as client:
        assert await client.is_server_live()
        result = await client.infer("identity_fp32", [tensor(grpcclient, "x", value)])
        np.testing.assert_array_equal(result.as_numpy("y"), value)

        async def requests_():
            for i in range(5):
                yield {"model_name": "identity_fp32", "inputs": [tensor(grpcclient, "x", value * i)]}

        got = [result.as_numpy("y")[0, 0] async for result, error in client.stream_infer(requests_())]
        assert got == [0, 1, 2, 3, 4]


def test_stream_keeps_order_and_names_what_failed(served):
    with grpcclient.InferenceServerClient(served.grpc) as client:
        done = queue.Queue()
        client.start_stream(callback=lambda result, error: done.put((result, error)))
        for i in range(200):
            model = "nobody" if i == 100 else "identity_fp32"
            value = np.full((1 + i % 3, 4), i, np.float32)
            client.async_stream_infer(model, [tensor(grpcclient, "x", value)], request_id=str(i))
        for i in range(200):
            result, error = done.get(timeout=20)
            if i == 100:
                assert 'model "nobody" does not exist' in str(error)
            else:
                assert result.get_response().id == str(i)
                assert result.as_numpy("y").shape == (1 + i % 3, 4)
                assert result.as_numpy("y")[0, 0] == i
        client.stop_stream()


def test_stream_final_response(served):
    with grpcclient.InferenceServerClient(served.grpc) as client:
        done = queue.Queue()
        client.start_stream(callback=lambda result, error: done.put((result, error)))
        value = np.ones((1, 4), np.float32)
        client.async_stream_infer(
            "identity_fp32", [tensor(grpcclient, "x", value)], enable_empty_final_response=True
        )
        result, error = done.get(timeout=20)
        assert error is None
        assert result.get_response().parameters["triton_final_response"].bool_param
        client.stop_stream()


def test_system_shared_memory(client, module):
    value = np.arange(12, dtype=np.float32).reshape(3, 4)
    size = value.nbytes
    region = shm.create_shared_memory_region("in", "/tercel_interop", 64 + 2 * size)
    try:
        shm.set_shared_memory_region(region, [value], offset=64)
        client.unregister_system_shared_memory()
        client.register_system_shared_memory("both", "/tercel_interop", 64 + 2 * size)
        status = client.get_system_shared_memory_status()
        regions = status if isinstance(status, list) else list(status.regions.values())
        first = regions[0]
        assert (first["name"] if isinstance(first, dict) else first.name) == "both"
        with pytest.raises(InferenceServerException, match="registered already"):
            client.register_system_shared_memory("both", "/tercel_interop", 64)
        given = module.InferInput("x", [3, 4], "FP32")
        given.set_shared_memory("both", size, offset=64)
        wanted = module.InferRequestedOutput("y")
        wanted.set_shared_memory("both", size, offset=64 + size)
        result = client.infer("identity_fp32", [given], outputs=[wanted])
        out = shm.get_contents_as_numpy(region, np.float32, [3, 4], offset=64 + size)
        np.testing.assert_array_equal(out, value)
        output = result.get_output("y")
        shape = output["shape"] if isinstance(output, dict) else list(output.shape)
        assert shape == [3, 4]
        # And back by the wire.
        np.testing.assert_array_equal(client.infer("identity_fp32", [given]).as_numpy("y"), value)

        for region_name, length, offset, message in [
            ("both", size, 65 + size, "do not fit"),
            ("both", size, 2**40, "do not fit"),
            ("nobody", size, 0, '"nobody" is not registered'),
            ("both", size - 4, 64, "the shape needs"),
        ]:
            wrong = module.InferInput("x", [3, 4], "FP32")
            wrong.set_shared_memory(region_name, length, offset=offset)
            with pytest.raises(InferenceServerException, match=message):
                client.infer("identity_fp32", [wrong])
        small = module.InferRequestedOutput("y")
        small.set_shared_memory("both", size - 1, offset=0)
        with pytest.raises(InferenceServerException, match="shared_memory_byte_size is"):
            client.infer("identity_fp32", [given], outputs=[small])
        client.unregister_system_shared_memory("both")
        with pytest.raises(InferenceServerException, match="not registered"):
            client.infer("identity_fp32", [given])
        with pytest.raises(InferenceServerException, match="cannot open"):
            client.register_system_shared_memory("x", "/tercel_nobody", 64)
        with pytest.raises(InferenceServerException, match="does not fit"):
            client.register_system_shared_memory("x", "/tercel_interop", 2**30)
    finally:
        client.unregister_system_shared_memory()
        shm.destroy_shared_memory_region(region)


def test_health_and_metadata(client, module, kind):
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("identity_fp32")
    assert client.is_model_ready("versions", "1")
    assert not client.is_model_ready("nobody")
    how = {"as_json": True} if kind == "grpc" else {}
    server = client.get_server_metadata(**how)
    assert server["name"] == "tercel"
    assert "system_shared_memory" in server["extensions"]
    model = client.get_model_metadata("identity_int64", **how)
    assert model["platform"] == "onnxruntime_onnx"
    assert [(t["name"], t["datatype"], [int(d) for d in t["shape"]]) for t in model["inputs"]] == [
        ("x", "INT64", [-1, -1])
    ]
    assert client.get_model_metadata("versions", **how)["versions"] == ["1", "3"]
    config = client.get_model_config("versions", **how)
    config = config.get("config", config)
    assert config["backend"] == "onnxruntime"
    assert config["parameters"]["label.canary"]["string_value"] == "3"


def test_versions_and_labels(client, module):
    value = tensor(module, "x", np.ones(2, np.float32))
    for version, answered in [("", "3"), ("1", "1"), ("stable", "1"), ("canary", "3")]:
        response = client.infer("versions", [value], model_version=version).get_response()
        assert (response["model_version"] if isinstance(response, dict) else response.model_version) == answered


def test_statistics(client, module, kind):
    value = tensor(module, "x", np.ones((1, 2), np.float32))
    how = {"as_json": True} if kind == "grpc" else {}

    def count():
        stats = client.get_inference_statistics("identity_fp32", **how)["model_stats"][0]
        return int(stats["inference_count"]), int(stats["inference_stats"]["success"]["count"])

    before = count()
    for _ in range(3):
        client.infer("identity_fp32", [value])
    assert [b - a for a, b in zip(before, count())] == [3, 3]
    names = {m["name"] for m in client.get_inference_statistics(**how)["model_stats"]}
    assert {"identity_fp32", "digits"} <= names


def test_model_control(client, module, kind):
    def index():
        how = {"as_json": True} if kind == "grpc" else {}
        listed = client.get_model_repository_index(**how)
        listed = listed if isinstance(listed, list) else listed["models"]
        return {m["name"]: m["state"] for m in listed if m["name"] == "digits"}

    assert index() == {"digits": "READY"}
    client.unload_model("digits")
    assert not client.is_model_ready("digits")
    assert index() == {"digits": "UNAVAILABLE"}
    client.load_model("digits")
    assert client.is_model_ready("digits")
    with open(os.path.join(os.environ["TERCEL_REPOSITORY"], "identity_fp32", "1", "model.onnx"), "rb") as f:
        content = f.read()
    if kind == "http":
        content = content if isinstance(content, bytes) else base64.b64encode(content)
    client.load_model("digits", config=json.dumps({"versions": {"latest": 1}}), files={"file:7/model.onnx": content})
    value = tensor(module, "x", np.ones((1, 2), np.float32))
    response = client.infer("digits", [value]).get_response()
    assert (response["model_version"] if isinstance(response, dict) else response.model_version) == "7"
    client.load_model("digits", config="{}")
    client.unload_model("digits")
    client.load_model("digits")
    with pytest.raises(InferenceServerException, match="nobody"):
        client.load_model("nobody")


def test_log_settings(client, kind):
    how = {"as_json": True} if kind == "grpc" else {}

    def plain(settings):
        if kind == "http":
            return settings
        return {
            name: next((v for k, v in value.items()), None) for name, value in settings["settings"].items()
        }

    assert plain(client.get_log_settings(**how))["log_info"] is True
    changed = plain(client.update_log_settings({"log_info": False, "log_verbose_level": 1}, **how))
    assert changed["log_info"] is False
    assert int(changed["log_verbose_level"]) == 1
    client.update_log_settings({"log_info": True, "log_verbose_level": 0})
    with pytest.raises(InferenceServerException, match="log_file"):
        client.update_log_settings({"log_file": "/tmp/x"})


@pytest.mark.parametrize(
    "model, value, name, datatype, message",
    [
        ("nobody", np.ones((1, 2), np.float32), "x", "FP32", 'model "nobody" does not exist'),
        ("identity_fp32", np.ones((1, 2), np.float32), "z", "FP32", 'input "x" is missing|input "z" does not exist'),
        ("identity_fp32", np.ones((1, 2), np.float64), "x", "FP64", "expected float32"),
        ("identity_fp32", np.ones((2,), np.float32), "x", "FP32", "expected float32"),
        ("versions", np.ones((1, 2), np.float32), "x", "FP32", "expected float32"),
    ],
)
def test_errors(client, module, kind, model, value, name, datatype, message):
    given = module.InferInput(name, list(value.shape), datatype)
    given.set_data_from_numpy(value)
    with pytest.raises(InferenceServerException, match=message) as error:
        client.infer(model, [given])
    status = error.value.status()
    unknown = model == "nobody"
    if kind == "http":
        assert status == ("404" if unknown else "400")
    else:
        assert status == ("StatusCode.NOT_FOUND" if unknown else "StatusCode.INVALID_ARGUMENT")


def test_unknown_output_and_version(client, module):
    value = tensor(module, "x", np.ones((1, 2), np.float32))
    with pytest.raises(InferenceServerException, match='output "z" does not exist'):
        client.infer("identity_fp32", [value], outputs=[module.InferRequestedOutput("z")])
    with pytest.raises(InferenceServerException, match="has no version 9"):
        client.infer("identity_fp32", [value], model_version="9")


def test_raw_request(served):
    answer = requests.post(
        f"http://{served.http}/v2/models/identity_fp32/infer",
        data=np.array([1, 2, 3], np.float32).tobytes(),
        headers={"Inference-Header-Content-Length": "0"},
        timeout=10,
    )
    assert answer.status_code == 200
    head = int(answer.headers["Inference-Header-Content-Length"])
    assert np.frombuffer(answer.content[head:], np.float32).tolist() == [1, 2, 3]
