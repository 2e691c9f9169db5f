"""What a machine has, as far as it decides how a model can be run on it."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

import psutil
import torch

_CGROUP = Path("/sys/fs/cgroup")


@dataclass(frozen=True)
class Machine:
    """A real or an imagined machine. Rates are in bytes a second and floating-point operations a second."""

    name: str
    ram: float  # bytes
    gpus: int = 0
    gpu_memory: float = 0.0  # bytes of each
    disk_rate: float = 2e9  # sequential reading
    compute_rate: float = 1e11  # matrix products in the precision of the run, all devices together


def free_memory(device: str) -> int:
    """Bytes that a process can still take on a device; of the machine's memory also what its container allows."""
    if device.startswith("cuda"):
        return int(torch.cuda.mem_get_info(torch.device(device))[0])
    free = psutil.virtual_memory().available
    limit, used = _CGROUP / "memory.max", _CGROUP / "memory.current"
    if limit.exists() and used.exists() and (text := limit.read_text().strip()).isdigit():
        free = min(free, int(text) - int(used.read_text()) + _reclaimable())
    return max(int(free), 0)


def _reclaimable() -> int:
    """Page cache counts as used in a container but gives way."""
    lines = (_CGROUP / "memory.stat").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("inactive_file "))


def matmul_rate(bf16: bool, rounds: int = 8) -> float:
    """Operations a second of a large square matrix product on the device that trains: the best of a few rounds."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    size = 8192 if device == "cuda" else 1024
    a, b = torch.randn(2, size, size, device=device, dtype=torch.bfloat16 if bf16 else torch.float32)
    best = float("inf")
    for _ in range(rounds):
        start = time.perf_counter()
        product = a @ b
        float(product[0, 0])  # waits for a GPU
        best = min(best, time.perf_counter() - start)
    return 2.0 * size**3 / best
