"""Streamed execution against the resident model: the same numbers, each weight read once, killed and resumed."""

from __future__ import annotations

import io
import json
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from firsttoken import models
from firsttoken.errors import FirstTokenError
from firsttoken.execution import choose
from firsttoken.execution.streaming import Streamed, StreamedModel
from firsttoken.measures import first_token_attention
from firsttoken.probe import probe
from firsttoken.progress import Progress
from tiny import ARCHITECTURES, tiny_model

pytestmark = pytest.mark.usefixtures("one_thread")

TEXTS, LENGTH = 5, 17


def ids() -> torch.Tensor:
    return torch.randint(3, 97, (TEXTS, LENGTH), generator=torch.Generator().manual_seed(1))


def saved(name: str, folder: Path) -> models.LanguageModel:
    """A tiny model as several shards."""
    tiny_model(name).save_pretrained(folder, max_shard_size="20KB")
    assert len(list(folder.glob("*.safetensors"))) > 2
    return models.load(str(folder), device="cpu")


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_streamed_equals_resident(name: str, tmp_path: Path) -> None:
    lm = saved(name, tmp_path)
    with torch.inference_mode(), probe(lm.model, keys=[0, 3], entropy=True) as p:
        out = lm.model(ids(), use_cache=False, output_hidden_states=True)
    streamed = StreamedModel(lm)
    hidden: dict[int, list[torch.Tensor]] = {}

    with probe(streamed.model, keys=[0, 3], entropy=True) as q:

        def observe(layer: int, states: torch.Tensor) -> torch.Tensor:
            hidden.setdefault(layer, []).append(states.clone())
            return torch.cat([q.per_layer()[layer], q.per_layer("entropy")[layer][..., None]], dim=-1)

        streamed_pass = streamed.run(ids(), observe, batch_tokens=2 * LENGTH, reduce_logits=lambda logits: logits)

    expected = torch.cat([p.attention_per_key, p.entropy[..., None]], dim=-1)
    torch.testing.assert_close(torch.stack(list(streamed_pass.observed.values())), expected, atol=1e-5, rtol=0)
    assert streamed_pass.head is not None
    torch.testing.assert_close(streamed_pass.head, out.logits, atol=1e-5, rtol=1e-5)
    for layer in range(3):  # the last of transformers' hidden states is normalised
        torch.testing.assert_close(torch.cat(hidden[layer]), out.hidden_states[layer + 1], atol=1e-5, rtol=1e-5)
    assert streamed_pass.bytes_read == streamed.checkpoint.bytes


KILLED = """
import os, signal, sys
from pathlib import Path
import torch
sys.path[:0] = sys.argv[1:3]
from test_streaming import ids, run
from firsttoken import models

def kill_in_layer_two(layer: int) -> None:
    if layer == 2:
        os.kill(os.getpid(), signal.SIGKILL)

run(models.load(sys.argv[3], device="cpu"), Path(sys.argv[4]), kill_in_layer_two)
"""


def run(lm: models.LanguageModel, work: Path | None, before: Callable[[int], None] | None = None) -> Streamed:
    """Attention to the first token, streamed in three batches; `before` is called with each layer's number."""
    streamed = StreamedModel(lm)
    with probe(streamed.model, keys=[0]) as p:

        def observe(layer: int, hidden: torch.Tensor) -> torch.Tensor:
            if before is not None:
                before(layer)
            return p.per_layer()[layer]

        return streamed.run(ids(), observe, batch_tokens=2 * LENGTH, reduce_logits=lambda x: x, work=work, task="test")


def test_killed_and_taken_up_again(tmp_path: Path) -> None:
    model, work = tmp_path / "model", tmp_path / "work"
    lm = saved("gemma3_text", model)
    expected = run(lm, None)
    folders = [Path(__file__).parent, Path(__file__).parents[1]]
    command = [sys.executable, "-c", KILLED, *map(str, [*folders, model, work])]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    resumed = run(lm, work)
    assert resumed.first_layer == 2
    layers = StreamedModel(lm).layer_bytes()
    assert resumed.bytes_read == expected.bytes_read - layers[0] - layers[1]
    assert resumed.observed.keys() == expected.observed.keys()
    for layer, seen in expected.observed.items():
        torch.testing.assert_close(resumed.observed[layer], seen, atol=1e-6, rtol=0)
    torch.testing.assert_close(resumed.head, expected.head, atol=1e-5, rtol=0)
    assert not list(work.iterdir()), "a finished pass leaves no state behind"


