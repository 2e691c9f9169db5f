"""What a model loses when its key-value cache forgets, and what a few first tokens kept in it are worth.

Literature: StreamingLLM (arXiv 2309.17453). A window of the newest tokens alone ruins a model once the first tokens
leave it; with four of them kept it goes on. The paper discusses this as related work and measures none of it.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace

import torch
from torch import Tensor

from firsttoken import statistics, texts
from firsttoken.claims.kv_cache.policies import policies, why_not_renumbered
from firsttoken.claims.kv_cache.verdict import judge
from firsttoken.errors import FirstTokenError
from firsttoken.estimates import JSON
from firsttoken.measures import task_scores
from firsttoken.measures.cache_masks import Policy, evicting
from firsttoken.measures.measurement import Measurement
from firsttoken.models import BosPolicy, LanguageModel
from firsttoken.models.anatomy import full_layers, layer_kinds
from firsttoken.probe.forward import in_batches
from firsttoken.probe.interventions import Hook
from firsttoken.probe.losses import mean_losses, predict
from firsttoken.progress import tracked
from firsttoken.ranges import at_least, in_range

RANDOM = 4  # tokens kept as the control
STRIDE = 4  # the loss is taken at every fourth query, because logits cost more than all layers of a small model
QUESTION_TEXTS = 3  # texts of the retrieval task, eight questions each
MARK = 1000  # a stream is looked at after every so many tokens
PROMPT = 16  # tokens of a passage that a stream begins with


@dataclass(frozen=True, kw_only=True)
class Parameters:
    """What is asked of a cache that forgets."""

    windows: int = 12  # texts of `length` tokens, cut from one long document
    length: int = 640  # tokens of each, BOS included
    window: int = 128  # tokens that the cache holds
    needle_length: int = 512  # tokens of the retrieval task
    bos: BosPolicy = "auto"
    seed: int = 0
    batch_tokens: int = 2048

    def __post_init__(self) -> None:
        in_range(self)
        at_least(1, needle_length=self.needle_length)
        if self.length < 2 * self.window or self.window < 16 or self.windows < 2:
            raise FirstTokenError(
                "The loss is taken past the window: give length of at least twice window, window of at least 16 and "
                f"two windows, not {self.length}, {self.window} and {self.windows}."
            )


@dataclass(frozen=True, kw_only=True)
class Stream:
    """Parameters of a generation with a cache that never grows."""

    stream: int = 10000  # tokens to generate
    window: int = 128  # tokens that the cache holds
    bos: BosPolicy = "auto"
    seed: int = 0

    def __post_init__(self) -> None:
        in_range(self)
        if self.stream < MARK:
            raise FirstTokenError(f"stream is how many tokens to generate, at least {MARK}; not {self.stream}.")
        if self.window <= PROMPT:
            raise FirstTokenError(
                f"The cache of a stream takes a prompt of {PROMPT} tokens; give a window of at least {PROMPT + 1}, "
                f"not {self.window}."
            )


def can_stream(lm: LanguageModel) -> bool:
    """Whether `sink_window_cache` takes the model: its layers all see the whole text, by positions that turn."""
    kinds = set(layer_kinds(lm.model))
    return kinds <= {"full_attention", "attention"} and not why_not_renumbered(lm)


def run(lm: LanguageModel, parameters: Parameters, passages: Sequence[str]) -> JSON:
    """`perplexity_ratio` (four sinks and a window / the full cache) with interval; `policies`, for each the loss past
    the window, its increase over the full cache and the perplexity; `recovered`, the share of the window's increase
    that four sinks undo, and `recovered_random` by four random tokens (`random_losses`); `retrieval`, the share of
    facts found; `positions` of first tokens that stay, and `why_original` where they are not those of the cache.

    Among the policies is `recomputed`, no cache at all: each query reads a text of its own that begins `window` tokens
    earlier, first tokens included where the model has a prefix. It shows what the window's tokens are worth alone.
    """
    ids = texts.windows(lm, passages[0], parameters.length, parameters.windows, parameters.bos)
    # Made first: where its text is too short for the facts, nothing has been measured yet that would be lost.
    task = task_scores.needle(lm, parameters.bos, parameters.needle_length, count=QUESTION_TEXTS, seed=parameters.seed)
    hooks = policies(lm, parameters.window)
    loss = {name: losses(lm, ids, parameters, hook) for name, hook in tracked(hooks.items())}
    loss[f"random {RANDOM}"] = random_losses(lm, ids, parameters)
    loss["recomputed"] = recomputed(lm, ids, parameters)
    values = summary(loss, parameters.seed)
    names = ("full", "window", "sinks 4", "heavy hitters")
    values["retrieval"] = {name: retrieval(lm, task, hooks[name], parameters.seed) for name in tracked(names)}
    reason = why_not_renumbered(lm)
    values |= {"positions": "original" if reason else "cache", "why_original": reason}
    values["sliding_layers"] = lm.config.get_text_config().num_hidden_layers - len(full_layers(lm.model))
    return values


def losses(lm: LanguageModel, ids: Tensor, parameters: Parameters, hook: Hook | None) -> Tensor:
    """Mean loss of each text over the queries past the window, (text,), float64."""
    queries = torch.arange(parameters.window, ids.shape[1] - 1, STRIDE)
    return mean_losses(lm, ids, queries, parameters.batch_tokens, hook)


def random_losses(lm: LanguageModel, ids: Tensor, parameters: Parameters) -> Tensor:
    """The loss as in `losses`, (text,), with random tokens of the first window kept beside the newest, in the full
    layers.

    They are drawn for each text, from the seed and the text's number, so that an interval over texts covers the draws
    too. The first token is never among them; others of the first four may be.
    """
    layers, policy = full_layers(lm.model), Policy(parameters.window, "random", RANDOM)
    each = []
    for number, row in enumerate(tracked(ids)):
        hook = evicting(lm.model, policy, layers, seed=parameters.seed * 100_003 + number)
        each.append(losses(lm, row[None], parameters, hook))
    return torch.cat(each)


def recomputed(lm: LanguageModel, ids: Tensor, parameters: Parameters) -> Tensor:
    """The loss as in `losses`, (text,), where a query sees a text that begins with the window: its oldest tokens make
    way for what the tokenizer puts in front of any text."""
    prefix = lm.prefix(parameters.bos)
    newest = parameters.window - len(prefix)
    queries = torch.arange(parameters.window, ids.shape[1] - 1, STRIDE)
    # One text for each query: prefix, window, and the token that is to be predicted.
    cut = torch.stack([ids[:, query - newest + 1 : query + 2] for query in queries.tolist()], dim=1)
    front = torch.tensor(prefix, dtype=ids.dtype).expand(*cut.shape[:2], -1)
    rows = torch.cat([front, cut], dim=-1).flatten(0, 1)  # (text * query, window + 1)
    batches = tracked(in_batches(rows, parameters.batch_tokens))
    loss = torch.cat([predict(lm, batch, [parameters.window - 1], top=0).loss for batch in batches])
    return loss.view(len(ids), -1).double().mean(1)


def summary(loss: dict[str, Tensor], seed: int = 0) -> JSON:
    """Estimates over texts from the mean loss of each, (text,), under each policy."""

    def estimate(numbers: Tensor) -> JSON:
        return asdict(statistics.bootstrap(numbers, seed=seed))

    full, window = loss["full"], loss["window"]
    values: JSON = {"policies": {}}
    for name, numbers in loss.items():
        of_mean = estimate(numbers)
        values["policies"][name] = {
            "loss": of_mean,
            "increase": estimate(numbers - full),
            "perplexity": {k: math.exp(of_mean[k]) for k in ("value", "low", "high")} | {"n": of_mean["n"]},
        }
    ratio = estimate(loss["sinks 4"] - full)
    values["perplexity_ratio"] = {k: math.exp(ratio[k]) for k in ("value", "low", "high")} | {"n": ratio["n"]}
    for name, key in (("sinks 4", "recovered"), ("random 4", "recovered_random")):
        undone = torch.stack([window - loss[name], window - full], dim=1)
        values[key] = asdict(statistics.ratio_of_sums(undone, seed))
    return values


def retrieval(lm: LanguageModel, task: task_scores.Task, hook: Hook | None, seed: int = 0) -> JSON:
    """Share of hidden facts that are found, over texts; most of the facts lie further back than the window reaches."""
    shares = []
    for item in tracked(task.items):
        right = task_scores.score_under(lm, replace(task, items=(item,)), hook)
        shares.append(right.double().mean())
    return asdict(statistics.bootstrap(torch.stack(shares), seed=seed)) | {"chance": task.chance}


def run_stream(lm: LanguageModel, parameters: Stream, passages: Sequence[str]) -> JSON:
    """Sample `stream` tokens after the first words of a passage, one at a time, with a cache that never grows: with
    four first tokens in it and, as the control, under `window_only`, with none.

    For every thousand tokens: `cached` tokens and `bytes` of the cache, `milliseconds` per token, `surprise`, the mean
    of -log p of the sampled tokens in nats, and `repeated`, the share of 4-grams that occurred before in the same
    thousand; `text`, the last words.

    Raises:
        FirstTokenError: the model has layers with a sliding window; see `can_stream`.
    """
    return one_stream(lm, parameters, passages, 4) | {"window_only": one_stream(lm, parameters, passages, 0)}


def one_stream(lm: LanguageModel, parameters: Stream, passages: Sequence[str], sinks: int) -> JSON:
    """A stream with so many first tokens in the cache; see `run_stream`."""
    from firsttoken.measures.sink_window_cache import cache_bytes, sink_window_cache

    prompt = texts.encode(lm, passages, PROMPT, parameters.bos).to(lm.model.device)
    cache = sink_window_cache(lm.model, parameters.window, sinks)
    generator = torch.Generator().manual_seed(parameters.seed)
    values: JSON = {name: [] for name in ("tokens", "cached", "bytes", "milliseconds", "surprise", "repeated")}
    made: list[int] = []
    surprise = 0.0
    token = prompt
    begun = time.perf_counter()
    with torch.inference_mode():
        for number in tracked(range(1, parameters.stream + 1)):
            logits = lm.model(token, past_key_values=cache, use_cache=True).logits[0, -1].float().cpu()
            drawn = int(torch.multinomial(logits.softmax(-1), 1, generator=generator))
            surprise -= float(logits.log_softmax(-1)[drawn]) / MARK
            made.append(drawn)
            token = torch.tensor([[drawn]], device=lm.model.device)
            if number % MARK == 0:
                now = time.perf_counter()
                values["tokens"].append(number)
                values["cached"].append(cache.get_seq_length())
                values["bytes"].append(cache_bytes(cache))
                values["milliseconds"].append(round(1000 * (now - begun) / MARK, 2))
                values["surprise"].append(round(surprise, 4))
                values["repeated"].append(repeated(made[-MARK:]))
                begun, surprise = time.perf_counter(), 0.0
    values["text"] = lm.tokenizer.decode(made[-64:])
    return values


def repeated(tokens: Sequence[int], n: int = 4) -> float:
    """Share of n-grams that occurred before: 0 for a text without repetition, near 1 for one that goes in circles."""
    grams = [tuple(tokens[i : i + n]) for i in range(len(tokens) - n + 1)]
    return round(1 - len(set(grams)) / len(grams), 4)


MEASUREMENT = Measurement(
    claim="kv_cache",
    parameters=Parameters,
    passages=lambda _: [texts.long_text()],
    run=run,
    judge=judge,
    # 3: random tokens are drawn for each text; heavy hitters never come back and are chosen for each head of keys, not
    # of queries; first tokens stand beside the whole window of sliding layers, and in small caches also beyond it.
    version=3,
)
STREAM = Measurement(
    claim="kv_cache",
    parameters=Stream,
    passages=lambda _: [texts.passages()[0].text],
    run=run_stream,
    variant="stream",
    on_demand="stream",
    version=2,  # 2: the control without first tokens
    repeatable=False,  # one token drawn otherwise, and all that follows is another text
)
MEASUREMENTS = (MEASUREMENT, STREAM)
