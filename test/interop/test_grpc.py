"""The protocol as others see it: typed contents, reflection, health, message limits."""

import grpc
import numpy as np
import pytest
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase
from tritonclient.grpc import service_pb2, service_pb2_grpc


@pytest.fixture
def channel(served):
    with grpc.insecure_channel(served.grpc, [("grpc.max_send_message_length", -1)]) as channel:
        yield channel


@pytest.fixture
def stub(channel):
    return service_pb2_grpc.GRPCInferenceServiceStub(channel)


CONTENTS = {
    "bool": ("bool_contents", [True, False]),
    "int8": ("int_contents", [-128, 127]),
    "int16": ("int_contents", [-32768, 32767]),
    "int32": ("int_contents", [-(2**31), 2**31 - 1]),
    "int64": ("int64_contents", [-(2**63), 2**63 - 1]),
    "uint8": ("uint_contents", [0, 255]),
    "uint16": ("uint_contents", [0, 65535]),
    "uint32": ("uint_contents", [0, 2**32 - 1]),
    "uint64": ("uint64_contents", [0, 2**64 - 1]),
    "fp32": ("fp32_contents", [0.1, -3e38]),
    "fp64": ("fp64_contents", [0.1, -1e308]),
}


def request(model, datatype, field, values, shape=None):
    message = service_pb2.ModelInferRequest(model_name=model)
    tensor = message.inputs.add(name="x", datatype=datatype, shape=shape or [1, len(values)])
    getattr(tensor.contents, field).extend(values)
    return message


@pytest.mark.parametrize("name", CONTENTS)
def test_typed_contents(stub, name):
    field, values = CONTENTS[name]
    response = stub.ModelInfer(request(f"identity_{name}", name.upper(), field, values))
    dtype = {"bool": np.bool_, "fp32": np.float32, "fp64": np.float64}.get(name) or np.dtype(name)
    got = np.frombuffer(response.raw_output_contents[0], dtype)
    np.testing.assert_array_equal(got, np.array(values, dtype))
    assert list(response.outputs[0].shape) == [1, 2]


def test_typed_bytes(stub):
    response = stub.ModelInfer(request("identity_bytes", "BYTES", "bytes_contents", [b"a", b"", b"xyz"]))
    assert response.raw_output_contents[0] == b"\1\0\0\0a\0\0\0\0\3\0\0\0xyz"


@pytest.mark.parametrize(
    "field, values, shape, message",
    [
        ("fp32_contents", [1.0], [1, 1], "INT8 belongs in int_contents, not in fp32_contents"),
        ("int_contents", [128], [1, 1], "element 0, 128, does not fit INT8"),
        ("int_contents", [1, 2], [1, 1], "contents has more"),
        ("int_contents", [1], [1, 2], "contents has 1"),
        ("int_contents", [1], [-1], "dimension must be"),
        ("int_contents", [1], [2**40], "more than the message has bytes"),
        ("int_contents", [1], [2**62, 2**62], "dimension must be|too large"),
    ],
)
def test_wrong_contents(stub, field, values, shape, message):
    with pytest.raises(grpc.RpcError, match=message) as error:
        stub.ModelInfer(request("identity_int8", "INT8", field, values, shape))
    assert error.value.code() == grpc.StatusCode.INVALID_ARGUMENT


def test_wrong_raw(stub):
    message = service_pb2.ModelInferRequest(model_name="identity_fp32")
    message.inputs.add(name="x", datatype="FP32", shape=[1, 2])
    for raw, expected in [([b"123"], "needs 8 bytes"), ([b"12345678"] * 2, "2 entries"), ([], "no contents")]:
        del message.raw_input_contents[:]
        message.raw_input_contents.extend(raw)
        with pytest.raises(grpc.RpcError, match=expected) as error:
            stub.ModelInfer(message)
        assert error.value.code() == grpc.StatusCode.INVALID_ARGUMENT


def test_bytes_that_are_no_message(channel):
    call = channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")
    for junk in [b"\xff", b"\x0a\xff", b"\x00", b"\x2a\x03abc", b"\x0a\x02\xff\xfe"]:
        with pytest.raises(grpc.RpcError) as error:
            call(junk)
        assert error.value.code() == grpc.StatusCode.INVALID_ARGUMENT, junk


def test_message_limit(stub):
    message = service_pb2.ModelInferRequest(model_name="identity_fp32")
    message.inputs.add(name="x", datatype="FP32", shape=[1, 17 * 2**20])
    message.raw_input_contents.append(bytes(4 * 17 * 2**20))
    with pytest.raises(grpc.RpcError) as error:
        stub.ModelInfer(message)
    assert error.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED


def test_health(channel):
    health = health_pb2_grpc.HealthStub(channel)
    check = lambda name: health.Check(health_pb2.HealthCheckRequest(service=name)).status
    assert check("") == health_pb2.HealthCheckResponse.SERVING
    assert check("inference.GRPCInferenceService") == health_pb2.HealthCheckResponse.SERVING
    with pytest.raises(grpc.RpcError) as error:
        check("nobody")
    assert error.value.code() == grpc.StatusCode.NOT_FOUND
    watch = health.Watch(health_pb2.HealthCheckRequest(), timeout=5)
    assert next(watch).status == health_pb2.HealthCheckResponse.SERVING
    watch.cancel()


def test_reflection(channel):
    database = ProtoReflectionDescriptorDatabase(channel)
    assert "inference.GRPCInferenceService" in database.get_services()
    file = database.FindFileContainingSymbol("inference.ModelInferRequest")
    assert "GRPCInferenceService" in [service.name for service in file.service]
    # Whole: a client such as grpcurl makes calls from it.
    service = DescriptorPool(database).FindServiceByName("inference.GRPCInferenceService")
    assert service.methods_by_name["ModelInfer"].input_type.fields_by_name["parameters"].message_type


def test_what_there_is_not(stub):
    with pytest.raises(grpc.RpcError) as error:
        stub.CudaSharedMemoryStatus(service_pb2.CudaSharedMemoryStatusRequest())
    assert error.value.code() == grpc.StatusCode.UNIMPLEMENTED


def test_field_numbers_are_the_published_ones(channel):
    """Every message that we have has the fields of the published one, under their numbers and types."""
    database = ProtoReflectionDescriptorDatabase(channel)
    ours = {m.name: m for m in database.FindFileContainingSymbol("inference.ModelInferRequest").message_type}
    from tritonclient.grpc import model_config_pb2

    published = {**service_pb2.DESCRIPTOR.message_types_by_name, **model_config_pb2.DESCRIPTOR.message_types_by_name}

    def compare(mine, theirs):
        for field in mine.field:
            other = theirs.fields_by_number[field.number]
            assert (other.name, other.type) == (field.name, field.type), mine.name
        for nested in mine.nested_type:
            if nested.options.map_entry:
                continue
            compare(nested, theirs.nested_types_by_name[nested.name])

    assert len(ours) > 40
    for name, message in ours.items():
        compare(message, published[name])
