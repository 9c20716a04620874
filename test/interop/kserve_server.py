"""KServe's own model server with one model, y = x + 1: python kserve_server.py PORT"""

import sys

import numpy as np
from kserve import InferOutput, InferResponse, Model, ModelServer


class PlusOne(Model):
    def __init__(self):
        super().__init__("plus_one")
        self.ready = True

    async def predict(self, payload, headers=None, response_headers=None):
        x = payload.inputs[0].as_numpy()
        y = InferOutput("y", list(x.shape), payload.inputs[0].datatype)
        y.set_data_from_numpy((x + 1).astype(x.dtype), binary_data=False)
        return InferResponse(payload.id or "none", "plus_one", [y])


if __name__ == "__main__":
    ModelServer(http_port=int(sys.argv[1]), enable_grpc=False, workers=1).start([PlusOne()])
