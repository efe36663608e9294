"""What is measured, what of it each program can do, and how to tell that a result is right."""
import re

# The same in every program.
COMMON = ["mm256", "mm512", "mm1024", "mm2048", "bmm", "chain", "chain2d", "softmax", "layernorm", "mlp128", "mlp1024",
          "cnn64", "tfm8", "linreg", "cold", "coldest"]
# name: kernel, channels read, channels written, extent of the images.
CONVOLUTIONS = {
    "conv3x3_64": (3, 64, 64, 56), "conv3x3_128": (3, 128, 128, 28), "conv3x3_256": (3, 256, 256, 14),
    "conv3x3_512": (3, 512, 512, 7), "conv1x1_64_256": (1, 64, 256, 56), "conv1x1_512_128": (1, 512, 128, 28),
}
LENGTHS = (512, 1024, 2048, 4096)
# name: rows, features read, features written.
LINEAR = {
    "linear1": (1, 1024, 4096), "linear2": (2, 1024, 4096), "linear8": (8, 1024, 4096), "linear64": (64, 1024, 1024),
    "linear512": (512, 512, 512),
}
# Those that gradus and PyTorch alone have.
MORE = list(LINEAR)
MORE += [f"{size}_{part}" for size in CONVOLUTIONS for part in ("forward", "input_grad", "weight_grad")]
MORE += [f"attention_{length}_{part}" for length in LENGTHS for part in ("forward", "grad")]
MORE += ["embedding", "embedding_grad", "sum_axis0", "sum_axis1", "sum_axis2", "max_axis1", "argmax_axis1", "argsort",
         "argsort_rows", "topk_rows", "cumsum", "adam_10m", "gpt"]
ALL = COMMON + MORE

MI = 1 << 20


def _work():
    """The unit of each workload's rate, and how much of it an iteration is."""
    gflop, gb = "GFLOP/s", "GB/s"
    work = {f"mm{n}": (gflop, 2 * n**3 / 1e9) for n in (256, 512, 1024, 2048)}
    work["bmm"] = (gflop, 2 * 32 * 128 * 64 * 128 / 1e9)
    for name, (rows, inputs, outputs) in LINEAR.items():
        work[name] = (gflop, 2 * rows * inputs * outputs / 1e9)
    for name, (kernel, inputs, outputs, extent) in CONVOLUTIONS.items():
        for part in ("forward", "input_grad", "weight_grad"):
            work[f"{name}_{part}"] = (gflop, 2 * 8 * extent**2 * kernel**2 * inputs * outputs / 1e9)
    for length in LENGTHS:
        # The unmasked half of a product, of which the forward pass has two and the backward pass four.
        product = 8 * length * (length + 1) / 2 * 2 * 64 / 1e9
        work[f"attention_{length}_forward"] = (gflop, 2 * product)
        work[f"attention_{length}_grad"] = (gflop, 6 * product)
    # Bytes that must be read or written once.
    for name, size in {
        "chain": 12 * 4 * MI, "chain2d": 12 * 4 * MI, "softmax": 8 * 4 * MI, "layernorm": 8 * 4 * MI,
        "embedding": 2 * 8192 * 1024, "embedding_grad": (8192 + 50_000) * 1024,
        "argsort": 8 * MI, "argsort_rows": 8 * MI, "topk_rows": 4 * MI + 8 * 10 * 1024, "cumsum": 8 * MI,
        "adam_10m": 4 * 7 * 10_000_000,
        **{name: 4 * 4 * MI for name in ("sum_axis0", "sum_axis1", "sum_axis2", "max_axis1", "argmax_axis1")},
    }.items():
        work[name] = (gb, size / 1e9)
    for name in ("mlp128", "mlp1024", "cnn64", "tfm8", "gpt"):
        work[name] = ("steps/s", 1)
    return work


WORK = _work()


def rate(workload, seconds):
    """As text; nothing where the time says all."""
    if workload not in WORK:
        return ""
    unit, amount = WORK[workload]
    return f"{amount / seconds:.4g} {unit}"


def can_do(peer, workload):
    if peer in ("gradus-cpu", "gradus-gpu", "torch", "torch-cuda"):
        return True
    # Compilation is about what surrounds operations. A GPU in software has no other peer than burn.
    return workload in COMMON or peer.endswith("compile") and workload == "gpt"


# Their check is an error against f64, of numbers of the order of 1 to 100.
_ERRORS = re.compile(r"mm\d+|bmm|linear\d+|conv\dx\d_.*|attention_.*|embedding_grad|cumsum|adam_10m")


def is_right(workload, check, reference):
    """Whether a check shows a right result; `reference` is another program's."""
    numbers = [float(number) for number in re.findall(r"-?(?:\d+\.?\d*(?:e[+-]?\d+)?|nan|inf)", check or "", re.I)]
    if not numbers:
        return False
    if "wrong" in check:
        return not any(numbers)
    if _ERRORS.fullmatch(workload):
        return all(number < 1e-2 for number in numbers)
    expected = [float(number) for number in re.findall(r"-?\d+\.?\d*(?:e[+-]?\d+)?", reference or "", re.I)]
    pairs = zip(numbers, expected, strict=False)
    return len(numbers) == len(expected) and all(abs(a - b) <= 2e-6 + 1e-3 * abs(b) for a, b in pairs)
