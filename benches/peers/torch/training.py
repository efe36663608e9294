"""Training steps: forward, backward, Adam, no number read."""
import math
import time

import torch
from torch import nn
from torch.nn import functional as F

from common import conv, data, labels, linear, measure


def train(name, model, loss, best, checked=10):
    """Checked by the losses of the first step, and after so many."""
    optimiser = torch.optim.Adam(model.parameters(), lr=1e-3, eps=1e-8, fused=best or None)
    loss = torch.compile(loss) if best else loss

    def step():
        optimiser.zero_grad(set_to_none=True)
        value = loss()
        value.backward()
        optimiser.step()
        return value

    start = time.perf_counter()
    losses = [step().item()]
    first = time.perf_counter() - start
    losses += [step().item() for _ in range(checked)]

    def run(k):
        for _ in range(k):
            step()
    measure(name, f"{losses[0]:.6f}->{losses[-1]:.6f}", run, first=first)


def perceptron(name, best):
    batch = int(name[3:])
    model = nn.Sequential(linear(784, 512, 11), nn.ReLU(), linear(512, 256, 12), nn.ReLU(), linear(256, 10, 13))
    x, y = data((batch, 784), 10), labels(batch)
    train(name, model, lambda: F.cross_entropy(model(x), y), best)


def convolutional(name, best):
    model = nn.Sequential(
        conv(1, 8, 21), nn.ReLU(), nn.MaxPool2d(2), conv(8, 16, 22), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(),
        linear(784, 10, 23))
    x, y = data((64, 1, 28, 28), 20), labels(64)
    train(name, model, lambda: F.cross_entropy(model(x), y), best)


def heads(x, count):
    batch, length, width = x.shape
    return x.view(batch, length, count, width // count).transpose(1, 2)


class Block(nn.Module):
    """A block of a transformer. As most people write it, or with the fused attention."""

    def __init__(self, width, length, best):
        super().__init__()
        self.best = best
        self.n1, self.n2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.q, self.k, self.v, self.o = (linear(width, width, 31 + i) for i in range(4))
        self.f1, self.f2 = linear(width, 4 * width, 35), linear(4 * width, width, 36)
        self.register_buffer("mask", torch.ones(length, length, dtype=torch.bool).triu(1))

    def forward(self, x):
        z = self.n1(x)
        q, k, v = (heads(projection(z), 4) for projection in (self.q, self.k, self.v))
        if self.best:
            a = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        else:
            logits = (q @ k.transpose(-1, -2)) * (1 / math.sqrt(q.shape[-1]))
            a = torch.softmax(logits.masked_fill(self.mask, float("-inf")), -1) @ v
        r = x + self.o(a.transpose(1, 2).reshape(x.shape))
        return r + self.f2(F.gelu(self.f1(self.n2(r))))


def transformer(name, best):
    model = Block(128, 128, best)
    x, y = data((8, 128, 128), 30), data((8, 128, 128), 37)
    train(name, model, lambda: F.mse_loss(model(x), y), best)


class GptBlock(nn.Module):
    def __init__(self, width, seed):
        super().__init__()
        self.n1, self.n2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.inputs, self.output = linear(width, 3 * width, seed), linear(width, width, seed + 1)
        self.up, self.down = linear(width, 4 * width, seed + 2), linear(4 * width, width, seed + 3)

    def forward(self, x):
        q, k, v = (heads(part, 6) for part in self.inputs(self.n1(x)).chunk(3, -1))
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.output(mixed.transpose(1, 2).reshape(x.shape))
        return x + self.down(F.gelu(self.up(self.n2(x))))


class Gpt(nn.Module):
    def __init__(self, characters, length, width, blocks):
        super().__init__()
        self.characters = nn.Parameter(data((characters, width), 200, 0.035))
        self.positions = nn.Parameter(data((length, width), 201, 0.035))
        self.blocks = nn.Sequential(*(GptBlock(width, 210 + 10 * i) for i in range(blocks)))
        self.norm, self.head = nn.LayerNorm(width), linear(width, characters, 202)

    def forward(self, x):
        return self.head(self.norm(self.blocks(F.embedding(x, self.characters) + self.positions)))


def gpt(name, best):
    batch, length, characters = 16, 256, 65
    text = ((data((batch * length + 1,), 95) + 1) / 2 * characters).long()
    x, y = text[:-1].view(batch, length), text[1:]
    model = Gpt(characters, length, 384, 6)
    train(name, model, lambda: F.cross_entropy(model(x).flatten(0, 1), y), best, checked=2)


def line(name, _):
    x = (torch.arange(100, dtype=torch.float32) / 100).view(100, 1)
    y = 3 * x + data((100, 1), 77, 0.1)
    last = [0.0]

    def run(_):
        layer = linear(1, 1, 41)
        optimiser = torch.optim.SGD(layer.parameters(), lr=0.01)
        for step in range(1, 1001):
            optimiser.zero_grad(set_to_none=True)
            loss = F.mse_loss(layer(x), y)
            loss.backward()
            optimiser.step()
            if step % 100 == 0:
                last[0] = loss.item()
    start = time.perf_counter()
    run(1)
    first = time.perf_counter() - start
    measure(name, f"{last[0]:.6f}", run, whole=True, first=first)


def adam(name, best):
    parameters = [nn.Parameter(torch.zeros(100_000)) for _ in range(100)]
    for i, parameter in enumerate(parameters):
        parameter.grad = data((100_000,), 100 + i)
    optimiser = torch.optim.Adam(parameters, lr=1e-3, eps=1e-8, fused=best or None)
    for _ in range(3):
        optimiser.step()
    errors = []
    for parameter in parameters:
        g = parameter.grad.double()
        errors.append((parameter.detach() + 3e-3 * g / (g.abs() + 1e-8)).abs().max())
    worst = torch.stack(errors).max().item()

    def run(k):
        for _ in range(k):
            optimiser.step()
    measure(name, f"{worst:.1e}", run)


WORKLOADS = {
    "mlp128": perceptron, "mlp1024": perceptron, "cnn64": convolutional, "tfm8": transformer, "gpt": gpt,
    "linreg": line, "adam_10m": adam,
}
