"""Where a measurement was made: code, packages, machine. Every record says so."""

from __future__ import annotations

import os
import platform
import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

from firsttoken.files import INSTALLED


def git_state(root: Path) -> dict[str, Any]:
    """The commit of the code in `root` and whether tracked files differ from it; `None` outside a checkout."""
    if INSTALLED:  # `root` is the caller's folder, and its commit says nothing of this code
        return {"commit": None, "dirty": None}

    def git(*arguments: str) -> str | None:
        try:
            done = subprocess.run(["git", "-C", str(root), *arguments], capture_output=True, text=True, timeout=20)
        except (OSError, subprocess.TimeoutExpired):
            return None
        return done.stdout.strip() if done.returncode == 0 else None

    changed = git("status", "--porcelain", "--untracked-files=no", "--", "src", "notebooks")
    return {"commit": git("rev-parse", "HEAD"), "dirty": None if changed is None else bool(changed)}


def environment(device: str | None = None) -> dict[str, Any]:
    """Package versions, this one's included, and the machine, as far as they can change a number; see `machine`."""
    packages = ("firsttoken", "torch", "transformers", "numpy", "gguf")
    return {
        "packages": {name: version for name in packages if (version := _version(name))},
        "python": platform.python_version(),
        **machine(device),
    }


def _version(package: str) -> str:
    """Of an installed package; empty where there is none, as in a checkout that is only on the path."""
    try:
        return metadata.version(package).split("+")[0]
    except metadata.PackageNotFoundError:
        return ""


def machine(device: str | None = None) -> dict[str, Any]:
    """The machine and its threads as torch sees them; nothing is measured without torch, and reading needs none. Of a
    processor it also says which vector instructions torch uses, for sums are rounded by them.

    Args:
        device: what measured, as torch calls it; where none is given, what models are trained on.
    """
    torch: Any = sys.modules.get("torch")
    if torch is None:
        return {"machine": _processor(), "threads": _cores()}
    # A record put together of others names the device of these, which this computer need not have.
    if (device is None or device.startswith("cuda")) and torch.cuda.is_available():
        name = torch.cuda.get_device_name(device)
    else:
        name = f"{_processor()}, {torch.backends.cpu.get_cpu_capability()}"
    return {"machine": name, "threads": torch.get_num_threads()}


def _processor() -> str:
    """The processor's name and how many cores this process may use."""
    name = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists() and (match := re.search(r"^model name\s*:\s*(.+)$", info.read_text(), re.MULTILINE)):
        name = match[1]
    return f"{name}, {_cores()} cores"


def _cores() -> int | None:
    """How many this process may use, which may be fewer than there are."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
