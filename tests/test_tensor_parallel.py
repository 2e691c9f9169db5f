"""Two CPU processes under torchrun against one process."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from firsttoken import alphas, models
from firsttoken.errors import FirstTokenError
from firsttoken.execution import choose
from tiny import tiny_model

CHILD = """
import sys, torch, torch.distributed as dist
from firsttoken import alphas, models
folder, out = sys.argv[1:]
gather, local = alphas.gather_heads, []
alphas.gather_heads = lambda found, heads: local.append(found.shape[-1]) or gather(found, heads)
lm = models.load(folder, device="cpu")
ids = torch.arange(3, 88).reshape(5, 17)
alpha = alphas.alphas(lm, ids, batch_tokens=34)
if dist.get_rank() == 0:
    torch.save((alpha, local), out)
dist.destroy_process_group()
"""


@pytest.mark.parametrize("name", ["llama", "gemma3_text"])
def test_two_processes_equal_one(name: str, tmp_path: Path) -> None:
    folder, out, child = tmp_path / "model", tmp_path / "alpha.pt", tmp_path / "child.py"
    tiny_model(name).save_pretrained(folder)
    child.write_text(CHILD)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(child)]
    done = subprocess.run([*command, str(folder), str(out)], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    expected = alphas.alphas(models.load(str(folder), device="cpu"), torch.arange(3, 88).reshape(5, 17))
    found, local_heads = torch.load(out)
    assert local_heads == [2], "each process should have seen half of the four heads"
    assert found.shape == (5, 4, 4)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


def test_it_needs_torchrun() -> None:
    lm = models.load("smollm2-135m", device="cpu")
    with pytest.raises(FirstTokenError, match="torchrun --nproc-per-node"):
        choose(lm, "tensor_parallel")
