"""Does the sink protect against small changes of the input, and what becomes of it under attack?

The paper argues that sinks slow down mixing, so that a change of one token spreads less. Here the spread is
measured where it matters to a user: in what the model predicts next.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import asdict, dataclass
from functools import partial

import torch
from torch import Tensor, nn

from firsttoken import statistics, texts
from firsttoken.claims.robustness.attacks import attacks, react, search
from firsttoken.claims.robustness.verdict import judge
from firsttoken.errors import FirstTokenError
from firsttoken.estimates import JSON
from firsttoken.measures.ablations import Means, calibrated, intervened
from firsttoken.measures.measurement import Measurement
from firsttoken.models import LanguageModel
from firsttoken.models.out_of_memory import explain_out_of_memory
from firsttoken.probe import probe
from firsttoken.probe.interventions import in_every_layer, weaken_key
from firsttoken.progress import tracked
from firsttoken.ranges import at_least
from firsttoken.statistics import ratio_of_sums
from firsttoken.texts.edits import token_synonyms

KINDS: dict[str, str] = {
    "typo": "two letters of a word exchanged",
    "swap": "two neighbouring tokens exchanged",
    "synonym": "a word replaced by a near-synonym",
    "noise": "noise added to all embeddings but the first",
}
ARMS: dict[str, str] = {
    "intact": "as it is",
    "weakened": "odds of attending to the first token lowered",
    "forbidden": "attention to the first token forbidden",
    "no sink": "its residual held at the mean, so that no sink forms",
}
NATS = 2.0  # by which `weakened` lowers the score of the first token
NOISE = 0.1  # standard deviation, relative to the root mean square of a token's embedding
BATCH = 8  # texts that run at once; their logits are large where the vocabulary is
TAIL = 20  # tokens at the end of a text whose predictions are compared


@dataclass(frozen=True, kw_only=True)
class Parameters:
    """What is asked of small changes and attacks."""

    text_source: str = "passages"  # see `texts.texts_from`
    passages: int = 16
    text_tokens: int = 64  # of each text, BOS not counted
    suffix: int = 3  # tokens that the search may put into a text
    candidates: int = 16  # tried for each of them
    seed: int = 0

    def __post_init__(self) -> None:
        at_least(0, seed=self.seed)
        at_least(1, suffix=self.suffix)
        at_least(2, passages=self.passages, candidates=self.candidates)
        if self.text_tokens < 3 * TAIL:
            raise FirstTokenError(
                f"Changes need room before the last {TAIL} tokens; text_tokens must be at least {3 * TAIL}, not "
                f"{self.text_tokens}."
            )


Pair = tuple[Tensor, Tensor]  # a text before and after a change, (token,) each; the last TAIL tokens are the same


def changed(lm: LanguageModel, row: Tensor, kind: str, draw: random.Random) -> Pair | None:
    """A text and the same with one small change in its middle third; None where the text allows none.

    Args:
        row: (token,), text tokens without BOS.
    """
    places = list(range(len(row) // 3, len(row) - TAIL - 2))
    draw.shuffle(places)
    if kind == "noise":
        return row, row
    if kind == "swap":
        for place in places:
            if row[place] != row[place + 1]:
                other = row.clone()
                other[place], other[place + 1] = row[place + 1], row[place]
                return row, other
    elif kind == "synonym":
        known = token_synonyms(lm)
        for place in places:
            if int(row[place]) in known:
                other = row.clone()
                other[place] = known[int(row[place])]
                return row, other
    elif kind == "typo":
        return _typo(lm, row, draw)
    else:
        raise FirstTokenError(f"There is no change {kind!r}; there are {', '.join(KINDS)}.")
    return None


def _typo(lm: LanguageModel, row: Tensor, draw: random.Random) -> Pair | None:
    text = lm.tokenizer.decode(row.tolist())
    words = [m for m in re.finditer(r"[a-z]{5,}", text) if len(text) // 3 < m.start() < 0.6 * len(text)]
    draw.shuffle(words)
    for word in words:
        place = word.start() + draw.randrange(1, len(word.group()) - 2)
        if text[place] == text[place + 1]:
            continue
        wrong = text[:place] + text[place + 1] + text[place] + text[place + 2 :]
        before, after = (torch.tensor(lm.tokenizer(t, add_special_tokens=False).input_ids) for t in (text, wrong))
        if torch.equal(before[-TAIL:], after[-TAIL:]):
            return before, after
    return None


@contextmanager
def noisy_embeddings(lm: LanguageModel, seed: int) -> Iterator[None]:
    """Inside the block every embedding but the first of a text has noise of relative size NOISE."""

    def after(module: nn.Module, arguments: object, output: Tensor) -> Tensor:
        generator = torch.Generator().manual_seed(seed)
        drawn = torch.randn(output.shape[1:], generator=generator).to(output)
        size = output.float().pow(2).mean(-1, keepdim=True).sqrt().to(output)
        size[:, 0] = 0
        return output + NOISE * size * drawn

    handle = lm.model.get_input_embeddings().register_forward_hook(after)
    try:
        yield
    finally:
        handle.remove()


def sink_arm(lm: LanguageModel, arm: str, means: Means | None) -> AbstractContextManager[object]:
    """The model with its sink as it is, weakened, or gone."""
    if arm == "intact":
        return intervened(lm, "intact")
    if arm == "weakened":
        return probe(lm.model, keys=[0], hook=in_every_layer(partial(weaken_key, nats=NATS)))
    if arm == "forbidden":
        return intervened(lm, "mask")
    if arm == "no sink":
        return intervened(lm, "mean_residual", means)
    raise FirstTokenError(f"There is no arm {arm!r}; there are {', '.join(ARMS)}.")


def log_probabilities(lm: LanguageModel, rows: Sequence[Tensor]) -> list[Tensor]:
    """Of the next token, at the last TAIL tokens of each text: (TAIL, vocabulary), float32, on the CPU.

    Args:
        rows: (token,) each, text tokens without BOS; texts of equal length run together.
    """
    bos = torch.tensor(lm.prefix("auto"), dtype=torch.int64)
    of_row: dict[int, Tensor] = {}
    for length in tracked({len(row) for row in rows}):
        of_length = [n for n, row in enumerate(rows) if len(row) == length]
        for start in tracked(range(0, len(of_length), BATCH)):
            batch = of_length[start : start + BATCH]
            given = torch.stack([torch.cat([bos, rows[n]]) for n in batch]).to(lm.model.device)
            with torch.inference_mode(), explain_out_of_memory("use a smaller model or another device"):
                logits = lm.model(given, use_cache=False, logits_to_keep=TAIL).logits.float()
                of_row |= dict(zip(batch, torch.log_softmax(logits, dim=-1).cpu(), strict=True))
    return [of_row[n] for n in range(len(rows))]


def divergence(before: Tensor, after: Tensor) -> Tensor:
    """Mean over positions of the Kullback-Leibler divergence of what is predicted after a change from what was
    predicted before, in nats, from log-probabilities (position, vocabulary)."""
    return (before.exp() * (before - after)).sum(-1).mean()


@dataclass(frozen=True)
class Sensitivity:
    """What an arm predicts at the last TAIL tokens."""

    shifts: dict[str, Tensor]  # for each kind of change the divergence of every text that has one, (text,)
    loss: Tensor  # (text,), nats per token, before anything is changed


def sensitivity(
    lm: LanguageModel, ids: Tensor, pairs: dict[str, list[Pair]], arm: str, means: Means | None, seed: int
) -> Sensitivity:
    """How far predictions move after each change, with the sink as one arm has it.

    Args:
        ids: (text, token), text tokens without BOS.
    """
    # Most pairs begin with a text as it is, so that each is run once and not once for every kind.
    befores = {_key(row): row for row in (*ids, *(before for of_kind in pairs.values() for before, _ in of_kind))}
    shifts: dict[str, Tensor] = {}
    with sink_arm(lm, arm, means):
        clean = dict(zip(befores, log_probabilities(lm, list(befores.values())), strict=True))
        for kind, of_kind in tracked(pairs.items()):
            with noisy_embeddings(lm, seed) if kind == "noise" else nullcontext():
                moved = log_probabilities(lm, [after for _, after in of_kind])
            both = zip(of_kind, moved, strict=True)
            shifts[kind] = torch.stack(
                [divergence(clean[_key(before)], after) for (before, _), after in both]
            ).double()
    loss = [-clean[_key(row)][:-1].gather(1, row[-TAIL + 1 :, None]).mean() for row in ids]
    return Sensitivity(shifts, torch.stack(loss))


def _key(row: Tensor) -> tuple[int, ...]:
    return tuple(row.tolist())


def run(lm: LanguageModel, parameters: Parameters, passages: Sequence[str]) -> JSON:
    """`sensitivity_ratio` (divergence after a change without a sink, over that with it, the mean of all kinds),
    `weakened_ratio`, `by_kind` with the divergence of each arm and its ratio to the intact one, `loss` of each arm,
    and `attacks` with mass on the first token and loss, and what each does against none.
    """
    ids = texts.encode(lm, passages, parameters.text_tokens, "never")
    seed = parameters.seed
    pairs = {}
    for kind in KINDS:
        of_texts = [changed(lm, row, kind, random.Random(seed + n)) for n, row in enumerate(ids)]
        pairs[kind] = [pair for pair in of_texts if pair is not None]
        if len(pairs[kind]) < 2:
            raise FirstTokenError(f"Only {len(pairs[kind])} texts allow a change of kind {kind}; give more passages.")
    means = calibrated(lm, "auto")
    reactions = {arm: sensitivity(lm, ids, pairs, arm, means, seed) for arm in tracked(ARMS)}
    shifts = {arm: reaction.shifts for arm, reaction in reactions.items()}

    def of_kind(arm: str, kind: str) -> JSON:
        moved = shifts[arm][kind]
        against = ratio_of_sums(torch.stack([moved, shifts["intact"][kind]], 1), seed)
        return {"divergence": asdict(statistics.bootstrap(moved, seed=seed)), "ratio": asdict(against)}

    return {
        "sensitivity_ratio": ratio(shifts["no sink"], shifts["intact"], seed),
        "weakened_ratio": ratio(shifts["weakened"], shifts["intact"], seed),
        "by_kind": {kind: {arm: of_kind(arm, kind) for arm in ARMS} for kind in KINDS},
        "arms": {arm: {"loss": asdict(statistics.bootstrap(one.loss, seed=seed))} for arm, one in reactions.items()},
        "attacks": attacked(lm, ids, parameters),
    }


def ratio(without: dict[str, Tensor], with_it: dict[str, Tensor], seed: int) -> JSON:
    """The ratio of mean divergences, the geometric mean over kinds, with an interval over texts of each kind."""
    kinds = list(without)
    n = min(len(without[kind]) for kind in kinds)
    pairs = torch.stack([torch.stack([without[kind][:n], with_it[kind][:n]], 1) for kind in kinds], 1)

    def statistic(drawn: Tensor) -> Tensor:  # (text, kind, 2)
        sums = drawn.sum(0)
        return (sums[:, 0] / sums[:, 1]).log().mean().exp()

    return asdict(statistics.bootstrap(pairs, statistic, seed=seed))


def attacked(lm: LanguageModel, ids: Tensor, parameters: Parameters) -> JSON:
    """Mass on the first token and loss in the second half of each text, under every attack."""
    seed = parameters.seed
    suffix, masses = search(lm, parameters.text_tokens, parameters.suffix, parameters.candidates, seed)
    tail = parameters.text_tokens - parameters.text_tokens // 2
    reactions = {name: react(lm, change(ids), tail) for name, change in attacks(lm, suffix, seed).items()}
    values: JSON = {"suffix": lm.tokenizer.decode(suffix), "search": masses, "by_attack": {}}
    for name, reaction in reactions.items():
        none = reactions["none, pinned" if "pinned" in name else "none"]
        values["by_attack"][name] = {
            "mass": asdict(statistics.bootstrap(reaction.mass, seed=seed)),
            "mass_change": asdict(statistics.bootstrap(reaction.mass - none.mass, seed=seed)),
            "loss_change": asdict(statistics.bootstrap(reaction.loss - none.loss, seed=seed)),
        }
    return values


MEASUREMENT = Measurement(
    claim="robustness",
    parameters=Parameters,
    passages=lambda parameters: texts.exactly(parameters.text_source, parameters.passages),
    run=run,
    judge=judge,
)
MEASUREMENTS = (MEASUREMENT,)
