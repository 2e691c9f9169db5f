"""Designs of attention in a LLaMa-style model: against loops, against transformers' own, and trained for a moment."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import AttentionInterface, LlamaConfig, LlamaForCausalLM, TrainingArguments

from firsttoken.errors import FirstTokenError
from firsttoken.pretraining import checkpoint_probe, design_outcomes, designs, train
from firsttoken.pretraining.budgets import budget
from firsttoken.pretraining.corpora import BOS, EOS, open_corpus
from firsttoken.pretraining.packing import Packing, Windows, collate
from firsttoken.pretraining.run_spec import Training, from_command_line
from firsttoken.pretraining.smallest import ATTENTIONS


def config() -> LlamaConfig:
    return LlamaConfig(
        vocab_size=40, hidden_size=16, intermediate_size=24, num_hidden_layers=3, num_attention_heads=2,
        num_key_value_heads=2, max_position_embeddings=32, tie_word_embeddings=True, initializer_range=0.2,
    )  # fmt: skip


def model_of(design: str) -> LlamaForCausalLM:
    torch.manual_seed(0)
    model = designs.build(config(), design)
    for layer in designs.attention_layers(model):
        if layer.sink_logit is not None:
            layer.sink_logit.data = torch.tensor([0.7, -1.1])
    return model.eval()


@pytest.fixture
def ids() -> Tensor:
    ids = torch.randint(2, 40, (3, 12), generator=torch.Generator().manual_seed(1))
    ids[:, 0] = BOS
    return ids


@pytest.mark.parametrize("design", ATTENTIONS)
def test_attention_is_what_a_loop_gives(design: str, ids: Tensor) -> None:
    """Every layer's output from its queries, keys and values, one head and query at a time."""
    model = model_of(design)
    seen: list[tuple[Tensor, ...]] = []
    inputs: list[Tensor] = []
    outputs: list[Tensor] = []

    def attend(layer: Any, query: Tensor, key: Tensor, value: Tensor, mask: None, scaling: float, **_: Any) -> Any:
        seen.append((query, key, value))
        return designs.attend(layer, query, key, value, mask, scaling)

    layers = designs.attention_layers(model)
    for layer in layers:
        layer.register_forward_pre_hook(lambda _, __, named: inputs.append(named["hidden_states"]), with_kwargs=True)
        layer.o_proj.register_forward_pre_hook(lambda _, args: outputs.append(args[0]))
    patch = pytest.MonkeyPatch()
    patch.setitem(AttentionInterface._global_mapping, designs.NAME, attend)
    with patch.context(), torch.no_grad():
        model(ids)
    patch.undo()
    assert len(seen) == len(outputs) == 3
    for layer, (query, key, value), reads, output in zip(layers, seen, inputs, outputs, strict=True):
        expected = torch.zeros(3, 12, 2, 8)
        for text, head, place in product(range(3), range(2), range(12)):
            scores = [float(query[text, head, place] @ key[text, head, j]) / math.sqrt(8) for j in range(place + 1)]
            if design == "sigmoid":
                shares = [1 / (1 + math.exp(-score)) for score in scores]
            else:
                below = sum(map(math.exp, scores))
                below += {"off_by_one": 1.0, "sink_logit": math.exp([0.7, -1.1][head])}.get(design, 0.0)
                shares = [math.exp(score) / below for score in scores]
            mixed = sum(share * value[text, head, j] for j, share in enumerate(shares))
            if design == "gate":
                mixed = mixed * torch.sigmoid(layer.gate.weight[8 * head : 8 * head + 8] @ reads[text, place])
            expected[text, place, head] = mixed
        torch.testing.assert_close(output, expected.flatten(2), atol=1e-5, rtol=1e-4)


def test_softmax_is_transformers_own(ids: Tensor) -> None:
    ours = model_of("softmax")
    own = LlamaForCausalLM(config())
    own.load_state_dict(ours.state_dict())
    with torch.no_grad():
        torch.testing.assert_close(ours(ids).logits, own.eval()(ids).logits, atol=1e-5, rtol=1e-5)
    assert designs.design_of(ours) == "softmax"
    assert designs.design_of(own) is None
    for read, probed in zip(designs.read(ours, ids), checkpoint_probe._probed(own, ids), strict=True):
        torch.testing.assert_close(read, probed, atol=1e-5, rtol=1e-4)


