"""Pretrain a small LLaMa-style model and watch its sink form: `Training` says what, `measure` does it.

>>> record = measure(Training("cpu", Packing(length=256, bos="fixed")))

Under the hood it is `transformers.Trainer`: warm-up, accumulation, bf16, torch.compile, data parallelism under
`torchrun`. A run that is killed goes on from its last whole checkpoint when the same training is asked for again, with
the same losses.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import LlamaForCausalLM, PreTrainedModel, Trainer, TrainerCallback, TrainingArguments, set_seed
from transformers.trainer_callback import PrinterCallback
from transformers.utils import logging as transformers_logging

from firsttoken import records
from firsttoken.errors import FirstTokenError
from firsttoken.estimates import JSON
from firsttoken.files import cache_folder
from firsttoken.models.machine import matmul_rate
from firsttoken.models.out_of_memory import explain_out_of_memory
from firsttoken.models.quiet import no_progress_bar
from firsttoken.pretraining import checkpoint_probe, design_outcomes, designs
from firsttoken.pretraining.budgets import Budget
from firsttoken.pretraining.corpora import Corpus, open_corpus
from firsttoken.pretraining.only_trainer import only_trainer, remove_checkpoints
from firsttoken.pretraining.packing import Windows, collate
from firsttoken.pretraining.run_spec import CLAIM, SHORT, Training, bf16_pays, fingerprint
from firsttoken.progress import duration
from firsttoken.records import Record

VERSION = 1
LOGS = 200  # losses in a curve, about
EVERY = 60  # seconds between lines that say how far a run is
_WHOLE = "whole"  # the file that a checkpoint has when all its other files are there


class Watch(TrainerCallback):
    """Measures the model in training at chosen steps and keeps the numbers in the Trainer's own history, which every
    checkpoint holds; marks checkpoints that are whole, and says now and then how long it will take."""

    def __init__(self, texts: Tensor, steps: frozenset[int], name: str, say: Callable[[str], None]) -> None:
        self.texts, self.steps, self.name, self.say = texts, steps, name, say
        self.measuring = 0.0  # seconds
        self.first = self.begun = self.said = 0.0

    def on_train_begin(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:
        if state.global_step == 0:
            self._measure(state, model)
        self.first = state.global_step
        self.begun = self.said = time.perf_counter()

    def on_step_end(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:
        if state.global_step in self.steps:
            self._measure(state, model)
        now = time.perf_counter()
        if now - self.said > EVERY:
            self.said = now
            left = (now - self.begun) / (state.global_step - self.first) * (state.max_steps - state.global_step)
            self.say(f"{self.name}: step {state.global_step} of {state.max_steps}, {duration(left)} left")

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.is_world_process_zero:
            (Path(args.output_dir) / f"checkpoint-{state.global_step}" / _WHOLE).touch()

    def _measure(self, state: Any, model: PreTrainedModel) -> None:
        if state.is_world_process_zero:
            start = time.perf_counter()
            state.log_history.append({"step": state.global_step, "probe": checkpoint_probe.point(model, self.texts)})
            self.measuring += time.perf_counter() - start


class PenaltyTrainer(Trainer):
    """Adds to the loss of a `designs` model its mean attention to the first token, over layers, heads and all queries
    but the first, times `first_penalty` nats."""

    def __init__(self, *, first_penalty: float, **options: Any) -> None:
        super().__init__(**options)
        self.first_penalty = first_penalty

    def compute_loss(
        self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        if not self.first_penalty:
            return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        with designs.watched(self.accelerator.unwrap_model(model)) as (attention, _):
            loss, outputs = super().compute_loss(model, inputs, True, num_items_in_batch)
        mean = torch.stack([designs.to_first(each)[..., 1:].mean() for each in attention]).mean()
        # The loss of one of several batches of a step is divided by the tokens of all; the penalty is theirs in equal
        # parts.
        loss = loss + self.first_penalty * mean / self.args.gradient_accumulation_steps
        return (loss, outputs) if return_outputs else loss


def probe_steps(steps: int) -> frozenset[int]:
    """About 25 steps, closer together at the beginning, where sinks form."""
    return frozenset({max(1, round(steps * (i / 25) ** 1.5)) for i in range(1, 26)})


def share(settings: Budget, length: int, processes: int) -> tuple[int, int]:
    """Windows at once on one device, and how often gradients are accumulated; both together make up one step whatever
    the length and the number of processes.

    Raises:
        FirstTokenError: a step's windows cannot be shared evenly.
    """
    windows = settings.tokens_per_step // length
    if windows % processes:
        raise FirstTokenError(f"{windows} windows a step cannot be shared among {processes} processes; use a divisor.")
    own = windows // processes
    rows = max(1, min(own, settings.batch_tokens // length))
    while own % rows:
        rows -= 1
    return rows, own // rows


def arguments(settings: Budget, length: int, folder: Path, seed: int) -> TrainingArguments:
    """What the Trainer needs to know."""
    rows, accumulated = share(settings, length, int(os.environ.get("WORLD_SIZE", "1")))
    on_cpu = not torch.cuda.is_available()
    logging_steps = max(1, settings.steps // LOGS)
    return TrainingArguments(
        output_dir=str(folder),
        max_steps=settings.steps,
        per_device_train_batch_size=rows,
        gradient_accumulation_steps=accumulated,
        learning_rate=settings.learning_rate,
        weight_decay=settings.weight_decay,
        adam_beta2=0.95,
        warmup_steps=max(1, round(settings.warmup * settings.steps)),
        lr_scheduler_type=settings.schedule,
        bf16=bf16_pays(),
        torch_compile=settings.compile and not on_cpu,
        use_cpu=on_cpu,
        logging_steps=logging_steps,
        # A multiple of it, so that no mean loss is over steps of which a killed run has forgotten a part.
        save_steps=logging_steps * max(1, round(settings.steps / 20 / logging_steps)),
        save_total_limit=2,
        seed=seed,
        remove_unused_columns=False,
        dataloader_num_workers=0 if on_cpu else 4,
        report_to="none",
        disable_tqdm=True,
        log_level="error",
    )


def work_folder(training: Training, corpus: Corpus) -> Path:
    """Where the checkpoints of a run are, whichever process asks."""
    return cache_folder() / "pretraining" / f"{training.slug}-{fingerprint([training.provenance(), corpus.hash])}"


def step_of(checkpoint: Path) -> int:
    """The step behind which a checkpoint was made."""
    return int(checkpoint.name.removeprefix("checkpoint-"))


def last_checkpoint(folder: Path) -> Path | None:
    """The newest whole checkpoint; those that a killed run left unfinished are removed."""
    whole = []
    for path in folder.glob("checkpoint-*"):
        if (path / _WHOLE).exists():
            whole.append((step_of(path), path))
        elif int(os.environ.get("RANK", "0")) == 0:
            shutil.rmtree(path, ignore_errors=True)
    return max(whole)[1] if whole else None


def train(training: Training, corpus: Corpus, say: Callable[[str], None] = print) -> tuple[LlamaForCausalLM, JSON]:
    """Train, or go on training, and return the model with its curves.

    Returns:
        the model
        values  # `curve` {step: probe}, `losses` [[step, loss]], `tokens_per_second` and so on, see `measure`
    """
    settings = training.settings()
    folder = work_folder(training, corpus)
    args = arguments(settings, training.packing.length, folder, training.seed)
    count = settings.steps * settings.tokens_per_step // training.packing.length
    windows = Windows(corpus, training.packing, count, training.seed, training.least, training.replaced)
    set_seed(training.seed)
    config = settings.config(max(training.packing.length, SHORT))
    model = LlamaForCausalLM(config) if training.design is None else designs.build(config, training.design)
    watch = Watch(
        checkpoint_probe.held_out(corpus, settings.texts, SHORT), probe_steps(settings.steps), training.slug, say
    )
    transformers_logging.set_verbosity_error()
    trainer = PenaltyTrainer(
        first_penalty=training.first_penalty,
        model=model,
        args=args,
        train_dataset=windows,
        data_collator=partial(collate, packing=training.packing),
        callbacks=[watch],
    )
    trainer.remove_callback(PrinterCallback)
    checkpoint = last_checkpoint(folder)
    first = step_of(checkpoint) if checkpoint else 0
    if first:
        say(f"{training.slug}: taken up again after step {first} of {settings.steps}")
    else:
        say(
            f"{training.slug}: {settings.steps} steps of {settings.tokens_per_step} tokens, "
            f"{model.num_parameters()} weights"
        )
    start = time.perf_counter()
    with (
        no_progress_bar(),
        explain_out_of_memory(f"lower batch_tokens of the budget {training.budget}, or give a shorter context"),
    ):
        trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    seconds = time.perf_counter() - start - watch.measuring
    rate = (settings.steps - first) * settings.tokens_per_step / seconds  # of this process, 0 if all was done before
    flops = rate * settings.flops_per_token(training.packing.length)
    # A model of another design is none that a chapter could load.
    if trainer.is_world_process_zero() and training.design is None:
        _keep(trainer, training, corpus)
    history: list[Any] = trainer.state.log_history
    return model, {
        "curve": [{"step": entry["step"], **entry["probe"]} for entry in history if "probe" in entry],
        "losses": [[entry["step"], round(entry["loss"], 4)] for entry in history if "loss" in entry],
        "tokens": settings.steps * settings.tokens_per_step,
        "weights": model.num_parameters(),
        "rounds": round(windows.rounds, 4),
        "windows_shared": round(windows.shared(), 4),
        "tokens_per_second": round(rate, 1),
        "flops_per_second": flops,
        "share_of_matmul_rate": round(flops / matmul_rate(args.bf16), 4),
    }


def kept_folder(training: Training) -> Path:
    """Where the trained model is, for `firsttoken run CHAPTER --model FOLDER`."""
    return cache_folder() / "pretrained" / training.slug


def _keep(trainer: Trainer, training: Training, corpus: Corpus) -> None:
    """Save the trained weights in bfloat16 with a tokenizer that puts BOS first if training did."""
    folder = kept_folder(training)
    shutil.rmtree(folder, ignore_errors=True)
    model = trainer.accelerator.unwrap_model(trainer.model, keep_torch_compile=False)
    rounded = LlamaForCausalLM(model.config).bfloat16()
    rounded.load_state_dict(model.state_dict())
    with no_progress_bar():
        rounded.save_pretrained(folder)
    corpus.tokenizer(with_bos=training.packing.bos != "never").save_pretrained(folder)


def measure(training: Training, fresh: bool = False, reference: bool | None = None) -> Record | None:
    """The record `pretraining/<training.slug>.json`: trains unless a record of the same text and settings exists.

    Its values: `curve` (both arms at some steps, see `checkpoint_probe.point`), `losses`, `final` {tokens of a text:
    both arms with intervals}, `design` (of such a run, see `design_outcomes`), `tokens`, `weights`, `rounds` through
    the corpus, `windows_shared` by several documents, `tokens_per_second`, `flops_per_second`, and
    `share_of_matmul_rate`, which divides that by what a large matrix product reaches on the same device.

    Args:
        reference: as in `records.reuse_or_measure`.

    Returns:
        the record; None in all but the first process of several

    Raises:
        AlreadyTraining: another process is at it.
    """
    settings = training.settings()
    corpus = open_corpus(settings.corpus)
    length = training.packing.length
    lengths = sorted({SHORT, length})
    texts = {tokens: checkpoint_probe.held_out(corpus, settings.texts, tokens) for tokens in lengths}
    folder = work_folder(training, corpus)
    question: JSON = {
        "model": training,
        "parameters": training.told(),
        "texts_hash": corpus.hash,
        "version": VERSION,
        "reference": reference,
    }
    # Under torchrun every process trains, and the first of them measures and writes.
    if int(os.environ.get("RANK", "0")):
        if fresh or records.reusable(CLAIM, **question) is None:
            if fresh:
                shutil.rmtree(folder, ignore_errors=True)
            train(training, corpus, say=lambda line: None)
        return None

    held = ExitStack()

    def run() -> JSON:
        held.enter_context(only_trainer(folder, training.slug))
        if fresh:
            shutil.rmtree(folder, ignore_errors=True)
        model, values = train(training, corpus, partial(print, flush=True))
        values["final"] = {str(tokens): checkpoint_probe.in_full(model, texts[tokens]) for tokens in lengths}
        if training.design is not None:
            values["design"] = design_outcomes.outcomes(model, texts[SHORT])
        return values

    with held:
        record = records.reuse_or_measure(CLAIM, measure=run, fresh=fresh, **question)
    remove_checkpoints(folder, training.slug)
    return record
