"""What the Trainer costs: tokens a second beside a plain PyTorch loop on the same model, text and precision.

    python benchmarks/pretrain.py                   # budget cpu, causal and intra-document
    python benchmarks/pretrain.py --record          # also write the record that the book shows

Both take turns for a few rounds; a round times its last steps, when everything is warm. Goal: 0.8 or more.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader
from transformers import LlamaForCausalLM, Trainer, TrainerCallback, set_seed
from transformers.trainer_callback import PrinterCallback

from firsttoken import estimates, records
from firsttoken.pretraining import budgets, train
from firsttoken.pretraining.corpora import Corpus, open_corpus
from firsttoken.pretraining.packing import Packing, Windows, collate
from firsttoken.pretraining.run_spec import Training, bf16_pays

WARM = 4  # steps of a round that are not timed


class Clock(TrainerCallback):
    """When each step ended."""

    def __init__(self) -> None:
        self.ends: list[float] = []

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.ends.append(time.perf_counter())


def parts(training: Training, corpus: Corpus, steps: int) -> tuple[LlamaForCausalLM, Windows]:
    settings = training.settings()
    set_seed(training.seed)
    model = LlamaForCausalLM(settings.config(training.packing.length))
    count = steps * settings.tokens_per_step // training.packing.length
    return model, Windows(corpus, training.packing, count, training.seed)


def with_trainer(training: Training, corpus: Corpus, steps: int) -> tuple[float, float]:
    """Tokens a second, and the loss of the last step."""
    settings = training.settings()
    model, windows = parts(training, corpus, steps)
    clock = Clock()
    with tempfile.TemporaryDirectory() as folder:
        args = train.arguments(settings, training.packing.length, Path(folder), training.seed)
        args.max_steps, args.save_strategy, args.logging_steps = steps, "no", steps
        trainer = Trainer(
            model=model,
            args=args,
            train_dataset=windows,
            data_collator=partial(collate, packing=training.packing),
            callbacks=[clock],
        )
        trainer.remove_callback(PrinterCallback)
        trainer.train()
    seconds = clock.ends[-1] - clock.ends[WARM - 1]
    loss = next(entry["loss"] for entry in trainer.state.log_history if "loss" in entry)
    return (steps - WARM) * settings.tokens_per_step / seconds, loss


def with_loop(training: Training, corpus: Corpus, steps: int) -> tuple[float, float]:
    """The same in the fewest lines: autocast, clipping, AdamW and warm-up, as the Trainer does them."""
    settings = training.settings()
    model, windows = parts(training, corpus, steps)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model.to(device).train()
    step_model = torch.compile(model) if settings.compile and device == "cuda" else model
    rows, accumulated = train.share(settings, training.packing.length, 1)
    loader = iter(
        DataLoader(windows, rows, shuffle=True, collate_fn=partial(collate, packing=training.packing), drop_last=True)
    )
    optimiser = torch.optim.AdamW(model.parameters(), settings.learning_rate, betas=(0.9, 0.95), fused=True)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: min(1.0, (step + 1) / WARM))
    ends, losses = [], []
    for _ in range(steps):
        total = 0.0
        for _ in range(accumulated):
            batch = {name: value.to(device) for name, value in next(loader).items()}
            with torch.autocast(device, torch.bfloat16, enabled=bf16_pays()):
                loss = step_model(**batch, use_cache=False).loss / accumulated
            loss.backward()
            total += float(loss.detach())
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        scheduler.step()
        optimiser.zero_grad()
        losses.append(total)
        ends.append(time.perf_counter())
    return (steps - WARM) * settings.tokens_per_step / (ends[-1] - ends[WARM - 1]), statistics.mean(losses)


def measure(budget: str, rounds: int, steps: int) -> estimates.JSON:
    values: estimates.JSON = {}
    for masking in ("causal", "intra_document"):
        training = Training(budget, Packing(budgets.budget(budget).length, masking, "fixed"))
        corpus = open_corpus(training.settings().corpus)
        pairs = []
        for number in range(rounds):
            ours, loss = with_trainer(training, corpus, steps)
            theirs, plain_loss = with_loop(training, corpus, steps)
            pairs.append((ours, theirs))
            print(
                f"{masking}, round {number + 1}: {ours:,.0f} and {theirs:,.0f} tokens a second, mean loss {loss:.3f} "
                f"and {plain_loss:.3f}",
                flush=True,
            )
        ratios = sorted(ours / theirs for ours, theirs in pairs)
        values[masking] = {
            "ratio": statistics.median(ratios),
            "ratio_range": [ratios[0], ratios[-1]],
            "tokens_per_second": statistics.median(ours for ours, _ in pairs),
            "plain_tokens_per_second": statistics.median(theirs for _, theirs in pairs),
        }
        print(f"{masking}: {values[masking]}", flush=True)
    return values


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--budget", default="cpu")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=24)
    parser.add_argument("--record", action="store_true", help="write results/local/benchmark_pretrain/<run>.json")
    args = parser.parse_args()
    if not args.record:
        measure(args.budget, args.rounds, args.steps)
        return
    training = Training(args.budget)
    records.reuse_or_measure(
        "benchmark_pretrain",
        model=training,
        parameters={"rounds": args.rounds, "steps": args.steps},
        texts_hash=open_corpus(training.settings().corpus).hash,
        measure=lambda: measure(args.budget, args.rounds, args.steps),
        fresh=True,
    )


if __name__ == "__main__":
    main()
