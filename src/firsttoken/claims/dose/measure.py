"""Does the sink keep a change local? More and less of it on the same inputs, and damage that leaves it alone.

The paper compares inputs with and without BOS, which changes the sink, the input and the gain at once. Here c nats are
added to the score of key 0 in every head, and the outcome is how far the change of one token spreads, over how much
that token itself changes, relative to the untouched model. Three controls say how much of that is the sink; see
`measures.dose`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from math import exp

import torch
from torch import Tensor

from firsttoken import statistics, texts
from firsttoken.claims.dose.runs import Bench, Ran, Scale, pooled, prepare
from firsttoken.claims.dose.verdict import judge
from firsttoken.claims.equal_loss import LEAST_COST
from firsttoken.errors import FirstTokenError
from firsttoken.estimates import JSON
from firsttoken.measures.bos_arms import Arm
from firsttoken.measures.dose import Change, Masses, dosed, matching_strength, noisy, sharpened
from firsttoken.measures.equal_loss import compare
from firsttoken.measures.measurement import Measurement
from firsttoken.models import BosPolicy, LanguageModel
from firsttoken.progress import tracked
from firsttoken.ranges import in_range

DOSES = (2.0, 1.0, 0.0, -1.0, -2.0, -4.0, -8.0)  # nats on key 0
OTHER_KEY_DOSES = (2.0, 4.0)  # nats on one random ordinary key
NOISE_SEEDS = (0, 1, 2)
STRENGTHS = (0.7, 1.0, 1.4)  # of each control, times the one that costs what the dose costs on the calibration texts


@dataclass(frozen=True, kw_only=True)
class Parameters:
    """What is asked. Runs in memory only, because losses under a change need the whole model at once."""

    text_source: str = "passages"  # see `texts.texts_from`
    skip_passages: int = 48  # texts at the beginning that are not used: the pilot and a first version were on them
    passages: int = 24  # how many texts are measured
    calibration_passages: int = 24  # how many further texts the strengths of the controls are found on
    edits_per_text: int = 3  # one-token edits of each text, each in a copy of its own
    length: int = 64  # tokens of each text, BOS included
    bos: BosPolicy = "auto"
    seed: int = 0  # of edits and bootstrap
    batch_tokens: int = 4096

    def __post_init__(self) -> None:
        in_range(self)
        if self.passages < 2 or self.calibration_passages < 1 or self.edits_per_text < 1:
            raise FirstTokenError(
                "A dose needs at least two passages, one calibration passage and one edit for each text; raise "
                "passages, calibration_passages or edits_per_text."
            )
        if self.length < self.edits_per_text + 8:
            raise FirstTokenError(
                f"length={self.length} leaves no room for edits_per_text={self.edits_per_text} edits and ordinary "
                f"keys beside them; raise length to {self.edits_per_text + 8} or more."
            )


def passages(parameters: Parameters) -> list[str]:
    """The measured texts, then those for calibration."""
    used = parameters.passages + parameters.calibration_passages
    return texts.exactly(parameters.text_source, parameters.skip_passages + used)[parameters.skip_passages :]


def run(lm: LanguageModel, parameters: Parameters, passages: Sequence[str]) -> JSON:
    """`doses` and, for each of them, `by_dose`; `control_dose`, the one that the controls are held against, with its
    `cost` in nats of loss; the controls `noise`, `sharpened` and `flattened`, each `by_strength` and at the dose's
    loss (see `equal_loss.compare`); `other_key`; `beyond_control`, the outcome at `control_dose` minus that under
    `noise` at equal loss.

    Every arm has `outcome`, `outcome_absolute` and `outcome_last_layer` (relative to the untouched model),
    `loss_rise`, `loss`, `mass` on key 0 and `entropy`.
    """
    prefix = lm.prefix(parameters.bos)
    arm: Arm = "with_bos" if prefix else "without_bos"
    ids = texts.encode(lm, passages, parameters.length - len(prefix), "never")
    measured, calibration = (
        prepare(lm, part, arm, parameters.edits_per_text, parameters.seed)
        for part in (ids[: parameters.passages], ids[parameters.passages :])
    )
    bench = Bench.of(lm, measured, parameters.batch_tokens)
    scale = Scale.of(lm, calibration)

    def numbers(there: Ran) -> JSON:
        return describe(there, bench.untouched, parameters.seed)

    doses = {c: bench.run(partial(on_first, c)) if c else bench.untouched for c in tracked(DOSES)}
    by_dose = {c: numbers(there) for c, there in doses.items()}
    cost = {c: by_dose[c]["loss_rise"]["value"] for c in DOSES if c < 0}
    chosen = next((c for c in sorted(cost, reverse=True) if cost[c] >= LEAST_COST), min(cost))
    target = scale.rise(partial(on_first, chosen))

    def beside(control: Sequence[Ran]) -> JSON:
        arms = [sums_of(ran, bench.untouched) for ran in (bench.untouched, *control, doses[chosen])]
        return compare(torch.stack(arms, dim=1), points, parameters.seed)

    def described(control: Sequence[Ran], strengths: Sequence[float]) -> JSON:
        by_strength = [numbers(ran) | {"strength": at} for ran, at in zip(control, strengths, strict=True)]
        return beside(control) | {"by_strength": by_strength}

    sigma = matching_strength(lambda sigma: scale.rise(partial(noisy, sigma, NOISE_SEEDS[0])), target, start=1.0)
    sigmas = [sigma * times for times in STRENGTHS]
    of_seed = {seed: [bench.run(partial(noisy, at, seed)) for at in sigmas] for seed in tracked(NOISE_SEEDS)}
    noise = described([pooled(of_strength) for of_strength in zip(*of_seed.values(), strict=True)], sigmas)
    values: JSON = {
        "doses": list(DOSES),
        "by_dose": {name: [by_dose[c][name] for c in DOSES] for name in by_dose[0.0]},
        "edits": len(measured.edits),
        "control_dose": chosen,
        "cost": by_dose[chosen]["loss_rise"],
        "noise": noise | {"by_seed": [beside(control) | {"seed": seed} for seed, control in of_seed.items()]},
        "beyond_control": noise["dose_minus_control"],
    }
    for name, sign in tracked((("sharpened", 1), ("flattened", -1))):
        strength = matching_strength(partial(_rise_of_power, scale, sign), target, start=0.5)
        betas = [exp(sign * strength * times) for times in STRENGTHS]
        values[name] = described([bench.run(partial(sharpened, beta)) for beta in betas], betas)
    values["other_key"] = [
        numbers(there)
        | {
            "dose": c,
            "mass_on_key": asdict(statistics.bootstrap(there.seen.other_mass, seed=parameters.seed)),
            "untouched_mass_on_key": asdict(
                statistics.bootstrap(bench.untouched.seen.other_mass, seed=parameters.seed)
            ),
        }
        for c in tracked(OTHER_KEY_DOSES)
        for there in [bench.run(partial(on_other, c, measured.other_keys))]
    ]
    return values


def on_first(nats: float, protected: Tensor, masses: Masses) -> Change:
    return dosed(nats, torch.zeros(len(protected), dtype=torch.long))


def on_other(nats: float, keys: Tensor, protected: Tensor, masses: Masses) -> Change:
    return dosed(nats, keys)


def _rise_of_power(scale: Scale, sign: int, strength: float) -> float:
    return scale.rise(partial(sharpened, exp(sign * strength)))


def describe(there: Ran, untouched: Ran, seed: int) -> JSON:
    """One arm beside the untouched model, every number an estimate over texts."""
    kinds = {"outcome": "relative", "outcome_absolute": "absolute", "outcome_last_layer": "last_layer"}
    sums = {
        name: torch.cat([getattr(ran.moved, kind) for ran in (there, untouched)], 1) for name, kind in kinds.items()
    }
    samples = {
        "loss_rise": there.seen.loss - untouched.seen.loss,
        "loss": there.seen.loss,
        "mass": there.seen.mass,
        "entropy": there.seen.entropy,
    }
    return {name: asdict(statistics.bootstrap(four, _relative, seed=seed)) for name, four in sums.items()} | {
        name: asdict(statistics.bootstrap(of_text, seed=seed)) for name, of_text in samples.items()
    }


def sums_of(ran: Ran, untouched: Ran) -> Tensor:
    """Spread, own change and rise in loss of each text, (text, 3)."""
    return torch.cat([ran.moved.relative, (ran.seen.loss - untouched.seen.loss)[:, None]], dim=1).double()


def points(drawn: Tensor) -> tuple[Tensor, Tensor]:
    """Rise in loss and outcome of each arm, from (text, arm, 3) with the untouched model first."""
    spread, own, rise = drawn.sum(0).unbind(-1)
    return rise / len(drawn), spread / own * own[0] / spread[0]


def _relative(sums: Tensor) -> Tensor:
    """Spread over own, relative to the untouched model's, of (text, 4): both of an arm, both of the untouched."""
    spread, own, spread_0, own_0 = sums.sum(0)
    return (spread / own) / (spread_0 / own_0)


MEASUREMENT = Measurement(
    claim="dose",
    parameters=Parameters,
    passages=passages,
    run=run,
    judge=judge,
    version=2,  # 2: controls at several strengths, read off at the loss of the dose
)
MEASUREMENTS = (MEASUREMENT,)
