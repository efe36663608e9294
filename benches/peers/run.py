#!/usr/bin/env python3
"""Measures gradus and other libraries in turn, and writes a table. See README.md beside this file.

For each round and each workload, every program runs once, in a process of its own, so that what else the machine does
meets all of them alike.
"""
import argparse
import json
import os
import shlex
import subprocess
import sys
import tempfile
import time
from datetime import date
from pathlib import Path
from statistics import median

import machine
import report
from workloads import ALL, can_do, rate

HERE = Path(__file__).resolve().parent
PROJECT = HERE.parent.parent
CACHE = Path(os.environ.get("PEERS_DIR") or Path.home() / ".cache" / "gradus-peers")
GRADUS = os.environ.get("GRADUS") or str(PROJECT / "target" / "release" / "gradus")
PYTHON = os.environ.get("PEERS_PYTHON") or str(CACHE / "venv" / "bin" / "python")
# No workload of any program takes so many seconds, unless something is wrong.
LIMIT = 1800


def command(peer, workload):
    cold = workload in ("cold", "coldest")
    if peer.startswith("gradus-"):
        name = "cold" if cold else workload
        return [GRADUS, "bench", "--device", peer.removeprefix("gradus-"), "--json", "--workload", name]
    if peer.startswith("torch"):
        options = [option for option in ("cuda", "compile") if option in peer]
        program = ["cold.py"] if cold else ["bench.py", workload]
        return [PYTHON, str(HERE / "torch" / program[0]), *program[1:], *(f"--{option}" for option in options)]
    binaries = CACHE / f"target-{peer}" / "release"
    return [str(binaries / "cold")] if cold else [str(binaries / "bench"), workload]


def available():
    """What can be measured on this machine."""
    kinds = [device["kind"] for device in machine.devices(GRADUS)]
    peers = ["gradus-cpu"] if os.access(GRADUS, os.X_OK) else []
    peers += ["gradus-gpu"] if {"discrete", "integrated", "virtual"} & set(kinds) else []
    peers += ["gradus-software"] if "software" in kinds else []
    rust = ("burn-flex", "burn-wgpu", "candle", "candle-native")
    peers += [peer for peer in rust if os.access(command(peer, "mm256")[0], os.X_OK)]
    if os.access(PYTHON, os.X_OK):
        peers += ["torch", "torch-compile"] + (["torch-cuda", "torch-cuda-compile"] if machine.has_cuda(PYTHON) else [])
    return peers


def measure(peer, workload):
    """A run of a program: what it prints, or why it printed nothing."""
    load, start = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0, time.perf_counter()
    with tempfile.TemporaryDirectory() as empty:
        # What autotuning and drivers keep, for each program its own; nothing of it for `coldest`.
        cache = empty if workload == "coldest" else str(CACHE / f"cache-{peer}")
        environment = dict(os.environ, XDG_CACHE_HOME=cache)
        options = dict(capture_output=True, text=True, timeout=LIMIT, env=environment)
        try:
            done = subprocess.run(command(peer, workload), **options)
        except (OSError, subprocess.TimeoutExpired) as error:
            return dict(w=workload, peer=peer, load=load, error=str(error))
    wall = time.perf_counter() - start
    if done.returncode != 0:
        said = done.stderr.strip() or f"exit status {done.returncode}"
        return dict(w=workload, peer=peer, load=load, error=said[-1500:])
    if workload in ("cold", "coldest"):
        return dict(w=workload, peer=peer, load=load, check=done.stdout.strip(), s=[wall])
    return json.loads(done.stdout.strip().splitlines()[-1]) | dict(w=workload, peer=peer, load=load)


def chosen(text, known, what):
    names = text.split(",") if text else list(known)
    unknown = [name for name in names if name not in known]
    if unknown:
        sys.exit(f"there is no {what} {', '.join(unknown)} here; there are {', '.join(known)}")
    return names


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--peers", help="names, joined by commas; by default all that are there")
    parser.add_argument("--work", help="workloads, joined by commas; by default all")
    parser.add_argument("--name", default=machine.slug(), help="of the machine, and of the table's file")
    parser.add_argument("--add", action="store_true", help="adds to what was measured before instead of starting anew")
    parser.add_argument("--replace", action="store_true", help="as --add; what is measured again, as after a change, is forgotten")
    parser.add_argument("--table", action="store_true", help="writes the table again, and measures nothing")
    arguments = parser.parse_args()
    raw, table = CACHE / f"results-{arguments.name}.jsonl", PROJECT / "benches" / "results" / f"{arguments.name}.md"
    if not arguments.table:
        peers = chosen(arguments.peers, available(), "program")
        workloads = chosen(arguments.work, ALL, "workload")
        CACHE.mkdir(parents=True, exist_ok=True)
        if arguments.replace:
            forget(raw, peers, workloads)
        with open(raw, "a" if arguments.add or arguments.replace else "w", encoding="utf-8") as file:
            about = machine.describe(GRADUS, PROJECT, HERE, PYTHON) | {"date": date.today().isoformat()}
            made = shlex.join(["python3", "benches/peers/run.py", *sys.argv[1:]])
            print(json.dumps({"machine": about, "command": made}), file=file, flush=True)
            for number in range(1, arguments.rounds + 1):
                for workload in workloads:
                    for peer in [peer for peer in peers if can_do(peer, workload)]:
                        record = measure(peer, workload)
                        print(json.dumps(record), file=file, flush=True)
                        print(f"round {number}  {workload:24} {peer:16} {said(record)}", file=sys.stderr, flush=True)
    table.parent.mkdir(parents=True, exist_ok=True)
    with open(raw, encoding="utf-8") as file:
        table.write_text(report.markdown(arguments.name, [json.loads(line) for line in file]), encoding="utf-8")
    print(f"{table.relative_to(PROJECT)}, from {raw}", file=sys.stderr)


def forget(raw, peers, workloads):
    """Leaves out what was measured of some programs at some workloads."""
    with open(raw, encoding="utf-8") as file:
        lines = [(line, json.loads(line)) for line in file]
    kept = [line for line, record in lines if record.get("peer") not in peers or record.get("w") not in workloads]
    raw.write_text("".join(kept), encoding="utf-8")


def said(record):
    if "error" in record:
        return "failed: " + record["error"].splitlines()[-1]
    time = median(record["s"])
    return f"{report.seconds(time):10} {rate(record['w'], time):20} check {record['check']}"


if __name__ == "__main__":
    main()
