"""TensorFlow Serving's own stubs (PyPI's tensorflow-serving-api), and its REST form."""

import json

import grpc
import numpy as np
import pytest
import requests
import tensorflow as tf
from google.protobuf import json_format
from tensorflow_serving.apis import (
    classification_pb2,
    get_model_metadata_pb2,
    get_model_status_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_service_pb2_grpc,
    regression_pb2,
)


@pytest.fixture
def channel(served):
    with grpc.insecure_channel(served.tfs_grpc) as channel:
        yield channel


@pytest.fixture
def stub(channel):
    return prediction_service_pb2_grpc.PredictionServiceStub(channel)


@pytest.fixture
def post(served):
    return lambda path, body: requests.post(
        f"http://{served.tfs_http}/v1/models/{path}", data=body if isinstance(body, str) else json.dumps(body), timeout=10
    )


DTYPES = {
    "bool": tf.constant([[True, False]]),
    "uint8": tf.constant([[0, 255]], tf.uint8),
    "uint16": tf.constant([[0, 65535]], tf.uint16),
    "uint32": tf.constant([[0, 2**32 - 1]], tf.uint32),
    "uint64": tf.constant([[0, 2**64 - 1]], tf.uint64),
    "int8": tf.constant([[-128, 127]], tf.int8),
    "int16": tf.constant([[-32768, 32767]], tf.int16),
    "int32": tf.constant([[-(2**31), 2**31 - 1]], tf.int32),
    "int64": tf.constant([[-(2**63), 2**63 - 1]], tf.int64),
    "fp16": tf.constant([[-1.5, 65504]], tf.float16),
    "bf16": tf.constant([[-1.5, 3e38]], tf.bfloat16),
    "fp32": tf.constant([[0.1, float("nan")]], tf.float32),
    "fp64": tf.constant([[0.1, float("-inf")]], tf.float64),
    "bytes": tf.constant([["", "über"]]),
}


VALUE_FIELDS = {
    "bool": "bool_val", "uint8": "int_val", "uint16": "int_val", "uint32": "uint32_val", "uint64": "uint64_val",
    "int8": "int_val", "int16": "int_val", "int32": "int_val", "int64": "int64_val", "fp16": "half_val",
    "bf16": "half_val", "fp32": "float_val", "fp64": "double_val",
}


def predict(name, proto, **spec):
    request = predict_pb2.PredictRequest()
    request.model_spec.name = name
    for key, value in spec.items():
        if key == "version":
            request.model_spec.version.value = value
        else:
            setattr(request.model_spec, key, value)
    request.inputs["x"].CopyFrom(proto)
    return request


@pytest.mark.parametrize("name", DTYPES)
@pytest.mark.parametrize("how", ["content", "values"])
def test_predict_every_dtype(stub, name, how):
    value = DTYPES[name]
    proto = tf.make_tensor_proto(value)
    if how == "values" and name != "bytes":
        proto.ClearField("tensor_content")
        for field in VALUE_FIELDS.values():
            proto.ClearField(field)
        numbers = value.numpy().reshape(-1)
        numbers = numbers.view(np.uint16) if name in ("fp16", "bf16") else numbers
        getattr(proto, VALUE_FIELDS[name]).extend(numbers.tolist())
    response = stub.Predict(predict(f"identity_{name}", proto))
    assert response.model_spec.name == f"identity_{name}"
    assert response.model_spec.version.value == 1
    got = tf.make_ndarray(response.outputs["y"])
    assert got.dtype == value.numpy().dtype
    np.testing.assert_array_equal(got, value.numpy())


def test_predict_fills_with_the_last_value(stub):
    proto = tf.make_tensor_proto(7.5, tf.float32, shape=[2, 3])
    assert len(proto.float_val) == 1
    got = stub.Predict(predict("identity_fp32", proto)).outputs["y"]
    np.testing.assert_array_equal(tf.make_ndarray(got), np.full((2, 3), 7.5, np.float32))
    # Clients look here without TensorFlow.
    assert list(got.float_val) == [7.5] * 6


def test_versions_labels_and_filters(stub):
    proto = tf.make_tensor_proto(tf.constant([1.0, 2.0]))
    answered = lambda **spec: stub.Predict(predict("versions", proto, **spec)).model_spec.version.value
    assert answered() == 3
    assert answered(version=1) == 1
    assert answered(version_label="stable") == 1
    assert answered(signature_name="serving_default") == 3
    request = predict("versions", proto)
    request.output_filter.append("y")
    assert list(stub.Predict(request).outputs) == ["y"]


