"""Measurements as a page of Markdown."""
from statistics import median

from workloads import ALL, is_right, rate

# In this order they stand in tables.
PEERS = ["gradus-cpu", "gradus-gpu", "gradus-software", "torch", "torch-compile", "torch-cuda",
         "torch-cuda-compile", "candle", "candle-native", "burn-flex", "burn-wgpu"]
# Those of them that compute on a GPU.
ON_GPU = ("torch-cuda", "torch-cuda-compile", "burn-wgpu")


def seconds(time):
    """A time with three digits, in the unit that suits it."""
    scaled, unit = next((time * factor, unit) for factor, unit, least in
                        ((1, "s", 1), (1e3, "ms", 1e-3), (1e6, "µs", 0)) if time >= least)
    return f"{scaled:.{0 if scaled >= 100 else 1 if scaled >= 10 else 2}f} {unit}"


class Result:
    """What all runs of a program measured of a workload."""

    def __init__(self, records):
        good = [record for record in records if "s" in record]
        errors = [record["error"] for record in records if "error" in record]
        self.failed = [f"failed {len(errors)}×: {errors[-1].splitlines()[-1].replace('|', '/')}"] if errors else []
        self.samples = sorted(sample for record in good for sample in record["s"])
        self.check = good[-1]["check"] if good else None
        self.first = median(record["first"] for record in good) if good and "first" in good[0] else None
        self.memory = max((record.get("rss_mb", 0) for record in good), default=0)
        self.is_right = False

    @property
    def median(self):
        return median(self.samples)

    @property
    def low(self):
        return self.samples[len(self.samples) // 10]

    @property
    def high(self):
        return self.samples[-1 - len(self.samples) // 10]


def results(records):
    """By workload and program; that of gradus on the CPU, or of whoever is first, tells what a check should be."""
    table = {}
    for workload in ALL:
        of = {peer: [r for r in records if r.get("w") == workload and r.get("peer") == peer] for peer in PEERS}
        row = {peer: Result(found) for peer, found in of.items() if found}
        reference = next((result.check for result in row.values() if result.check), None)
        for result in row.values():
            result.is_right = bool(result.samples) and is_right(workload, result.check, reference)
        if row:
            table[workload] = row
    return table


def pairs(table):
    """Which program of gradus each peer is compared with: the one on the same sort of device."""
    there = {peer for row in table.values() for peer in row}
    on_gpu = "gradus-gpu" if "gradus-gpu" in there else "gradus-software"
    of = [(on_gpu if peer in ON_GPU else "gradus-cpu", peer) for peer in PEERS if not peer.startswith("gradus")]
    return [(ours, peer) for ours, peer in of if ours in there and peer in there]


def rows(heading, lines):
    yield "| " + " | ".join(heading) + " |"
    yield "|" + " --- |" * len(heading)
    for line in lines:
        yield "| " + " | ".join(line) + " |"
    yield ""


def comparison(table):
    """A table of ratios, and what there is to say of each loss."""
    against, losses, counted, lines = pairs(table), [], 0, []
    for workload, row in table.items():
        line = [f"`{workload}`"]
        for ours, peer in against:
            mine, other = row.get(ours), row.get(peer)
            if not (mine and other):
                line.append("")
                continue
            if not (mine.is_right and other.is_right):
                # Who is fast and wrong has not won.
                wrong = [name for name, result in ((ours, mine), (peer, other)) if not result.is_right]
                line.append(", ".join(wrong) + ": no right result")
                continue
            counted += 1
            ratio = mine.median / other.median
            line.append(f"**{ratio:.2f}**" if ratio > 1 else f"{ratio:.2f}")
            if ratio > 1:
                noise = " (within the noise: the ranges overlap)" if mine.low <= other.high else ""
                losses.append((ratio, f"- `{workload}`: {peer} is {ratio:.2f} times as fast as {ours}{noise}"))
        lines.append(line)
    heading = ["workload", *(f"{ours} / {peer}" for ours, peer in against)]
    losses = [text for _, text in sorted(losses, key=lambda loss: -loss[0])]
    return list(rows(heading, lines)), losses, counted


def measurements(table):
    for workload, row in table.items():
        for peer, result in row.items():
            name = [f"`{workload}`", peer]
            if not result.samples:
                yield [*name, "", "", "", "", "", *result.failed]
                continue
            check = "; ".join([result.check + ("" if result.is_right else " **wrong**"), *result.failed])
            first = "" if result.first is None else seconds(result.first)
            memory = f"{result.memory:.0f} MB" if result.memory else ""
            span = f"{seconds(result.low)} – {seconds(result.high)}"
            yield name + [seconds(result.median), span, rate(workload, result.median), first, memory, check]


def markdown(name, records):
    heads = [record for record in records if "machine" in record]
    table = results(records)
    loads = sorted(record["load"] for record in records if "load" in record)
    ratios, losses, counted = comparison(table)
    about = [[label, text] for label, text in heads[-1]["machine"].items()]
    if loads:
        about.append(["load average before runs", f"median {median(loads):.1f}, at most {loads[-1]:.1f}"])
    lines = [f"# {name}", "", *rows(["", ""], about)]
    lines += ["Made by", "", "```sh", "bash benches/peers/build.sh", *(head["command"] for head in heads), "```", ""]
    lines += ["What the workloads are, and how they are measured, is told in [benches/peers](../peers/README.md).", ""]
    if ratios and counted:
        lines += ["## gradus and its peers", "",
                  "The time of gradus, divided by the peer's (medians): 0.50 is half the time. "
                  "**Bold, above 1: the peer is faster.**", "", *ratios]
        lines += ["### Where a peer is faster", "", f"In {len(losses)} of {counted} comparisons.", "", *losses]
        lines += [""] if losses else []
    heading = ["workload", "program", "median", "p10 – p90", "rate", "first", "memory", "check"]
    lines += ["## Measurements", "", *rows(heading, measurements(table))]
    return "\n".join(lines).rstrip() + "\n"
