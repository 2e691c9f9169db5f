"""Does the sink keep a change local? More and less of it on the same inputs, and damage that leaves it alone.

The paper compares inputs with and without BOS, which changes the sink, the input and the gain at once. Here c nats are
added to the score of key 0 in every head, and the outcome is how far the change of one token spreads, over how much
that token itself changes, relative to the untouched model. Three controls say how much of that is the sink; see
`measures.dose`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from math import exp

import torch
from torch import Tensor

from firsttoken import statistics, texts
from firsttoken.claims.dose import gains
from firsttoken.claims.dose.runs import Bench, Make, Ran, Scale, encoded, pooled, prepare, untouched
from firsttoken.claims.dose.verdict import judge
from firsttoken.errors import FirstTokenError
from firsttoken.estimates import JSON
from firsttoken.measures.dose import Change, Masses, dosed, noisy, sharpened
from firsttoken.measures.equal_loss import compare
from firsttoken.measures.matched_control import LEAST_COST, SEEDS
from firsttoken.measures.matching_strength import matching_strengths
from firsttoken.measures.measurement import Measurement
from firsttoken.models import BosPolicy, LanguageModel
from firsttoken.ranges import in_range

DOSES = (2.0, 1.0, 0.0, -1.0, -2.0, -4.0, -8.0)  # nats on key 0
OTHER_KEY_DOSES = (2.0, 4.0)  # nats on one random ordinary key
POWERS = {"sharpened": 1, "flattened": -1}  # the sign of the log of what scores are multiplied by
STRENGTHS = (0.7, 1.0, 1.4)  # of each control, times the one that costs what the dose costs on the calibration texts


@dataclass(frozen=True, kw_only=True)
class Parameters:
    """What is asked. Streamed, the disk is read once for all doses, once for the price of the judged one on other
    texts, once for each try at the strengths of the controls, and once for all controls."""

    text_source: str = "passages"  # see `texts.texts_from`
    skip_passages: int = 48  # texts at the beginning that are not used: the pilot and a first version were on them
    passages: int = 24  # how many texts are measured
    calibration_passages: int = 24  # how many further texts the strengths of the controls are found on
    edits_per_text: int = 3  # one-token edits of each text, each in a copy of its own
    length: int = 64  # tokens of each text, BOS included
    bos: BosPolicy = "auto"
    noise_seeds: int = SEEDS  # of the control at equal loss
    seed: int = 0  # of edits and bootstrap
    batch_tokens: int = 4096
    execution: str = "auto"  # resident, streamed; see `shared_pass.together`

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
    return texts.exactly(parameters.text_source, used, parameters.skip_passages)


def run(lm: LanguageModel, parameters: Parameters, passages: Sequence[str]) -> JSON:
    """`doses` and, for each of them, `by_dose`; `control_dose`, the one that the controls are held against, with its
    `cost` in nats of loss; the controls `noise`, `sharpened` and `flattened`, each `by_strength` and at the dose's
    loss (see `equal_loss.compare`); `other_key`; `beyond_control`, the outcome at `control_dose` minus that under
    `noise` at equal loss.

    Every arm has `outcome`, `outcome_absolute` and `outcome_last_layer` (relative to the untouched model),
    `loss_rise`, `loss`, `mass` on key 0 and `entropy`.
    """
    ids, arm = encoded(lm, passages, parameters.length, parameters.bos)
    measured, calibration = (
        prepare(lm, part, arm, parameters.edits_per_text, parameters.seed)
        for part in (ids[: parameters.passages], ids[parameters.passages :])
    )
    bench = Bench(lm, measured, parameters.batch_tokens, parameters.execution)
    arms: dict[tuple[str, float], Make] = {("first", c): partial(on_first, c) if c else untouched for c in DOSES}
    arms |= {("other", c): partial(on_other, c, measured.other_keys) for c in OTHER_KEY_DOSES}
    ran_doses = bench.run(arms)
    doses = {c: ran_doses["first", c] for c in DOSES}
    plain = doses[0.0]

    def numbers(there: Ran) -> JSON:
        return describe(there, plain, parameters.seed)

    by_dose = {c: numbers(there) for c, there in doses.items()}
    cost = {c: by_dose[c]["loss_rise"]["value"] for c in DOSES if c < 0}
    chosen = next((c for c in sorted(cost, reverse=True) if cost[c] >= LEAST_COST), min(cost))
    strength = matched(Scale(lm, calibration, parameters.execution), chosen)
    strengths = {kind: [at * times for times in STRENGTHS] for kind, at in strength.items()}
    controls = run_controls(bench, strengths, parameters.noise_seeds)

    def beside(some: Sequence[Ran]) -> JSON:
        arms = [sums_of(ran, plain) for ran in (plain, *some, doses[chosen])]
        return compare(torch.stack(arms, dim=1), points, parameters.seed)

    def described(some: Sequence[Ran], strengths: Sequence[float]) -> JSON:
        by_strength = [numbers(ran) | {"strength": at} for ran, at in zip(some, strengths, strict=True)]
        return beside(some) | {"by_strength": by_strength}

    every_seed = [pooled(of_strength) for of_strength in zip(*controls["noise"].values(), strict=True)]
    noise = described(every_seed, strengths["noise"])
    values: JSON = {
        "doses": list(DOSES),
        "by_dose": {name: [by_dose[c][name] for c in DOSES] for name in by_dose[0.0]},
        "edits": len(measured.edits),
        "control_dose": chosen,
        "cost": by_dose[chosen]["loss_rise"],
        "noise": noise | {"by_seed": [beside(some) | {"seed": seed} for seed, some in controls["noise"].items()]},
        "beyond_control": noise["dose_minus_control"],
    }
    for kind in POWERS:
        (some,) = controls[kind].values()
        values[kind] = described(some, [power(kind, at) for at in strengths[kind]])
    values["other_key"] = [
        numbers(there)
        | {
            "dose": c,
            "mass_on_key": asdict(statistics.bootstrap(there.seen.other_mass, seed=parameters.seed)),
            "untouched_mass_on_key": asdict(statistics.bootstrap(plain.seen.other_mass, seed=parameters.seed)),
        }
        for c in OTHER_KEY_DOSES
        for there in [ran_doses["other", c]]
    ]
    return values


def matched(scale: Scale, dose: float) -> dict[str, float]:
    """The strength of each control that costs what a dose on the first key costs."""
    loss = scale.losses({"untouched": untouched, "dose": partial(on_first, dose)})

    def rise(of_arm: Tensor) -> float:
        return float((of_arm - loss["untouched"]).mean())

    def rises(strengths: Mapping[str, float]) -> dict[str, float]:
        losses = scale.losses({kind: control(kind, at) for kind, at in strengths.items()})
        return {kind: rise(of_kind) for kind, of_kind in losses.items()}

    return matching_strengths(rises, rise(loss["dose"]), {"noise": 1.0, **dict.fromkeys(POWERS, 0.5)})


def run_controls(
    bench: Bench, strengths: Mapping[str, Sequence[float]], noise_seeds: int
) -> dict[str, dict[int, list[Ran]]]:
    """Every control at every strength, under each seed of the noise: kind -> seed -> one for each strength."""
    seeds = {kind: range(noise_seeds if kind == "noise" else 1) for kind in strengths}
    ran = bench.run(
        {
            (kind, seed, place): control(kind, at, seed)
            for kind, of_kind in strengths.items()
            for seed in seeds[kind]
            for place, at in enumerate(of_kind)
        }
    )
    return {
        kind: {seed: [ran[kind, seed, place] for place in range(len(of_kind))] for seed in seeds[kind]}
        for kind, of_kind in strengths.items()
    }


def control(kind: str, strength: float, seed: int = 0) -> Make:
    """Noise of a standard deviation, or scores times `power`."""
    return partial(noisy, strength, seed) if kind == "noise" else partial(sharpened, power(kind, strength))


def power(kind: str, strength: float) -> float:
    """What scores are multiplied by."""
    return exp(POWERS[kind] * strength)


def on_first(nats: float, protected: Tensor, masses: Masses) -> Change:
    return dosed(nats, torch.zeros(len(protected), dtype=torch.long))


def on_other(nats: float, keys: Tensor, protected: Tensor, masses: Masses) -> Change:
    return dosed(nats, keys)


def describe(there: Ran, plain: Ran, seed: int) -> JSON:
    """One arm beside the untouched model, every number an estimate over texts."""
    kinds = {"outcome": "relative", "outcome_absolute": "absolute", "outcome_last_layer": "last_layer"}
    sums = {name: torch.cat([getattr(ran.moved, kind) for ran in (there, plain)], 1) for name, kind in kinds.items()}
    samples = {
        "loss_rise": there.seen.loss - plain.seen.loss,
        "loss": there.seen.loss,
        "mass": there.seen.mass,
        "entropy": there.seen.entropy,
    }
    return {name: asdict(statistics.bootstrap(four, _relative, seed=seed)) for name, four in sums.items()} | {
        name: asdict(statistics.bootstrap(of_text, seed=seed)) for name, of_text in samples.items()
    }


def sums_of(ran: Ran, plain: Ran) -> Tensor:
    """Spread, own change and rise in loss of each text, (text, 3)."""
    return torch.cat([ran.moved.relative, (ran.seen.loss - plain.seen.loss)[:, None]], dim=1).double()


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
GAINS = Measurement(
    claim="dose",
    parameters=gains.Parameters,
    passages=gains.passages,
    run=partial(gains.run, doses=DOSES),
    variant="gains",
    on_demand="gains",
)
MEASUREMENTS = (MEASUREMENT, GAINS)