def test_designs_begin_with_the_same_weights() -> None:
    plain = model_of("softmax").state_dict()
    for design in ATTENTIONS:
        state = model_of(design).state_dict()
        assert all(torch.equal(state[name], weight) for name, weight in plain.items())
        assert len(state) == len(plain) + 3 * (design in ("gate", "sink_logit"))


def test_what_the_first_token_gets_of_a_row() -> None:
    rows = torch.tensor([[0.5, 0.25], [3.0, 1.0], [0.2, 0.2], [0.0, 0.0]])
    assert designs.to_first(rows).tolist() == pytest.approx([0.5, 0.75, 0.2, 0.0])


@pytest.mark.parametrize("design", ["softmax", "sigmoid"])
def test_outcomes_are_what_single_passes_give(design: str, ids: Tensor) -> None:
    model, texts = model_of(design), ids[:, 1:]
    outcomes = design_outcomes.outcomes(model, texts, seed=3, batch_tokens=11)  # a text at a time
    random = torch.Generator().manual_seed(3)
    rows = torch.cat([torch.full((3, 1), BOS), texts[:, :-1]], dim=1)
    spread = own = 0.0
    largest = 0.0

    def stream(text: Tensor) -> Tensor:
        """Behind each layer, from passes through ever fewer layers: (layer, token, width)."""
        states = model(text[None], output_hidden_states=True).hidden_states[1:3]
        last: list[Tensor] = []
        handle = model.model.norm.register_forward_pre_hook(lambda _, args: last.append(args[0]))
        model(text[None])
        handle.remove()
        return torch.cat([*states, *last])

    with torch.no_grad():
        for row in rows:
            before = stream(row)
            largest = max(largest, *(float(layer.abs().max() / layer.abs().median()) for layer in before))
            for _ in range(design_outcomes.EDITS):
                position = torch.randint(1, 10, (1,), generator=random)
                edited = design_outcomes.replaced(row[None], position, rows, random)[0]
                assert (edited != row).nonzero().flatten().tolist() == position.tolist()
                moved = (stream(edited) - before).norm(dim=-1) / before.norm(dim=-1)
                spread += float(moved[:, position + 1 :].mean())
                own += float(moved[:, position].mean())
    assert outcomes["spread_over_own"]["value"] == pytest.approx(spread / own, rel=1e-4)
    assert outcomes["largest_activation"] == pytest.approx(largest, abs=0.006)
    assert (outcomes["row_sum"]["value"] == pytest.approx(1.0)) == (design == "softmax")


def test_a_run_says_its_design() -> None:
    plain, gated = Training("lab"), Training("lab", design="gate")
    assert "design" not in plain.told()
    assert gated.told()["design"] == "gate"
    assert gated.slug == f"{plain.slug}-design-gate"
    assert gated.provenance()["fingerprint"] != plain.provenance()["fingerprint"]
    assert from_command_line("lab", {"design": "gate"}) == gated


@pytest.mark.parametrize(
    ("training", "words"),
    [
        (Training("smoke", Packing(64), design="softplus"), "no design 'softplus'"),
        (Training("smoke", Packing(64, "intra_document"), design="gate"), "causal masking"),
        (Training("smoke", Packing(64, reset_positions=True), design="gate"), "positions of the window"),
        (Training("smoke", Packing(64), first_penalty=0.1), "give design=softmax"),
        (Training("smoke", Packing(64), replaced=1.0), "is a share"),
    ],
)
def test_designs_that_cannot_be_trained(training: Training, words: str) -> None:
    with pytest.raises(FirstTokenError, match=words):
        training.settings()


