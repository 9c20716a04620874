"""KServe's own client, unmodified. In a process of its own: it brings the protocol's messages as tritonclient does."""

import kserve
import numpy as np
import pytest


@pytest.mark.asyncio
async def test_kserve_client(served):
    value = np.arange(4, dtype=np.float32).reshape(1, 4)
    given = kserve.InferInput("x", [1, 4], "FP32")
    given.set_data_from_numpy(value, binary_data=False)
    rest = kserve.InferenceRESTClient(kserve.RESTConfig(protocol="v2", timeout=10))
    base = f"http://{served.http}"
    assert await rest.is_server_ready(base)
    answer = await rest.infer(base, kserve.InferRequest("identity_fp32", [given]), model_name="identity_fp32")
    np.testing.assert_array_equal(answer.outputs[0].as_numpy(), value)
    grpc_client = kserve.InferenceGRPCClient(served.grpc)
    assert await grpc_client.is_server_ready()
    raw = kserve.InferInput("x", [1, 4], "FP32")
    raw.set_data_from_numpy(value)
    answer = await grpc_client.infer(kserve.InferRequest("identity_fp32", [raw]))
    np.testing.assert_array_equal(answer.outputs[0].as_numpy(), value)
