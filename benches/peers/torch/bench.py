"""PyTorch.  bench.py [--cuda] [--compile] WORKLOAD...

Without --compile: eager, with torch.optim.Adam as it comes. With it, what PyTorch is best at: torch.compile around the
forward pass or the function, Adam(fused=True), and scaled_dot_product_attention in the transformer. With --cuda, on an
NVIDIA GPU, otherwise on the CPU.
"""
import sys

import ops
import training

WORKLOADS = {**ops.WORKLOADS, **training.WORKLOADS}

if __name__ == "__main__":
    best = "--compile" in sys.argv
    for name in sys.argv[1:]:
        if name in WORKLOADS:
            WORKLOADS[name](name, best)
        elif name not in ("--compile", "--cuda"):
            raise SystemExit(f"no workload {name}; there are {', '.join(WORKLOADS)}")
