"""What measurements were made on, in words."""
import json
import os
import platform
import re
import subprocess


def _output(command, **options):
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, **options).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ""


def _processor():
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            names = re.findall(r"^model name\s*: (.*)$", file.read(), re.M)
    except OSError:
        names = []
    if not names and platform.system() == "Darwin":
        names = [_output(["sysctl", "-n", "machdep.cpu.brand_string"])]
    return re.sub(r"\((R|TM)\)|\s+CPU\b", "", names[0]) if names else platform.processor() or platform.machine()


def _cores():
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


def _system():
    try:
        release = platform.freedesktop_os_release().get("PRETTY_NAME", "")
    except OSError:
        release = ""
    return ", ".join(filter(None, [release, f"{platform.system()} {platform.release()}", platform.machine()]))


def devices(gradus):
    """What `gradus devices --json` lists."""
    text = _output([gradus, "devices", "--json"])
    return json.loads(text)["devices"] if text else []


def has_cuda(python):
    """Whether PyTorch can use an NVIDIA GPU."""
    return _output([python, "-c", "import torch; print(torch.cuda.is_available())"]) == "True"


def _version(gradus, project):
    commit = _output(["git", "rev-parse", "--short", "HEAD"], cwd=project)
    changed = ", changed since" if _output(["git", "status", "--porcelain", "-uno"], cwd=project) else ""
    return _output([gradus, "--version"]) + (f" ({commit}{changed})" if commit else "")


def _peer_versions(here, python):
    with open(os.path.join(here, "Cargo.lock"), encoding="utf-8") as file:
        lock = file.read()
    found = [re.search(rf'name = "{name}"\nversion = "(.*)"', lock) for name in ("burn", "candle-core")]
    torch = _output([python, "-c", "import torch; print(torch.__version__)"])
    names = [f"{name} {match[1]}" for name, match in zip(("burn", "candle"), found) if match]
    return ", ".join(names + ([f"PyTorch {torch}"] if torch else []))


def describe(gradus, project, here, python):
    """Label and text of each thing that there is to say."""
    adapters = [f"{d['device']}: {d['name']} ({d['kind']}, {d['backend']}, {d['driver']})"
                for d in devices(gradus) if d["device"] != "cpu"]
    return {
        "processor": f"{_processor()}, {_cores()} cores",
        "system": _system(),
        "adapters": "<br>".join(adapters) or "none",
        "gradus": _version(gradus, project),
        "compiler": _output(["rustc", "--version"]),
        "peers": _peer_versions(here, python),
    }


def slug():
    """A name for a file."""
    return re.sub(r"[^a-z0-9]+", "-", f"{_processor()} {_cores()} cores".lower()).strip("-")
