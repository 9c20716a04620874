"""Trains the digits model: a small convolutional network on scikit-learn's handwritten digits.

    pip install scikit-learn jax onnx pillow
    python models/digits/train.py

Writes 1/model.onnx, samples/ (a dozen held-out digits as PNG and JSON) and ACCURACY.md beside itself.
Python is needed only for this: neither the server nor a test runs it.

The data: E. Alpaydin and C. Kaynak, "Optical Recognition of Handwritten Digits", UCI Machine Learning
Repository, 1998; 1,797 images of 8x8 with 17 grey levels, as sklearn.datasets.load_digits() has them.
"""

import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from PIL import Image
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

HERE = pathlib.Path(__file__).parent
SEED = 7
EPOCHS = 60
BATCH = 64
LEARNING_RATE = 2e-3


def load():
    digits = load_digits()
    # 0..16 becomes the 0..255 of a PNG, and that 0..1: the same numbers that a client sends.
    pixels = np.round(digits.images * (255 / 16)).astype(np.uint8)
    images = (pixels.astype(np.float32) / 255).reshape(-1, 1, 8, 8)
    return pixels, images, digits.target.astype(np.int64)


def init(key):
    def normal(key, shape, fan_in):
        return jax.random.normal(key, shape, jnp.float32) * np.sqrt(2 / fan_in)

    keys = jax.random.split(key, 4)
    return {
        "conv1_w": normal(keys[0], (16, 1, 3, 3), 9),
        "conv1_b": jnp.zeros(16),
        "conv2_w": normal(keys[1], (32, 16, 3, 3), 144),
        "conv2_b": jnp.zeros(32),
        "fc1_w": normal(keys[2], (512, 64), 512),
        "fc1_b": jnp.zeros(64),
        "fc2_w": normal(keys[3], (64, 10), 64),
        "fc2_b": jnp.zeros(10),
    }


def forward(params, x, key=None):
    def conv(x, name):
        y = jax.lax.conv(x, params[name + "_w"], (1, 1), "SAME")
        return jax.nn.relu(y + params[name + "_b"][None, :, None, None])

    x = conv(x, "conv1")
    x = conv(x, "conv2")
    x = jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, (1, 1, 2, 2), (1, 1, 2, 2), "VALID")
    x = x.reshape(x.shape[0], -1)
    if key is not None:  # dropout of a half, in training only
        x = jnp.where(jax.random.bernoulli(key, 0.5, x.shape), 2 * x, 0)
    x = jax.nn.relu(x @ params["fc1_w"] + params["fc1_b"])
    return x @ params["fc2_w"] + params["fc2_b"]


def loss(params, x, y, key):
    log_probabilities = jax.nn.log_softmax(forward(params, x, key))
    return -jnp.mean(log_probabilities[jnp.arange(y.shape[0]), y])


@jax.jit
def step(params, m, v, t, x, y, key):  # Adam (Kingma and Ba, 2015)
    gradients = jax.grad(loss)(params, x, y, key)
    m = jax.tree.map(lambda m, g: 0.9 * m + 0.1 * g, m, gradients)
    v = jax.tree.map(lambda v, g: 0.999 * v + 0.001 * g * g, v, gradients)
    params = jax.tree.map(
        lambda p, m, v: p - LEARNING_RATE * (m / (1 - 0.9**t)) / (jnp.sqrt(v / (1 - 0.999**t)) + 1e-8),
        params, m, v,
    )
    return params, m, v


def train(x, y):
    params = init(jax.random.PRNGKey(SEED))
    m = v = jax.tree.map(jnp.zeros_like, params)
    order = np.random.default_rng(SEED)
    key = jax.random.PRNGKey(SEED + 1)
    t = 0
    for _ in range(EPOCHS):
        shuffled = order.permutation(len(x))
        for at in range(0, len(x) - BATCH + 1, BATCH):
            t += 1
            key, dropout = jax.random.split(key)
            batch = shuffled[at : at + BATCH]
            params, m, v = step(params, m, v, t, x[batch], y[batch], dropout)
    return {name: np.asarray(value) for name, value in params.items()}


def export(params):
    node = helper.make_node
    graph = helper.make_graph(
        [
            node("Conv", ["image", "conv1_w", "conv1_b"], ["c1"], pads=[1, 1, 1, 1]),
            node("Relu", ["c1"], ["r1"]),
            node("Conv", ["r1", "conv2_w", "conv2_b"], ["c2"], pads=[1, 1, 1, 1]),
            node("Relu", ["c2"], ["r2"]),
            node("MaxPool", ["r2"], ["p2"], kernel_shape=[2, 2], strides=[2, 2]),
            node("Flatten", ["p2"], ["flat"]),
            node("Gemm", ["flat", "fc1_w", "fc1_b"], ["g1"]),
            node("Relu", ["g1"], ["r3"]),
            node("Gemm", ["r3", "fc2_w", "fc2_b"], ["logits"]),
            node("Softmax", ["logits"], ["probabilities"], axis=1),
            node("ArgMax", ["logits"], ["digit"], axis=1, keepdims=0),
        ],
        "digits",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", 1, 8, 8])],
        [
            helper.make_tensor_value_info("digit", TensorProto.INT64, ["batch"]),
            helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["batch", 10]),
        ],
        [numpy_helper.from_array(value, name) for name, value in params.items()],
    )
    model = helper.make_model(
        graph,
        producer_name="tercel",
        opset_imports=[helper.make_opsetid("", 17)],
        ir_version=8,
        doc_string="Handwritten digits, 8x8 grey, 0..1",
    )
    onnx.checker.check_model(model, full_check=True)
    (HERE / "1").mkdir(exist_ok=True)
    onnx.save(model, HERE / "1" / "model.onnx")


def write_samples(pixels, images, labels):
    """The first held-out image of each digit, and the two after them."""
    folder = HERE / "samples"
    folder.mkdir(exist_ok=True)
    chosen = [int(np.flatnonzero(labels == digit)[0]) for digit in range(10)]
    chosen += [i for i in range(len(labels)) if i not in chosen][:2]
    for number, i in enumerate(chosen):
        name = f"{labels[i]}" if number < 10 else f"{labels[i]}-{number - 8}"
        Image.fromarray(pixels[i]).save(folder / f"{name}.png", optimize=True)
        data = [round(float(value), 6) for value in images[i].reshape(-1)]
        request = {"inputs": [{"name": "image", "shape": [1, 1, 8, 8], "datatype": "FP32", "data": data}]}
        (folder / f"{name}.json").write_text(json.dumps(request) + "\n")


def main():
    pixels, images, labels = load()
    train_at, test_at = train_test_split(
        np.arange(len(labels)), test_size=0.25, random_state=SEED, stratify=labels
    )
    params = train(images[train_at], labels[train_at])
    export(params)
    predicted = np.asarray(jnp.argmax(forward(params, images[test_at]), axis=1))
    right = int((predicted == labels[test_at]).sum())
    text = (
        "# Digits: held-out accuracy\n\n"
        f"{right} of {len(test_at)} held-out digits right: **{100 * right / len(test_at):.2f} %** "
        f"({len(train_at)} to train on, split stratified with seed {SEED}; "
        f"{sum(p.size for p in params.values()):,} weights, {EPOCHS} epochs). "
        "Written by `train.py`.\n"
    )
    (HERE / "ACCURACY.md").write_text(text)
    write_samples(pixels[test_at], images[test_at], labels[test_at])
    print(text)


if __name__ == "__main__":
    main()
