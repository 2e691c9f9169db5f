"""Several CPU processes under torchrun against one process."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from firsttoken import models, records, torchrun
from firsttoken.claims.sink_rates import measure as sink_rates
from firsttoken.errors import FirstTokenError
from firsttoken.execution import tensor_parallel
from firsttoken.execution.choose import choose
from firsttoken.measures import first_token_attention
from firsttoken.measures.first_token_summary import Parameters
from tiny import tiny_model

NAMES = ("llama", "gemma3_text", "qwen2_moe")
IDS = torch.arange(3, 88).reshape(5, 17)
CHILD = """
import sys, torch, torch.distributed as dist
from firsttoken import models, torchrun
from firsttoken.measures import first_token_attention as measure
out, *folders = sys.argv[1:]
gather, alphas = measure.gather_heads, {}
for folder in folders:
    local = []
    measure.gather_heads = lambda part, heads: local.append(part.shape[-1]) or gather(part, heads)
    lm = models.load(folder, device="cpu")
    alphas[folder] = measure.alphas(lm, torch.arange(3, 88).reshape(5, 17), batch_tokens=34), local
if dist.get_rank() == 0:
    torch.save(alphas, out)
sys.exit(torchrun.main([folders[0], "--passages", "4", "--length", "16", "--device", "cpu"]))
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What two processes found: `alpha.pt`, and as a command the record of the first model."""
    folder = tmp_path_factory.mktemp("two")
    tokenizer = models.load("smollm2-135m").tokenizer
    for name in NAMES:
        model = tiny_model(name)
        if name == NAMES[0]:
            model.resize_token_embeddings(len(tokenizer))
            tokenizer.save_pretrained(folder / name)
        model.save_pretrained(folder / name)
    (folder / "child.py").write_text(CHILD)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    arguments = [folder / name for name in ("child.py", "alpha.pt", *NAMES)]
    environment = os.environ | {"FIRSTTOKEN_RESULTS": str(folder / "results"), "OMP_NUM_THREADS": "1"}
    done = subprocess.run([*command, *arguments], capture_output=True, text=True, timeout=180, env=environment)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.mark.parametrize("name", NAMES)
def test_two_processes_equal_one(name: str, folder: Path) -> None:
    alpha, local_heads = torch.load(folder / "alpha.pt")[str(folder / name)]
    assert local_heads == [2], "each process should have seen half of the four heads"
    assert alpha.shape == (5, 4, 4)
    expected = first_token_attention.alphas(models.load(str(folder / name), device="cpu"), IDS)
    torch.testing.assert_close(alpha, expected, atol=1e-5, rtol=0)


@pytest.fixture(scope="module")
def expected(folder: Path) -> records.Record:
    """What the command should write, of one process."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FIRSTTOKEN_RESULTS", str(folder / "expected"))
        lm = models.load(str(folder / NAMES[0]), device="cpu")
        return sink_rates.MEASUREMENT.record(lm, Parameters(passages=4, length=16), fresh=True)


def test_the_command_writes_the_record_of_one_process(folder: Path, expected: records.Record) -> None:
    (path,) = (folder / "results" / "sink_rates").iterdir()
    record = records.read(path)
    assert record.parameters == expected.parameters
    # Stored numbers of alpha have five decimals, of which the last may be rounded the other way.
    assert list(records.differences(record.values["alpha"], expected.values["alpha"], 2e-5)) == []
    assert list(records.differences(record.values["mass"], expected.values["mass"], 1e-5)) == []


def test_two_launchers_that_meet_write_one_record(folder: Path, expected: records.Record, tmp_path: Path) -> None:
    """The command for several machines, with two launchers on this one."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        meeting = f"127.0.0.1:{free.getsockname()[1]}"
    options = ["--nnodes=2", "--nproc-per-node=1", "--rdzv-backend=c10d", f"--rdzv-endpoint={meeting}"]
    measure = [
        "-m",
        "firsttoken.torchrun",
        str(folder / NAMES[0]),
        "--passages=4",
        "--length=16",
        "--device=cpu",
    ]
    machines = [
        subprocess.Popen(
            [sys.executable, "-m", "torch.distributed.run", *options, *measure],
            env=os.environ | {"FIRSTTOKEN_RESULTS": str(tmp_path / name), "OMP_NUM_THREADS": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for name in ("one", "other")
    ]
    for machine in machines:
        out, _ = machine.communicate(timeout=180)
        assert machine.returncode == 0, out
    (path,) = tmp_path.glob("*/sink_rates/*.json")
    assert list(records.differences(records.read(path).values["alpha"], expected.values["alpha"], 2e-5)) == []


@pytest.mark.parametrize("rank", ["0", "1"])
def test_a_former_name_is_taken_and_the_first_process_says_so(
    rank: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    asked = []
    monkeypatch.setenv("RANK", rank)
    monkeypatch.setattr(type(sink_rates.MEASUREMENT), "record", lambda self, lm, settings, **_: asked.append(settings))
    with contextlib.suppress(AttributeError):  # there is no record to tell of
        torchrun.main(["smollm2-135m", "--texts", "languages", "--device", "cpu"])
    assert asked[0].text_source == "languages"
    line = "The parameter texts is called text_source now; its value is taken.\n"
    assert capsys.readouterr().out == (line if rank == "0" else "")


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
