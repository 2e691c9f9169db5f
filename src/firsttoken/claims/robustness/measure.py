"""Does the sink protect against small changes of the input, and what becomes of it under attack?

The paper argues that sinks slow down mixing, so that a change of one token spreads less. Here the spread is
measured where it matters to a user: in what the model predicts next. A model whose sink is weakened is also a worse
model, so it is held against damage that costs as much and leaves the sink; see `controls`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import torch
from torch import Tensor

from firsttoken import statistics, texts
from firsttoken.claims.robustness.attacks import attacks, check_room, react, search
from firsttoken.claims.robustness.changes import KINDS, TAIL, of_every_kind
from firsttoken.claims.robustness.controls import Control, Inputs, Kind, pooled, rise, under
from firsttoken.claims.robustness.sensitivity import SINK_ARMS, Sensitivity, losses, sensitivity, sink_arm
from firsttoken.claims.robustness.verdict import judge
from firsttoken.errors import FirstTokenError
from firsttoken.estimates import JSON
from firsttoken.measures.ablations import calibrated
from firsttoken.measures.equal_loss import compare
from firsttoken.measures.matched_control import LEAST_COST, SEEDS
from firsttoken.measures.matching_strength import matching_strength
from firsttoken.measures.measurement import Measurement
from firsttoken.models import LanguageModel
from firsttoken.progress import tracked
from firsttoken.ranges import at_least, in_range
from firsttoken.statistics import ratio_of_sums

NATS = (1.0, 2.0, 4.0, 8.0)  # by which `weakened` may lower the score of the first token
STRENGTHS = (0.7, 1.0, 1.4)  # of a control, times the one that costs about what the weakened sink costs


@dataclass(frozen=True, kw_only=True)
class Parameters:
    """What is asked of small changes and attacks."""

    text_source: str = "passages"  # see `texts.texts_from`
    skip_passages: int = 96  # texts at the beginning that are not used: `dose` and a first version were on them
    passages: int = 24
    text_tokens: int = 64  # of each text, BOS not counted
    suffix: int = 3  # tokens that the search may put into a text
    candidates: int = 16  # tried for each of them
    noise_seeds: int = SEEDS  # of the control at equal loss
    seed: int = 0

    def __post_init__(self) -> None:
        in_range(self)
        at_least(1, suffix=self.suffix)
        at_least(2, passages=self.passages, candidates=self.candidates)
        if self.text_tokens < 3 * TAIL:
            raise FirstTokenError(
                f"Changes need room before the last {TAIL} tokens; text_tokens must be at least {3 * TAIL}, not "
                f"{self.text_tokens}."
            )


def passages(parameters: Parameters) -> list[str]:
    """The texts that are measured."""
    return texts.exactly(parameters.text_source, parameters.passages, parameters.skip_passages)


def run(lm: LanguageModel, parameters: Parameters, passages: Sequence[str]) -> JSON:
    """`sensitivity_ratio` (divergence after a change without a sink, over that with it, the mean of all kinds),
    `weakened_ratio` with the `nats` of that arm and its `cost` in loss; the controls of equal loss `noise` and
    `sharpened`, see `beside`; `beyond_control`, the weakened ratio minus that under noise; `by_kind` with the
    divergence of each arm and its ratio to the intact one, `arms` with the loss of each; `attacks` with mass on the
    first token and loss, and what each does against none.
    """
    ids = texts.encode(lm, passages, parameters.text_tokens, "never")
    seed = parameters.seed
    pairs = of_every_kind(lm, ids, seed)
    check_room(lm, ids, parameters.suffix)
    means = calibrated(lm, "auto")
    nats = fitting_nats(lm, ids)
    reactions: dict[str, Sensitivity] = {}
    for arm in tracked(SINK_ARMS):
        with sink_arm(lm, arm, means, nats):
            reactions[arm] = sensitivity(lm, ids, pairs, seed)
    intact, weakened = reactions["intact"], reactions["weakened"]
    controls = beside(lm, Inputs.of(lm, ids, pairs, seed), intact, weakened, parameters.noise_seeds)

    def of_kind(arm: str, kind: str) -> JSON:
        there = ~intact.shifts[kind].isnan()
        moved, before = reactions[arm].shifts[kind][there], intact.shifts[kind][there]
        against = ratio_of_sums(torch.stack([moved, before], 1), seed)
        return {"divergence": asdict(statistics.bootstrap(moved, seed=seed)), "ratio": asdict(against)}

    return {
        "sensitivity_ratio": ratio(reactions["no sink"], intact, seed),
        "weakened_ratio": ratio(weakened, intact, seed),
        "nats": nats,
        "cost": asdict(statistics.bootstrap(weakened.loss - intact.loss, seed=seed)),
        **controls,
        "beyond_control": controls["noise"]["dose_minus_control"],
        "by_kind": {kind: {arm: of_kind(arm, kind) for arm in SINK_ARMS} for kind in KINDS},
        "arms": {arm: {"loss": asdict(statistics.bootstrap(one.loss, seed=seed))} for arm, one in reactions.items()},
        "attacks": attacked(lm, ids, parameters),
    }


def fitting_nats(lm: LanguageModel, ids: Tensor) -> float:
    """The smallest weakening that costs `LEAST_COST` nats of loss on the texts; where none does, the one that costs
    most."""
    intact = losses(lm, ids)
    cost: dict[float, float] = {}
    for nats in tracked(NATS):
        with sink_arm(lm, "weakened", None, nats):
            cost[nats] = float((losses(lm, ids) - intact).mean())
        if cost[nats] >= LEAST_COST:
            return nats
    return max(cost, key=cost.__getitem__)


def beside(
    lm: LanguageModel, inputs: Inputs, intact: Sensitivity, weakened: Sensitivity, noise_seeds: int = SEEDS
) -> JSON:
    """Noise and sharpening at strengths around that which costs what the weakened sink costs: `by_strength`, and
    what `equal_loss.compare` says, for noise of each seed as well.

    The strengths are found on the measured texts. They only have to enclose the cost: the comparison reads the
    outcome off the line between them.
    """
    cost = float((weakened.loss - intact.loss).mean())

    def compared(some: Sequence[Sensitivity], strengths: Sequence[float]) -> JSON:
        arms = torch.stack([samples(one, intact) for one in (intact, *some, weakened)], dim=1)
        by_strength = [
            {
                "strength": strength,
                "loss_rise": asdict(statistics.bootstrap(one.loss - intact.loss, seed=inputs.seed)),
                "ratio": ratio(one, intact, inputs.seed),
            }
            for strength, one in zip(strengths, some, strict=True)
        ]
        return {"by_strength": by_strength, **compare(arms, points, inputs.seed)}

    def around(kind: Kind) -> list[float]:
        strength = matching_strength(lambda at: rise(lm, inputs, Control(kind=kind, strength=at)), cost, start=0.5)
        return [strength * times for times in STRENGTHS]

    noisy, sharp = around("noise"), around("sharpened")
    controls = [Control(kind="noise", strength=at, seed=seed) for seed in range(noise_seeds) for at in noisy]
    ran = under(lm, inputs, [*controls, *(Control(kind="sharpened", strength=at) for at in sharp)])
    of_seed = [ran[len(noisy) * number : len(noisy) * (number + 1)] for number in range(noise_seeds)]
    return {
        "noise": {
            **compared([pooled(seeds) for seeds in zip(*of_seed, strict=True)], noisy),
            "by_seed": [compared(some, noisy) for some in of_seed],
        },
        "sharpened": compared(ran[len(controls) :], sharp),
    }


def samples(one: Sensitivity, intact: Sensitivity) -> Tensor:
    """Divergence of each kind, NaN where a text has none, and the rise in loss: (text, kind + 1)."""
    return torch.stack([*one.shifts.values(), one.loss - intact.loss], dim=1)


def points(drawn: Tensor) -> tuple[Tensor, Tensor]:
    """Rise in loss, and ratio of divergences to the first arm's: of (text, arm, kind + 1), the geometric mean over the
    kinds that any of the drawn texts has."""
    moved = drawn[..., :-1].nansum(0)  # (arm, kind)
    return drawn[..., -1].mean(0), (moved / moved[0]).log().nanmean(-1).exp()


def ratio(without: Sensitivity, with_it: Sensitivity, seed: int) -> JSON:
    """The ratio of mean divergences, the geometric mean over kinds, with an interval over texts."""
    both = torch.stack([samples(one, with_it) for one in (with_it, without)], dim=1)
    return asdict(statistics.bootstrap(both, lambda drawn: points(drawn)[1][1], seed=seed))


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
    passages=passages,
    run=run,
    judge=judge,
    version=2,  # 2: a control of equal loss, on other texts
)
MEASUREMENTS = (MEASUREMENT,)
