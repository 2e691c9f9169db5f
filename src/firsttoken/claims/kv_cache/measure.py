"""What a model loses when its key-value cache forgets, and what a few first tokens kept in it are worth.

Literature: StreamingLLM (arXiv 2309.17453). A window of the newest tokens alone ruins a model once the first tokens
leave it; with four of them kept it goes on. The paper discusses this as related work and measures none of it.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, get_args

import torch
from torch import Tensor

from firsttoken import records, statistics, texts
from firsttoken.errors import FirstTokenError
from firsttoken.estimates import JSON, interval
from firsttoken.measures import task_scores
from firsttoken.measures.cache_masks import Kept, Policy, Positions, evicting
from firsttoken.measures.sink_window_cache import cache_bytes, sink_window_cache
from firsttoken.models import BosPolicy, LanguageModel
from firsttoken.models.anatomy import layer_kinds
from firsttoken.probe import probe
from firsttoken.probe.attention import AttentionCall
from firsttoken.probe.interventions import Hook
from firsttoken.probe.losses import logits_at, mean_losses
from firsttoken.records import Record, Verdict

SINKS = (1, 2, 4, 8)
STRIDE = 4  # the loss is taken at every fourth query, because logits cost more than all layers of a small model
QUESTION_TEXTS = 3  # texts of the retrieval task, eight questions each
MARK = 1000  # a stream is looked at after every so many tokens


@dataclass(frozen=True)
class KvCache:
    """Parameters of the measurement. `batch_tokens` changes no number beyond rounding and is not recorded."""

    windows: int = 6  # texts of `length` tokens, cut from one long document
    length: int = 640
    window: int = 128  # tokens that the cache holds
    needle_length: int = 512  # tokens of the retrieval task
    stream: int = 0  # tokens to generate with a bounded cache, see `measure_stream`
    bos: BosPolicy = "auto"
    seed: int = 0
    batch_tokens: int = 2048


def full_layers(lm: LanguageModel) -> list[int]:
    """The layers that see the whole text; those with a sliding window of their own forget already."""
    return [layer for layer, kind in enumerate(layer_kinds(lm.model)) if kind != "sliding_attention"]


def can_stream(lm: LanguageModel) -> bool:
    """Whether all layers see the whole text, which the bounded cache needs."""
    return len(full_layers(lm)) == lm.config.get_text_config().num_hidden_layers


def policies(lm: LanguageModel, window: int) -> dict[str, Hook | None]:
    """Every policy of the chapter by name. Only those whose names say so touch layers with a sliding window."""
    layers = full_layers(lm)
    depth = lm.config.get_text_config().num_hidden_layers

    def hook(*, kept: Kept, count: int = 0, positions: Positions = "original") -> Hook:
        return evicting(lm.model, Policy(window, kept, count, positions), layers)

    found: dict[str, Hook | None] = {"full": None, "window": hook(kept="none")}
    for count in SINKS:
        found[f"sinks {count}"] = hook(kept="sinks", count=count, positions="cache")
    found["sinks 4, original positions"] = hook(kept="sinks", count=4)
    found["random 4"] = hook(kept="random", count=4)
    found["heavy hitters"] = hook(kept="heavy")
    if len(layers) < depth:
        found["window, sliding layers too"] = evicting(lm.model, Policy(window))
        found["sinks 4, sliding layers too"] = evicting(lm.model, Policy(window, "sinks", 4, "cache"))
        sliding = [layer for layer in range(depth) if layer not in layers]
        for positions in get_args(Positions):
            found[f"sliding layers see the first, {positions} positions"] = first_for_sliding(lm, sliding, positions)
    return found


def first_for_sliding(lm: LanguageModel, layers: Sequence[int], positions: Positions) -> Hook:
    """The full layers as they are; the sliding ones see, beside their own window, the first token of the text."""
    span = int(lm.config.get_text_config().sliding_window)
    policy = Policy(span, "sinks", 1, positions)
    # The mask of such a layer hides the first token already, so it is made anew from the policy.
    inner = evicting(lm.model, policy, layers)

    def hook(module: Any, call: AttentionCall) -> AttentionCall:
        return inner(module, replace(call, mask=None, causal=True) if module.layer_idx in layers else call)

    return hook


def measure(lm: LanguageModel, parameters: KvCache, fresh: bool = False) -> Record:
    """The record `kv_cache/<model>.json`.

    Its values: `perplexity_ratio` (four sinks and a window / the full cache) with interval; `policies`, for each the
    loss past the window, its increase over the full cache and the perplexity; `recovered`, the share of the window's
    increase that four sinks undo, and `recovered_random` by four random tokens; `retrieval`, the share of facts found.
    """
    if parameters.length < 2 * parameters.window or parameters.window < 16 or parameters.windows < 2:
        raise FirstTokenError(
            f"The loss is taken past the window: give length of at least twice window, window of at least 16 and two "
            f"windows, not {parameters.length}, {parameters.window} and {parameters.windows}."
        )
    document = texts.long_text()

    def run() -> JSON:
        ids = texts.windows(lm, document, parameters.length, parameters.windows, parameters.bos)
        hooks = policies(lm, parameters.window)
        loss = {name: losses(lm, ids, parameters, hook) for name, hook in hooks.items()}
        values = summary(loss, parameters.seed)
        names = ("full", "window", "sinks 4", "heavy hitters")
        values["retrieval"] = {name: retrieval(lm, parameters, hooks[name]) for name in names}
        values["sliding_layers"] = lm.config.get_text_config().num_hidden_layers - len(full_layers(lm))
        return values

    return records.reuse_or_measure(
        "kv_cache",
        model=lm,
        parameters=records.recorded(parameters) | {"stream": None},
        texts=texts.texts_hash([document]),
        measure=run,
        judge=judge,
        fresh=fresh,
    )


def remeasure(lm: LanguageModel, record: Record) -> Record:
    """Measure what a record of this claim holds once more, with its own parameters."""
    return measure(lm, KvCache(**{n: v for n, v in record.parameters.items() if v is not None}), fresh=True)


def losses(lm: LanguageModel, ids: Tensor, parameters: KvCache, hook: Hook | None) -> Tensor:
    """Mean loss of each text over the queries past the window, (text,), float64."""
    queries = torch.arange(parameters.window, ids.shape[1] - 1, STRIDE)
    return mean_losses(lm, ids, queries, parameters.batch_tokens, hook)


def summary(loss: dict[str, Tensor], seed: int = 0) -> JSON:
    """Estimates over texts from the mean loss of each, (text,), under each policy."""

    def estimate(numbers: Tensor) -> JSON:
        return asdict(statistics.bootstrap(numbers, seed=seed))

    full, window = loss["full"], loss["window"]
    found: JSON = {"policies": {}}
    for name, numbers in loss.items():
        of_mean = estimate(numbers)
        found["policies"][name] = {
            "loss": of_mean,
            "increase": estimate(numbers - full),
            "perplexity": {k: math.exp(of_mean[k]) for k in ("value", "low", "high")} | {"n": of_mean["n"]},
        }
    ratio = estimate(loss["sinks 4"] - full)
    found["perplexity_ratio"] = {k: math.exp(ratio[k]) for k in ("value", "low", "high")} | {"n": ratio["n"]}
    for name, key in (("sinks 4", "recovered"), ("random 4", "recovered_random")):
        pairs = torch.stack([loss[name] - full, window - full], dim=1)
        found[key] = asdict(
            statistics.bootstrap(pairs, lambda drawn: 1 - drawn[:, 0].sum() / drawn[:, 1].sum(), seed=seed)
        )
    return found


def retrieval(lm: LanguageModel, parameters: KvCache, hook: Hook | None) -> JSON:
    """Share of hidden facts that are found, over texts; the facts lie further back than the window reaches."""
    task = task_scores.needle(lm, parameters.bos, parameters.needle_length, count=QUESTION_TEXTS, seed=parameters.seed)
    shares = []
    for item in task.items:
        positions = torch.tensor([question.position for question in item.questions])
        with torch.inference_mode(), probe(lm.model, hook=hook):
            logits = logits_at(lm, torch.tensor([item.ids]), positions)[0].cpu()
        right = [task_scores.is_right(question, row) for question, row in zip(item.questions, logits, strict=True)]
        shares.append(sum(right) / len(right))
    return asdict(statistics.bootstrap(torch.tensor(shares, dtype=torch.float64), seed=parameters.seed)) | {
        "chance": task.chance
    }


def measure_stream(lm: LanguageModel, parameters: KvCache, fresh: bool = False) -> Record:
    """Generate with a cache that never grows: the record `kv_cache/<model>--stream.json`.

    Its values, for every thousand tokens: `cached` tokens and `bytes` of the cache, `milliseconds` per token, and
    `repeated`, the share of 4-grams that occurred before in the same thousand; `text`, the last words.
    """
    if parameters.stream < MARK:
        raise FirstTokenError(f"stream is how many tokens to generate, at least {MARK}; not {parameters.stream}.")

    return records.reuse_or_measure(
        "kv_cache",
        model=lm,
        parameters={
            "stream": parameters.stream,
            "window": parameters.window,
            "bos": parameters.bos,
            "seed": parameters.seed,
        },
        texts=texts.texts_hash([texts.passages()[0].text]),
        measure=lambda: stream(lm, parameters),
        variant="stream",
        fresh=fresh,
    )


def stream(lm: LanguageModel, parameters: KvCache, sinks: int = 4) -> JSON:
    """Sample `stream` tokens after the first words of a passage, one at a time."""
    prompt = texts.encode(lm, [texts.passages()[0].text], 16, parameters.bos).to(lm.model.device)
    cache = sink_window_cache(lm.model, parameters.window, sinks)
    generator = torch.Generator().manual_seed(parameters.seed)
    values: JSON = {name: [] for name in ("tokens", "cached", "bytes", "milliseconds", "repeated")}
    made: list[int] = []
    token = prompt
    begun = time.perf_counter()
    with torch.inference_mode():
        for number in range(1, parameters.stream + 1):
            logits = lm.model(token, past_key_values=cache, use_cache=True).logits[0, -1].float().cpu()
            drawn = int(torch.multinomial(logits.softmax(-1), 1, generator=generator))
            made.append(drawn)
            token = torch.tensor([[drawn]], device=lm.model.device)
            if number % MARK == 0:
                now = time.perf_counter()
                values["tokens"].append(number)
                values["cached"].append(cache.get_seq_length())
                values["bytes"].append(cache_bytes(cache))
                values["milliseconds"].append(round(1000 * (now - begun) / MARK, 2))
                values["repeated"].append(repeated(made[-MARK:]))
                begun = time.perf_counter()
    values["text"] = lm.tokenizer.decode(made[-64:])
    return values


def repeated(tokens: Sequence[int], n: int = 4) -> float:
    """Share of n-grams that occurred before: 0 for a text without repetition, near 1 for one that goes in circles."""
    grams = [tuple(tokens[i : i + n]) for i in range(len(tokens) - n + 1)]
    return round(1 - len(set(grams)) / len(grams), 4)


def judge(values: JSON) -> Verdict:
    """The claim: a window alone ruins the model, and a few first tokens kept in the cache repair it.

    Not measured where the window alone does no harm (the interval of the increase contains 0): there is nothing to
    repair. Reproduced where four sinks undo more than half of the harm, with the whole interval, and more than four
    random tokens do; partly where they undo some.
    """
    harm = values["policies"]["window"]["increase"]
    recovered, control = values["recovered"], values["recovered_random"]
    sentence = (
        f"A window alone costs {interval(harm, '.2f')} nats per token. Four first tokens in it undo "
        f"{interval(recovered, '.0%')} of that, four random ones {interval(control, '.0%')}; the perplexity is then "
        f"{interval(values['perplexity_ratio'])} times that of the full cache."
    )
    if values["sliding_layers"]:
        sentence += f" {values['sliding_layers']} sliding layers keep the window they were trained with."
    if harm["low"] <= 0:
        return Verdict("not measured", sentence + " The window does no clear harm, so there is nothing to repair.")
    if recovered["low"] > 0.5 and recovered["low"] > control["high"]:
        return Verdict("reproduced", sentence)
    return Verdict("partly" if recovered["low"] > 0 else "not reproduced", sentence)