def test_a_damaged_state_is_no_state(tmp_path: Path) -> None:
    lm = saved("llama", tmp_path / "model")

    class Stop(Exception):
        pass

    def stop(layer: int) -> None:
        if layer == 1:
            raise Stop

    work = tmp_path / "work"
    with pytest.raises(Stop):
        run(lm, work, stop)
    (state,) = work.iterdir()
    state.write_bytes(state.read_bytes()[:-7])
    assert run(lm, work).first_layer == 0


def test_the_sink_rates_are_the_same_streamed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FIRSTTOKEN_CACHE", str(tmp_path / "cache"))
    lm = saved("gemma3_text", tmp_path / "model")
    ways = [
        first_token_attention.alphas_of_prefixes(lm, ids(), [8, LENGTH], 64, way) for way in ("resident", "streamed")
    ]
    for length in (8, LENGTH):
        torch.testing.assert_close(ways[1][length], ways[0][length], atol=1e-5, rtol=0)


def test_streaming_is_chosen_where_the_model_does_not_fit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    assert choose.choose(saved("llama", tmp_path / "fits"), "auto") == "resident"
    assert not capsys.readouterr().out
    lm = saved("llama", tmp_path / "large")
    with monkeypatch.context() as patch:
        patch.setattr(choose, "free_memory", lambda device: 100_000)
        assert choose.choose(lm, "auto") == "streamed"
    assert choose.choose(lm, "auto") == "streamed", "the way changed during a measurement"
    line = capsys.readouterr().out
    assert line.count("\n") == 1
    assert "0.0 GB free, so it is streamed from disk" in line
    assert choose.choose(lm, "resident") == "resident"
    with pytest.raises(FirstTokenError, match="execution must be auto, resident"):
        choose.choose(lm, "steamed")


def test_attention_outside_the_interface_is_refused(tmp_path: Path) -> None:
    config = AutoConfig.for_model("bloom", n_layer=2, n_head=4, hidden_size=32, vocab_size=97)
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path)
    with pytest.raises(FirstTokenError, match="outside transformers' attention interface"):
        StreamedModel(models.load(str(tmp_path), device="cpu"))


def test_work_between_the_layers_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lm = saved("llama", tmp_path)
    streamed = StreamedModel(lm)
    forward = type(streamed.layers[0]).__call__
    monkeypatch.setattr(type(streamed.layers[0]), "__call__", lambda *a, **k: 2 * forward(*a, **k))
    with pytest.raises(FirstTokenError, match="does more between its layers"):
        streamed.run(ids(), lambda layer, hidden: None)


@pytest.mark.parametrize("key", ["layers.2.mlp.up_proj.weight", "embed_tokens.weight", "norm.weight"])
def test_weights_that_are_no_numbers_are_refused_where_they_are_read(key: str, tmp_path: Path) -> None:
    """A pass may take hours; it ends at the layer, and those before it have their state."""
    model = saved("llama", tmp_path / "model").model
    model.get_parameter(f"model.{key}").data[-1:] = torch.nan
    model.save_pretrained(tmp_path / "model", max_shard_size="20KB")
    work = tmp_path / "work"
    with pytest.raises(FirstTokenError, match=rf"{re.escape(key)} holds weights that are no numbers in float32"):
        run(models.load(str(tmp_path / "model"), device="cpu"), work)
    assert bool(list(work.glob("*"))) == key.startswith("layers")


def test_a_quantised_checkpoint_is_refused(tmp_path: Path) -> None:
    saved("llama", tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    config["quantization_config"] = {"quant_method": "fp8"}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(FirstTokenError, match="quantised"):
        StreamedModel(models.load(str(tmp_path), device="cpu"))


def test_progress_says_how_long_it_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    out, now = io.StringIO(), iter([0.0, 10.0, 40.0, 50.0])
    monkeypatch.setattr(time, "monotonic", lambda: next(now))
    progress = Progress("m", 4, 8 * 10**9, every=30.0, to=out)
    for layer in range(3):
        progress.layer_done(layer, 2 * 10**9)
    assert out.getvalue() == "m: layer 2 of 4, 4.0 of 8.0 GB, 0.10 GB/s, 40 s left\n"
