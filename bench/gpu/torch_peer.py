"""PyTorch on the same machine: the benchmarks' two models, eager and by its own graph capture.

    python3 bench/gpu/torch_peer.py [--seconds S] [--cpu]

Prints a line of JSON for each figure, as tercel_gpu does. A run is what a server does for a request: the
input is copied in from pinned memory, the model runs, the output is copied out, and the host waits.
"""

import argparse
import json
import sys
import time

import torch
from torch import nn
from torch.nn import functional as F


class Block(nn.Module):
    """A basic block with its normalisation folded into the convolutions."""

    def __init__(self, inside, outside, stride):
        super().__init__()
        self.first = nn.Conv2d(inside, outside, 3, stride, 1)
        self.second = nn.Conv2d(outside, outside, 3, 1, 1)
        same = stride == 1 and inside == outside
        self.shortcut = nn.Identity() if same else nn.Conv2d(inside, outside, 1, stride)

    def forward(self, x):
        return F.relu(self.second(F.relu(self.first(x))) + self.shortcut(x))


class ResNet(nn.Module):
    """ResNet-18, as models/generate.ts makes it."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 64, 7, 2, 3)
        blocks, inside = [], 64
        for outside in (64, 128, 256, 512):
            for i in range(2):
                blocks.append(Block(inside, outside, 2 if i == 0 and outside != 64 else 1))
                inside = outside
        self.blocks = nn.Sequential(*blocks)
        self.head = nn.Linear(512, 1000)

    def forward(self, x):
        x = F.max_pool2d(F.relu(self.stem(x)), 3, 2, 1)
        return self.head(self.blocks(x).mean((2, 3)))


class Layer(nn.Module):
    def __init__(self, width, heads):
        super().__init__()
        self.heads = heads
        self.qkv = nn.ModuleList(nn.Linear(width, width) for _ in range(3))
        self.out = nn.Linear(width, width)
        self.up = nn.Linear(width, 4 * width)
        self.down = nn.Linear(4 * width, width)
        self.norms = nn.ModuleList(nn.LayerNorm(width, 1e-12) for _ in range(2))

    def forward(self, x, bias):
        rows, tokens, width = x.shape
        q, k, v = (f(x).view(rows, tokens, self.heads, -1).transpose(1, 2) for f in self.qkv)
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=bias)
        x = self.norms[0](x + self.out(mixed.transpose(1, 2).reshape(rows, tokens, width)))
        return self.norms[1](x + self.down(F.gelu(self.up(x))))


class MiniLM(nn.Module):
    """MiniLM-L6's shape, as models/generate.ts makes it."""

    def __init__(self, width=384):
        super().__init__()
        self.words = nn.Embedding(2000, width)
        self.norm = nn.LayerNorm(width, 1e-12)
        self.layers = nn.ModuleList(Layer(width, 12) for _ in range(6))

    def forward(self, ids, mask):
        bias = (mask.to(torch.float32)[:, None, None, :] - 1) * 10000
        x = self.norm(self.words(ids))
        for layer in self.layers:
            x = layer(x, bias)
        return x.mean(1)


def measure(run, seconds):
    for _ in range(20):
        run()
    times, begin = [], time.perf_counter()
    while time.perf_counter() - begin < seconds:
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    elapsed = time.perf_counter() - begin
    times.sort()
    return {
        "p50Us": round(times[len(times) // 2] * 1e6, 1),
        "p99Us": round(times[min(len(times) - 1, len(times) * 99 // 100)] * 1e6, 1),
        "perSecond": round(len(times) / elapsed, 2),
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=3)
    parser.add_argument("--cpu", action="store_true", help="to see that the program itself works")
    options = parser.parse_args()
    device = torch.device("cpu" if options.cpu else "cuda")
    pinned = not options.cpu
    # As ONNX Runtime's provider has it by default.
    torch.backends.cuda.matmul.allow_tf32 = True
    torch.backends.cudnn.allow_tf32 = True
    torch.backends.cudnn.benchmark = True

    def host(tensor):
        return tensor.pin_memory() if pinned else tensor

    def wait():
        if not options.cpu:
            torch.cuda.synchronize()

    torch.manual_seed(1)
    for name, module in (("resnet", ResNet()), ("minilm", MiniLM())):
        module = module.eval().to(device)
        for rows in (1, 32):
            if name == "resnet":
                inputs = [host(torch.rand(rows, 3, 224, 224))]
            else:
                ids = torch.arange(rows * 64).remainder(1999).view(rows, 64)
                inputs = [host(ids), host(torch.ones(rows, 64, dtype=torch.int64))]
            there = [torch.empty_like(x, device=device) for x in inputs]
            with torch.inference_mode():
                out = module(*(x.to(device) for x in inputs))
                back = host(torch.empty_like(out, device="cpu"))

                def eager():
                    for to, x in zip(there, inputs):
                        to.copy_(x, non_blocking=True)
                    back.copy_(module(*there), non_blocking=True)
                    wait()

                modes = {"PyTorch, eager": eager}
                if not options.cpu:
                    for _ in range(3):
                        eager()
                    graph = torch.cuda.CUDAGraph()
                    with torch.cuda.graph(graph):
                        static = module(*there)

                    def captured():
                        for to, x in zip(there, inputs):
                            to.copy_(x, non_blocking=True)
                        graph.replay()
                        back.copy_(static, non_blocking=True)
                        torch.cuda.synchronize()

                    modes["PyTorch, graph"] = captured
                for mode, run in modes.items():
                    timing = measure(run, options.seconds)
                    figure = {"section": "peer", "model": name, "rows": rows, "mode": mode, **timing}
                    print(json.dumps(figure), flush=True)
                    print(
                        f"peer     {name}, batch {rows}, {mode}: p50 {timing['p50Us']:.0f} us, "
                        f"p99 {timing['p99Us']:.0f} us, {timing['perSecond'] * rows:.0f} rows/s",
                        file=sys.stderr,
                    )


if __name__ == "__main__":
    main()
