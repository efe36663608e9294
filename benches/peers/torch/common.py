"""What every workload shares: the same numbers as the other programs have, timing, a line of JSON."""
import json
import math
import os
import resource
import sys
import time

import numpy as np
import torch
from torch import nn

# Where everything is made and computed: "cpu", or "cuda" after --cuda.
DEVICE = "cuda" if "--cuda" in sys.argv else "cpu"
torch.set_default_device(DEVICE)
# By default convolutions, but not products, round their operands to ten bits.
torch.backends.cudnn.allow_tf32 = False
# As many as gradus takes.
torch.set_num_threads(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count())


def data(shape, seed, scale=1.0):
    """Floats in [-scale, scale) from an integer hash of (index, seed): bit for bit those of the other programs."""
    with np.errstate(over="ignore"):
        h = np.arange(int(np.prod(shape)), dtype=np.uint32) * np.uint32(0x9E3779B1)
        h += np.uint32((seed * 0x85EBCA77) & 0xFFFFFFFF)
        h ^= h >> np.uint32(16)
        h *= np.uint32(0x7FEB352D)
        h ^= h >> np.uint32(15)
        h *= np.uint32(0x846CA68B)
        h ^= h >> np.uint32(16)
    unit = (h >> np.uint32(8)).astype(np.float32) / np.float32(16777216.0)
    return torch.from_numpy(((unit * np.float32(2) - np.float32(1)) * np.float32(scale)).reshape(shape)).to(DEVICE)


def labels(count):
    return torch.tensor([(i * 7 + 3) % 10 for i in range(count)])


def linear(inputs, outputs, seed):
    layer = nn.Linear(inputs, outputs)
    with torch.no_grad():
        layer.weight.copy_(data((inputs, outputs), seed, 1 / math.sqrt(inputs)).t())
        layer.bias.zero_()
    return layer


def conv(inputs, outputs, seed):
    layer = nn.Conv2d(inputs, outputs, 3, padding=1)
    with torch.no_grad():
        layer.weight.copy_(data((outputs, inputs, 3, 3), seed, 1 / math.sqrt(9 * inputs)))
        layer.bias.zero_()
    return layer


def synchronise():
    """Waits until the device has done what it was given."""
    if DEVICE == "cuda":
        torch.cuda.synchronize()


def measure(name, check, iterate, whole=False, first=None):
    """Times `iterate(k)`, which does k iterations. A first one, a warm-up of at least 3 iterations and 1 s (at most 20 s),
    then 7 samples of at least 0.2 s; where an iteration is `whole`, 7 samples of one iteration."""
    def run(k):
        iterate(k)
        synchronise()

    start = time.perf_counter()
    run(1)
    last = time.perf_counter() - start
    first = last if first is None else first
    warm, k = 0.0, 1
    if not whole:
        start, done = time.perf_counter(), 0
        while (done < 3 or time.perf_counter() - start < 1) and time.perf_counter() - start < 20:
            begin = time.perf_counter()
            run(1)
            last = time.perf_counter() - begin
            done += 1
        warm = time.perf_counter() - start
        k = max(1, min(100000, math.ceil(0.2 / last)))
    samples = []
    for _ in range(7):
        start = time.perf_counter()
        run(k)
        samples.append((time.perf_counter() - start) / k)
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    line = dict(w=name, check=check, first=round(first, 6), warm=round(warm, 3), k=k, rss_mb=memory, s=samples)
    print(json.dumps(line), flush=True)


def repeat(name, f, check):
    """Measures f, whose first result `check` turns into text."""
    with torch.no_grad():
        start = time.perf_counter()
        result = f()
        synchronise()
        first = time.perf_counter() - start

        def run(k):
            for _ in range(k):
                f()
        measure(name, check(result), run, first=first)
