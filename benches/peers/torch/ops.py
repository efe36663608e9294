"""Single operations, and some with their gradients."""
import torch
from torch.nn import functional as F

from common import data, repeat


def product(name, _):
    shapes = {"bmm": ((32, 128, 64), (32, 64, 128))}
    n = 0 if name in shapes else int(name[2:])
    a, b = shapes.get(name, ((n, n), (n, n)))
    a, b = data(a, 1), data(b, 2)
    repeat(name, lambda: torch.matmul(a, b), lambda c: f"{(a.double() @ b.double() - c).abs().max().item():.1e}")


LINEAR = {
    "linear1": (1, 1024, 4096), "linear2": (2, 1024, 4096), "linear8": (8, 1024, 4096), "linear64": (64, 1024, 1024),
    "linear512": (512, 512, 512),
}


def linear(name, _):
    rows, inputs, outputs = LINEAR[name]
    x, weight = data((rows, inputs), 1), data((outputs, inputs), 2)
    exact = x.double() @ weight.double().T
    repeat(name, lambda: F.linear(x, weight), lambda y: f"{(exact - y).abs().max().item():.1e}")


def chain(name, best):
    shape = (1 << 22,) if name == "chain" else (4096, 1024)
    x, w, b = data(shape, 3, 2.0), data(shape, 4), data(shape, 5)

    def f():
        y = F.gelu(x * w + b)
        return (y * y).sum()
    f = torch.compile(f) if best else f
    repeat(name, lambda: f().item(), lambda total: f"{total:.2f}")


def rows(name, best):
    x, gain, bias = data((4096, 1024), 6, 4.0), data((1024,), 7), data((1024,), 8)
    if name == "softmax":
        def f():
            return torch.softmax(x, 1)
    else:
        def f():
            return F.layer_norm(x, (1024,), gain, bias, 1e-5)
    f = torch.compile(f) if best else f
    repeat(name, f, lambda y: f"{y[4095, 0]:.6f} {y[4095, 1023]:.6f}")


SIZES = {
    "conv3x3_64": (3, 64, 64, 56), "conv3x3_128": (3, 128, 128, 28), "conv3x3_256": (3, 256, 256, 14),
    "conv3x3_512": (3, 512, 512, 7), "conv1x1_64_256": (1, 64, 256, 56), "conv1x1_512_128": (1, 512, 128, 28),
}


def convolution(name, _):
    size, part = next((size, name[len(size) + 1:]) for size in SIZES if name.startswith(size + "_"))
    kernel, inputs, outputs, extent = SIZES[size]
    x = data((8, inputs, extent, extent), 51)
    weight = data((outputs, inputs, kernel, kernel), 52)
    cotangent = data((8, outputs, extent, extent), 53)
    padding = kernel // 2
    f = {
        "forward": lambda x, w, c: F.conv2d(x, w, padding=padding),
        "input_grad": lambda x, w, c: torch.nn.grad.conv2d_input(x.shape, w, c, padding=padding),
        "weight_grad": lambda x, w, c: torch.nn.grad.conv2d_weight(x, w.shape, c, padding=padding),
    }[part]
    exact = f(x.double(), weight.double(), cotangent.double())
    repeat(name, lambda: f(x, weight, cotangent), lambda got: f"{(exact - got).abs().max().item():.1e}")


def attention(name, _):
    _, length, part = name.split("_")
    shape = (1, 8, int(length), 64)
    inputs = [data(shape, 61, 4.0), data(shape, 62, 2.0), data(shape, 63)]
    cotangent = data(shape, 64)

    def f(inputs, cotangent):
        if part == "forward":
            return [F.scaled_dot_product_attention(*inputs, is_causal=True)]
        with torch.enable_grad():
            inputs = [x.detach().requires_grad_() for x in inputs]
            output = F.scaled_dot_product_attention(*inputs, is_causal=True)
            return [output.detach(), *torch.autograd.grad(output, inputs, cotangent)]

    def check(got):
        # Head by head, for less memory.
        errors = []
        for head in range(8):
            def one(x):
                return x[:, head:head + 1].double()
            exact = f([one(x) for x in inputs], one(cotangent))
            errors.append([(a - one(b)).abs().max() for a, b in zip(exact, got)])
        errors = torch.tensor(errors).amax(0)
        of_all = [errors[0], errors[1:].amax()] if part == "grad" else errors
        return " ".join(f"{error:.1e}" for error in of_all)
    repeat(name, lambda: f(inputs, cotangent), check)


def embedding(name, _):
    words, width, count = 50_000, 256, 8192
    table = data((words, width), 72)
    u = (data((count,), 71) + 1) / 2
    tokens = (u * u * (u * u) * words).long()
    if name == "embedding":
        return repeat(name, lambda: F.embedding(tokens, table), lambda y: f"{(y != table[tokens]).sum().item()} wrong")
    cotangent = data((count, width), 73)
    exact = torch.zeros(words, width, dtype=torch.float64).index_add_(0, tokens, cotangent.double())
    repeat(name, lambda: torch.ops.aten.embedding_dense_backward(cotangent, tokens, words, -1, False),
           lambda y: f"{(exact - y).abs().max().item():.1e}")


def order(name, _):
    x = data((1, 1 << 20) if name == "argsort" else (1024, 1024), 81)
    expected = torch.argsort(x.double(), dim=1, descending=True, stable=True)
    if name == "topk_rows":
        def check(got):
            wrong = [(got[0] != x.gather(1, expected[:, :10])).sum(), (got[1] != expected[:, :10]).sum()]
            return ", ".join(f"{count.item()} wrong" for count in wrong)
        return repeat(name, lambda: torch.topk(x, 10, 1), check)
    repeat(name, lambda: torch.argsort(x, dim=1, descending=True, stable=True),
           lambda got: f"{(got != expected).sum().item()} wrong")


def cumsum(name, _):
    x = data((1 << 20,), 81) + 1
    exact = x.double().cumsum(0)
    repeat(name, lambda: x.cumsum(0), lambda y: f"{((y - exact).abs() / exact).max().item():.1e}")


def reduction(name, _):
    x, axis = data((128, 256, 128), 6), int(name[-1])
    kind = name[:-len("_axis0")]
    f = {"sum": torch.sum, "max": torch.amax, "argmax": torch.argmax}[kind]
    expected = f(x.double(), dim=axis)
    check = {
        "sum": lambda y: f"{(y * y).sum().item():.2f}",
    }.get(kind, lambda y: f"{(y != expected).sum().item()} wrong")
    repeat(name, lambda: f(x, dim=axis), check)


WORKLOADS = {
    **{name: product for name in ("mm256", "mm512", "mm1024", "mm2048", "bmm")},
    **{name: linear for name in LINEAR},
    "chain": chain, "chain2d": chain, "softmax": rows, "layernorm": rows,
    **{f"{size}_{part}": convolution for size in SIZES for part in ("forward", "input_grad", "weight_grad")},
    **{f"attention_{n}_{part}": attention for n in (512, 1024, 2048, 4096) for part in ("forward", "grad")},
    "embedding": embedding, "embedding_grad": embedding,
    "argsort": order, "argsort_rows": order, "topk_rows": order, "cumsum": cumsum,
    **{name: reduction for name in ("sum_axis0", "sum_axis1", "sum_axis2", "max_axis1", "argmax_axis1")},
}