@pytest.mark.parametrize(
    "change, code, message",
    [
        (lambda r: setattr(r.model_spec, "name", "nobody"), "NOT_FOUND", "does not exist"),
        (lambda r: setattr(r.model_spec.version, "value", 9), "NOT_FOUND", "has no version 9"),
        (lambda r: setattr(r.model_spec, "signature_name", "other"), "INVALID_ARGUMENT", "serving_default"),
        (lambda r: r.output_filter.append("z"), "INVALID_ARGUMENT", 'output "z" does not exist'),
        (lambda r: r.inputs["q"].CopyFrom(r.inputs["x"]), "INVALID_ARGUMENT", 'input "q" does not exist'),
        (lambda r: r.inputs["x"].tensor_shape.dim.add(size=3), "INVALID_ARGUMENT", "the shape needs"),
        (lambda r: setattr(r.inputs["x"], "dtype", 8), "INVALID_ARGUMENT", "dtype 8"),
        (lambda r: setattr(r.inputs["x"], "dtype", 2), "INVALID_ARGUMENT", "the shape needs|expected float32"),
    ],
)
def test_errors(stub, change, code, message):
    request = predict("versions", tf.make_tensor_proto(np.ones(2, np.float32)))
    change(request)
    with pytest.raises(grpc.RpcError, match=message) as error:
        stub.Predict(request)
    assert error.value.code().name == code


def test_deadline(stub):
    request = predict("slow", tf.make_tensor_proto(np.zeros((64, 64), np.float32)))
    request.inputs["rounds"].CopyFrom(tf.make_tensor_proto(20_000_000, tf.int64))
    with pytest.raises(grpc.RpcError) as error:
        stub.Predict(request, timeout=0.2)
    assert error.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED
    request.inputs["rounds"].CopyFrom(tf.make_tensor_proto(1, tf.int64))
    stub.Predict(request, timeout=5)


def example(**features):
    return tf.train.Example(
        features=tf.train.Features(
            feature={k: tf.train.Feature(float_list=tf.train.FloatList(value=v)) for k, v in features.items()}
        )
    )


def test_classify_and_regress(stub):
    request = classification_pb2.ClassificationRequest()
    request.model_spec.name = "labelled"
    request.input.example_list.examples.append(example(x=[0.25, 2.5, -1, 1.25]))
    result = stub.Classify(request).result
    assert [(c.label, c.score) for c in result.classifications[0].classes] == [
        ("cat", 0.25), ("dog", 2.5), ("cow", -1), ("owl", 1.25)
    ]
    request = regression_pb2.RegressionRequest()
    request.model_spec.name = "versions"
    request.input.example_list_with_context.context.CopyFrom(example(x=[3.5]))
    request.input.example_list_with_context.examples.extend([example(), example(x=[1.5])])
    assert [r.value for r in stub.Regress(request).result.regressions] == [3.5, 1.5]
    request.input.example_list.examples.append(example(z=[1]))
    with pytest.raises(grpc.RpcError, match='feature "x" is missing'):
        stub.Regress(request)


def test_metadata(stub):
    request = get_model_metadata_pb2.GetModelMetadataRequest(metadata_field=["signature_def"])
    request.model_spec.name = "labelled"
    response = stub.GetModelMetadata(request)
    signatures = get_model_metadata_pb2.SignatureDefMap()
    assert response.metadata["signature_def"].Unpack(signatures)
    info = signatures.signature_def["serving_default"].inputs["x"]
    assert info.dtype == tf.float32.as_datatype_enum
    assert [d.size for d in info.tensor_shape.dim] == [-1, 4]
    request.metadata_field[0] = "other"
    with pytest.raises(grpc.RpcError, match="signature_def"):
        stub.GetModelMetadata(request)


def test_status(channel, post, served):
    stub = model_service_pb2_grpc.ModelServiceStub(channel)
    request = get_model_status_pb2.GetModelStatusRequest()
    request.model_spec.name = "versions"
    statuses = stub.GetModelStatus(request).model_version_status
    available = get_model_status_pb2.ModelVersionStatus.AVAILABLE
    assert [(s.version, s.state) for s in statuses] == [(3, available), (1, available)]
    rest = requests.get(f"http://{served.http}/v1/models/versions", timeout=10).json()
    parsed = json_format.ParseDict(rest, get_model_status_pb2.GetModelStatusResponse())
    assert list(parsed.model_version_status) == list(statuses)
    request.model_spec.version_label = "stable"
    assert [s.version for s in stub.GetModelStatus(request).model_version_status] == [1]
    request.model_spec.name = "nobody"
    with pytest.raises(grpc.RpcError) as error:
        stub.GetModelStatus(request)
    assert error.value.code() == grpc.StatusCode.NOT_FOUND


