"""Several CPU processes under torchrun against one process."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from firsttoken import alphas, models, records, sink_rates, tensor_parallel
from firsttoken.errors import FirstTokenError
from firsttoken.execution import choose
from firsttoken.sink_rates import SinkRates
from tiny import tiny_model

NAMES = ("llama", "gemma3_text", "qwen2_moe")
IDS = torch.arange(3, 88).reshape(5, 17)
CHILD = """
import sys, torch, torch.distributed as dist
from firsttoken import alphas, models
out, *folders = sys.argv[1:]
gather, found = alphas.gather_heads, {}
for folder in folders:
    local = []
    alphas.gather_heads = lambda part, heads: local.append(part.shape[-1]) or gather(part, heads)
    lm = models.load(folder, device="cpu")
    found[folder] = alphas.alphas(lm, torch.arange(3, 88).reshape(5, 17), batch_tokens=34), local
if dist.get_rank() == 0:
    torch.save(found, out)
dist.destroy_process_group()
"""


def torchrun(processes: int, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    return subprocess.run([*command, *arguments], capture_output=True, text=True, timeout=180)


def test_two_processes_equal_one(tmp_path: Path) -> None:
    folders, out, child = [tmp_path / name for name in NAMES], tmp_path / "alpha.pt", tmp_path / "child.py"
    for name, folder in zip(NAMES, folders, strict=True):
        tiny_model(name).save_pretrained(folder)
    child.write_text(CHILD)
    done = torchrun(2, str(child), str(out), *map(str, folders))
    assert done.returncode == 0, done.stderr
    for folder, (found, local_heads) in torch.load(out).items():
        assert local_heads == [2], "each process should have seen half of the four heads"
        assert found.shape == (5, 4, 4)
        expected = alphas.alphas(models.load(folder, device="cpu"), IDS)
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


def test_the_command_writes_the_record_of_one_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FIRSTTOKEN_RESULTS", str(tmp_path / "several"))
    asked = ("--passages", "2", "--length", "16", "--device", "cpu")
    # Nine heads and three key-value heads: three processes.
    done = torchrun(3, "-m", "firsttoken.tensor_parallel", "smollm2-135m", *asked)
    assert done.returncode == 0, done.stderr
    found = records.read(tmp_path / "several" / "sink_rates" / "smollm2-135m.json")
    monkeypatch.setenv("FIRSTTOKEN_RESULTS", str(tmp_path / "one"))
    lm = models.load("smollm2-135m", device="cpu")
    expected = sink_rates.measure(lm, SinkRates(passages=2, length=16), fresh=True)
    # Stored numbers have five decimals, and a head at a threshold may fall on either side.
    assert list(records.differences(found.values["alpha"], expected.values["alpha"], 2e-5)) == []
    assert list(records.differences(found.values["mass"], expected.values["mass"], 1e-5)) == []
    assert found.parameters == expected.parameters


def test_heads_that_do_not_divide_are_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    lm = models.load("smollm2-135m", device="cpu")
    with pytest.raises(FirstTokenError, match="9 attention heads and 3 key-value heads"):
        tensor_parallel.sharded_model(lm)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 2)
    whole = torch.rand(5, 4, 8)
    assert tensor_parallel.gather_heads(whole, 8) is whole
    with pytest.raises(FirstTokenError, match="8 heads over 2 processes are not 3 each"):
        tensor_parallel.gather_heads(whole[..., :3], 8)


def test_it_needs_torchrun() -> None:
    lm = models.load("smollm2-135m", device="cpu")
    with pytest.raises(FirstTokenError, match="torchrun --nproc-per-node"):
        choose(lm, "tensor_parallel")