def test_a_design_is_trained_and_taken_up_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture
) -> None:
    """A gate and its optimiser come back from a checkpoint: halted half-way, a run ends with the same losses."""
    monkeypatch.setenv("FIRSTTOKEN_RESULTS", str(tmp_path))
    training = Training("smoke", Packing(64, "causal", "fixed"), design="gate")
    whole = train.measure(training, fresh=True)
    assert whole is not None
    assert whole.values["design"]["row_sum"]["value"] == pytest.approx(1.0, abs=1e-5)
    assert whole.values["losses"][-1][1] < whole.values["losses"][0][1]
    assert not train.kept_folder(training).exists()

    class Halted(Exception):
        pass

    def halt(self: Any, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.global_step == 30:
            raise Halted

    with monkeypatch.context() as patch:
        patch.setattr(train.Watch, "on_step_end", halt)
        with pytest.raises(Halted):
            train.measure(training, fresh=True)
    (tmp_path / "pretraining" / whole.filename).unlink()
    again = train.measure(training)
    assert again is not None
    assert "taken up again after step" in capfd.readouterr().out
    assert again.values["losses"] == whole.values["losses"]


@pytest.mark.parametrize("strength", [0.0, 0.5, -0.5])
def test_a_penalty_is_that_of_all_windows_of_a_step(strength: float, ids: Tensor, tmp_path: Path) -> None:
    """One step of plain gradient descent in two batches against the gradient of the whole, made by hand."""
    rows = torch.cat([ids, ids.flip(0)])[:4]
    model, by_hand = model_of("softmax"), model_of("softmax")
    trainer = train.PenaltyTrainer(
        first_penalty=strength,
        model=model,
        args=TrainingArguments(
            output_dir=str(tmp_path), max_steps=1, per_device_train_batch_size=2, gradient_accumulation_steps=2,
            learning_rate=1.0, optim="sgd", max_grad_norm=0.0, report_to="none", disable_tqdm=True, use_cpu=True,
            save_strategy="no",
        ),
        train_dataset=[{"input_ids": row, "labels": row} for row in rows],
    )  # fmt: skip
    trainer.train()

    by_hand.train()
    with designs.watched(by_hand) as (attention, _):
        loss = by_hand(rows, labels=rows).loss
    to_first = [each[:, head, query, 0] for each in attention for head in range(2) for query in range(1, 12)]
    (loss + strength * torch.stack(to_first).mean()).backward()
    for (name, trained), start in zip(model.named_parameters(), by_hand.parameters(), strict=True):
        assert start.grad is not None
        torch.testing.assert_close(trained, start - start.grad, atol=2e-5, rtol=1e-4, msg=name)


def test_replaced_tokens_are_read_and_not_predicted(tmp_path: Path) -> None:
    corpus = open_corpus(budget("smoke").corpus)
    packing = Packing(64, "causal", "fixed")
    plain, noisy = Windows(corpus, packing, 40, seed=3), Windows(corpus, packing, 40, seed=3, replaced=0.25)
    batch = collate([noisy[index] for index in range(40)], packing)
    true = collate([plain[index] for index in range(40)], packing)["input_ids"]
    assert torch.equal(batch["labels"], true)
    changed = batch["input_ids"] != true
    assert 0.2 < changed.float().mean() < 0.27
    assert not changed[:, 0].any()
    assert not changed[true == EOS].any()
    assert batch["input_ids"].max() < corpus.spec.vocabulary
    again = Windows(corpus, packing, 40, seed=3, replaced=0.25)
    assert all((again[index].read == noisy[index].read).all() for index in (17, 3, 39))
    other = Windows(corpus, packing, 40, seed=4, replaced=0.25)
    assert (other[0].read != noisy[0].read).any()


def test_a_run_says_what_its_recipe_is() -> None:
    plain = Training("lab", Packing(256, "causal", "fixed"), design="softmax")
    penalised, rewarded = (replace(plain, first_penalty=strength) for strength in (0.03, -0.03))
    noisy = replace(plain, replaced=0.05)
    assert {"first_penalty", "replaced"}.isdisjoint(plain.told())
    assert penalised.told()["first_penalty"] == 0.03
    ends = ["penalised-0-03", "rewarded-0-03", "replaced-0-05"]
    assert [one.slug.removeprefix(f"{plain.slug}-") for one in (penalised, rewarded, noisy)] == ends
    asked = {"design": "softmax", "first_penalty": "-0.03", "masking": "causal", "bos": "fixed", "length": "256"}
    assert from_command_line("lab", asked) == rewarded


def test_steps_are_timed_side_by_side() -> None:
    times = design_outcomes.step_times(budget("smoke"), ("softmax", "sigmoid"), threads=1, rounds=3)
    assert times["softmax"]["value"] == 1.0
    assert 0 < times["sigmoid"]["low"] <= times["sigmoid"]["value"] <= times["sigmoid"]["high"]
    assert times["sigmoid"]["n"] == 3