def test_reload_config(channel, served):
    from tensorflow_serving.apis import model_management_pb2

    stub = model_service_pb2_grpc.ModelServiceStub(channel)
    loaded = requests.post(f"http://{served.http}/v2/repository/index", json={"ready": True}, timeout=10).json()
    names = sorted({model["name"] for model in loaded})
    request = model_management_pb2.ReloadConfigRequest()
    for name in names:
        if name != "digits":
            request.config.model_config_list.config.add(name=name)
    versions = next(c for c in request.config.model_config_list.config if c.name == "versions")
    versions.model_version_policy.specific.versions.extend([1, 3])
    versions.version_labels["stable"] = 3
    assert stub.HandleReloadConfigRequest(request, timeout=60).status.error_code == 0
    status = get_model_status_pb2.GetModelStatusRequest()
    status.model_spec.name = "versions"
    status.model_spec.version_label = "stable"
    assert [s.version for s in stub.GetModelStatus(status).model_version_status] == [3]
    ready = lambda name: requests.get(f"http://{served.http}/v2/models/{name}/ready", timeout=10).status_code == 200
    assert ready("versions") and not ready("digits")
    request.config.model_config_list.config.add(name="digits", base_path="/somewhere/else")
    with pytest.raises(grpc.RpcError, match="is not the repository's"):
        stub.HandleReloadConfigRequest(request, timeout=60)
    for config in request.config.model_config_list.config:
        config.ClearField("base_path")
    versions.ClearField("model_version_policy")
    versions.ClearField("version_labels")
    assert stub.HandleReloadConfigRequest(request, timeout=60).status.error_code == 0
    assert ready("digits")
    status.model_spec.version_label = "stable"
    assert [s.version for s in stub.GetModelStatus(status).model_version_status] == [1]
    with pytest.raises(grpc.RpcError, match="expected a model_config_list"):
        stub.HandleReloadConfigRequest(model_management_pb2.ReloadConfigRequest())


def test_rest_rows_and_columns(post):
    assert post("identity_fp32:predict", {"instances": [[1, 2.5], [3, 4]]}).json() == {"predictions": [[1, 2.5], [3, 4]]}
    assert post("identity_fp32:predict", {"inputs": [[1, 2.5]]}).json() == {"outputs": [[1, 2.5]]}
    assert post("identity_fp32:predict", {"inputs": {"x": [[1]]}, "signature_name": "serving_default"}).json() == {
        "outputs": [[1]]
    }
    assert post("identity_int64:predict", '{"instances": [{"x": [9007199254740993]}]}').text == (
        '{"predictions":[[9007199254740993]]}'
    )
    text = post("identity_fp32:predict", '{"instances": [[NaN, -Infinity]]}').text
    assert text == '{"predictions":[[NaN,-Infinity]]}'
    assert post("identity_bytes:predict", {"instances": [["a", {"b64": "aGk="}]]}).json() == {"predictions": [["a", "hi"]]}
    assert post("versions/labels/stable:predict", {"instances": [1, 2]}).json() == {"predictions": [1, 2]}
    assert post("versions/versions/3:predict", {"instances": [{"x": 1}, {"x": 2}]}).json() == {"predictions": [1, 2]}


@pytest.mark.parametrize(
    "path, body, status, message",
    [
        ("nobody:predict", {}, 404, "does not exist"),
        ("versions/versions/9:predict", {}, 404, "has no version 9"),
        ("versions:predict", {}, 400, "exactly one of"),
        ("versions:predict", {"instances": [1], "inputs": [1]}, 400, "exactly one of"),
        ("versions:predict", {"instances": []}, 400, "one row"),
        ("versions:predict", {"instances": 5}, 400, "one row"),
        ("versions:predict", {"instances": [1, "a"]}, 400, "expected float32 numbers, got"),
        ("versions:predict", {"instances": [[1], [2, 3]]}, 400, "a list of 2 where the others have 1"),
        ("versions:predict", {"instances": [{"x": 1}, {}]}, 400, r"instances\[1\]"),
        ("versions:predict", {"instances": [{"q": 1}]}, 400, 'input "q" does not exist'),
        ("versions:predict", {"inputs": {"x": [1]}, "signature_name": "other"}, 400, "signature_name"),
        ("identity_int8:predict", {"inputs": [[300]]}, 400, "element 0 of data, 300, is no int8"),
        ("identity_fp16:predict", {"inputs": [[1]]}, 400, "float16 has no JSON form"),
        ("versions:predict", "{", 400, "does not parse"),
        ("versions:regress", {"examples": []}, 400, "one example or more"),
        ("identity_int64:classify", {"examples": [{"x": 1}]}, 400, "cannot classify"),
        ("versions", {}, 405, "append :predict"),
    ],
)
def test_rest_errors(post, path, body, status, message):
    answer = post(path, body)
    assert answer.status_code == status, answer.text
    assert __import__("re").search(message, answer.json()["error"]), answer.text


def test_rest_metadata(served):
    answer = requests.get(f"http://{served.http}/v1/models/labelled/metadata", timeout=10).json()
    assert answer["model_spec"] == {"name": "labelled", "signature_name": "", "version": "1"}
    signature = answer["metadata"]["signature_def"]["signature_def"]["serving_default"]
    assert signature["inputs"]["x"]["dtype"] == "DT_FLOAT"
    assert signature["outputs"]["y"]["tensor_shape"]["dim"][1]["size"] == "4"
