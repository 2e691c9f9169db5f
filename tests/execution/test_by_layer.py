"""Measures of single layers, streamed from disk against the model in memory, and a pass that was killed."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from fake import Letters
from firsttoken import models
from firsttoken.claims.smoothing import measure as smoothing
from firsttoken.errors import FirstTokenError
from firsttoken.execution import by_layer
from firsttoken.execution.by_layer import attention, through_layers
from firsttoken.measures import attention_maps, spread
from firsttoken.measures.bos_arms import ARMS
from firsttoken.measures.bos_contrast import first_token_mass
from firsttoken.probe import Probe
from firsttoken.probe.residual_stream import residual_stream
from firsttoken.texts.edits import Edit
from tiny import ARCHITECTURES, tiny_model

pytestmark = pytest.mark.usefixtures("one_thread", "own_cache")

TEXTS, LENGTH = 5, 17


@pytest.fixture(autouse=True)
def bos_without_a_tokenizer(monkeypatch: pytest.MonkeyPatch) -> None:
    """No tokenizer is saved with these models; token 1 is their BOS."""
    monkeypatch.setattr(models.LanguageModel, "prefix", lambda self, bos: [] if bos == "never" else [1])
    monkeypatch.setattr(models.LanguageModel, "tokenizer", Letters())


def ids() -> Tensor:
    return torch.randint(3, 97, (TEXTS, LENGTH), generator=torch.Generator().manual_seed(1))


def saved(name: str, folder: Path) -> models.LanguageModel:
    tiny_model(name).save_pretrained(folder, max_shard_size="20KB")
    return models.load(str(folder), device="cpu")


def edit(text: int, position: int) -> Edit:
    return Edit(text, position, (int(ids()[text, position]) + 1) % 97, "random", "middle")


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_residual_stream_and_attention_of_every_layer(name: str, tmp_path: Path) -> None:
    lm = saved(name, tmp_path / "model")
    batches = [ids()[:2], ids()[2:]]  # of unequal size

    def see(number: int, layer: int, v: Tensor, p: Probe) -> Tensor:
        assert len(v) == len(batches[number])
        shown = attention(p, layer)[..., 0].mean(1) if layer else torch.zeros(len(v), LENGTH)
        return torch.cat([v.float(), shown[..., None]], dim=-1)

    expected = residual_stream(lm.model, ids())
    for execution in ("resident", "streamed"):
        of_layer = through_layers(lm, batches, see, execution=execution)
        assert list(of_layer) == list(range(len(expected)))
        assert [len(part) for part in of_layer[1]] == [2, 3]
        together = torch.stack([torch.cat(parts) for parts in of_layer.values()])
        torch.testing.assert_close(together[..., :-1], expected, atol=1e-5, rtol=1e-5)
        if execution == "resident":
            resident = together
    torch.testing.assert_close(together, resident, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", ["llama", "gemma3_text", "gpt_neox", "qwen3"])
@pytest.mark.parametrize("arm", ARMS)
def test_measures_of_mixing_stream_from_disk(name: str, arm: str, tmp_path: Path) -> None:
    lm = saved(name, tmp_path / "model")
    edits = [edit(3, 4), edit(1, 9), edit(3, 12), edit(0, 0)]

    def measured(execution: str) -> list[Tensor]:
        moved = spread.run_edits(lm, ids(), edits, arm, 4 * LENGTH, execution)  # type: ignore[arg-type]
        rows = smoothing.rows(lm, ids(), arm, 2 * LENGTH, execution=execution)  # type: ignore[arg-type]
        mass = first_token_mass(lm, ids(), arm, execution=execution)  # type: ignore[arg-type]
        maps = attention_maps.every_map(lm, ids()[:1], execution)
        return [
            moved.absolute,
            moved.relative,
            rows.entropy,
            rows.renyi2,
            rows.first,
            torch.tensor(mass["value"]),
            maps,
        ]

    for streamed, resident in zip(measured("streamed"), measured("resident"), strict=True):
        torch.testing.assert_close(streamed, resident, atol=1e-5, rtol=1e-4)


def test_a_killed_pass_with_a_task_is_taken_up_again(tmp_path: Path) -> None:
    lm = saved("llama", tmp_path / "model")
    calls: list[tuple[int, int]] = []
    stop_at = 2

    def see(number: int, layer: int, v: Tensor, p: Probe) -> Tensor:
        if layer == stop_at:
            raise KeyboardInterrupt
        calls.append((number, layer))
        return v.norm(dim=-1)

    batches = [ids()[:2], ids()[2:]]
    with pytest.raises(KeyboardInterrupt):
        through_layers(lm, batches, see, execution="streamed", task="norms")
    stop_at, before = -1, list(calls)
    calls.clear()
    of_layer = through_layers(lm, batches, see, execution="streamed", task="norms")
    assert before == [(0, 0), (1, 0), (0, 1), (1, 1)]
    assert min(layer for _, layer in calls) == 2, "finished layers are not run again"
    expected = residual_stream(lm.model, ids()).norm(dim=-1)
    assert list(of_layer) == list(range(len(expected)))
    torch.testing.assert_close(torch.stack([torch.cat(parts) for parts in of_layer.values()]), expected)
    assert not list((tmp_path / "cache" / "streaming").glob("*.safetensors"))


def test_a_pass_killed_after_its_last_layer_is_taken_up_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lm = saved("llama", tmp_path / "model")
    batches = [ids()[:2], ids()[2:]]
    calls: list[int] = []

    def see(number: int, layer: int, v: Tensor, p: Probe) -> Tensor:
        calls.append(layer)
        return v[1:].norm(dim=-1)  # fewer rows than the batch has

    def streamed() -> dict[int, list[Tensor]]:
        return through_layers(lm, batches, see, execution="streamed", task="norms of all rows but the first")

    def killed(self: models.LanguageModel) -> None:
        raise KeyboardInterrupt

    expected = through_layers(lm, batches, see)
    with monkeypatch.context() as patch:
        patch.setattr(models.LanguageModel, "refuse_replaced", killed)
        with pytest.raises(KeyboardInterrupt):
            streamed()
    calls.clear()
    of_layer = streamed()
    assert calls == [], "nothing is run again"
    assert list(of_layer) == list(expected)
    for layer, parts in expected.items():
        torch.testing.assert_close(of_layer[layer], parts)


def test_the_same_texts_cut_into_other_batches_are_another_pass(tmp_path: Path) -> None:
    lm = saved("llama", tmp_path / "model")
    stop_at = 2

    def see(number: int, layer: int, v: Tensor, p: Probe) -> Tensor:
        if layer == stop_at:
            raise KeyboardInterrupt
        return v[0].norm(dim=-1)[None]

    with pytest.raises(KeyboardInterrupt):
        through_layers(lm, [ids()[:2], ids()[2:]], see, execution="streamed", task="norms of the first row")
    stop_at, batches = -1, [ids()[:3], ids()[3:]]
    of_layer = through_layers(lm, batches, see, execution="streamed", task="norms of the first row")
    expected = residual_stream(lm.model, ids()).norm(dim=-1)[:, [0, 3]]
    torch.testing.assert_close(torch.stack([torch.cat(parts) for parts in of_layer.values()]), expected)


def test_several_processes_are_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lm = saved("llama", tmp_path / "model")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(FirstTokenError, match="runs in one process"):
        by_layer.through_layers(lm, [ids()], lambda *given: None, execution="auto")
