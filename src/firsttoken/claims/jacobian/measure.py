"""Sensitivity: how much a token depends on an earlier one, with BOS and without, from exact derivatives."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import torch
from torch import Tensor

from firsttoken import texts
from firsttoken.claims.jacobian.verdict import judge
from firsttoken.estimates import JSON
from firsttoken.measures.bos_arms import ARMS, Arm
from firsttoken.measures.bos_contrast import first_token_mass
from firsttoken.measures.jacobian import Gains, at_later, at_source, choose_sources, gains, later_and_own
from firsttoken.measures.measurement import Measurement
from firsttoken.models import LanguageModel
from firsttoken.progress import tracked
from firsttoken.ranges import at_least, in_range
from firsttoken.statistics import mean_estimates, ratio_estimates, ratio_of_ratios


@dataclass(frozen=True, kw_only=True)
class Parameters:
    """What is asked of the sensitivity of tokens to each other."""

    text_source: str = "passages"  # see `texts.texts_from`
    passages: int = 12  # how many texts
    text_tokens: int = 96  # of each text, BOS not counted
    sources: int = 2  # tokens i for each text, one from each part of it
    directions: int = 2  # random directions for each source
    seed: int = 0
    batch_tokens: int = 2048

    def __post_init__(self) -> None:
        in_range(self)
        at_least(1, sources=self.sources)
        at_least(2, passages=self.passages, directions=self.directions)
        # The first token of a text and the last are no sources.
        at_least(self.sources + 2, text_tokens=self.text_tokens)


def distance_bins(length: int) -> list[tuple[int, int]]:
    """Distances j - i in doubling bins, (first, last): 1, 2-3, 4-7 ..."""
    return [(2**k, min(2 ** (k + 1) - 1, length - 1)) for k in range(length.bit_length()) if 2**k < length]


def run(lm: LanguageModel, parameters: Parameters, passages: Sequence[str]) -> JSON:
    """`sensitivity_ratio` (relative gain at later tokens without BOS / with it, mean over layers and pairs) and
    `own_ratio` (the same at the source itself), `later_over_own_ratio` (of later tokens over the source itself),
    `gain_ratio` (as the first, of the absolute gain); for each arm `by_layer` (relative gain at later tokens and at
    the source itself), `by_distance` and `by_position` at the last layer; `monte_carlo_error`.
    """
    ids = texts.encode(lm, passages, parameters.text_tokens, "never")
    generator = torch.Generator().manual_seed(parameters.seed)
    sources = [choose_sources(parameters.text_tokens, parameters.sources, generator) for _ in passages]
    of_arm = {
        arm: [
            gains(lm, row, at, parameters.directions, arm, parameters.seed + number, parameters.batch_tokens)
            for number, (row, at) in enumerate(zip(ids, tracked(sources), strict=True))
        ]
        for arm in tracked(ARMS)
    }
    mass = {arm: first_token_mass(lm, ids, arm, parameters.seed) for arm in ARMS}
    return summary(of_arm, parameters.seed) | {"first_token_mass": mass}


def summary(of_arm: dict[Arm, list[Gains]], seed: int = 0) -> JSON:
    """All that a record says about the gains of several texts in both arms."""
    arms = {arm: _Pooled(per_text) for arm, per_text in of_arm.items()}
    first = arms[ARMS[0]]
    values: JSON = {"pairs": int(first.later.sum()), "sources": len(first.of_text), "by_layer": {}}
    own = {arm: pooled.own() for arm, pooled in arms.items()}
    values["distance"] = [f"{low}" if low == high else f"{low}–{high}" for low, high in first.bins]
    values["by_distance"], values["by_position"] = {}, {}
    for arm, pooled in arms.items():
        values["by_layer"][arm] = {
            "later": _estimates(pooled.later_mean(pooled.relative), pooled.of_text, seed),
            "own": _estimates(own[arm], pooled.of_text, seed),
        }
        values["by_distance"][arm] = pooled.by_distance(seed)
        values["by_position"][arm] = pooled.by_position(seed)
        error = pooled.error[pooled.later[:, None].expand_as(pooled.error) & (pooled.relative > 0)]
        values[f"monte_carlo_error_{arm}"] = float(error.median())
    (without, with_bos) = (arms[arm] for arm in ("without_bos", "with_bos"))
    for name in ("sensitivity_ratio", "gain_ratio"):
        which = "relative" if name == "sensitivity_ratio" else "gain"
        above, below = (p.later_mean(getattr(p, which))[:, 1:] for p in (without, with_bos))
        values[name] = asdict(ratio_estimates(above.mean(1, True), below.mean(1, True), first.of_text, seed)[0])
        if name == "sensitivity_ratio":
            by_layer = ratio_estimates(above, below, first.of_text, seed)
            values["by_layer"]["ratio"] = [asdict(estimate) for estimate in by_layer]
    pairs = [later_and_own(arms[arm].relative, arms[arm].at) for arm in ARMS]
    (_, own_with), (_, own_without) = pairs
    values["own_ratio"] = asdict(ratio_estimates(own_without[:, None], own_with[:, None], first.of_text, seed)[0])
    values["later_over_own_ratio"] = asdict(ratio_of_ratios(pairs[1], pairs[0], first.of_text, seed))
    return values


class _Pooled:
    """The sources of all texts in one arm, side by side."""

    def __init__(self, per_text: list[Gains]) -> None:
        self.relative = torch.cat([g.relative for g in per_text])  # (source, layer + 1, token)
        self.gain = torch.cat([g.gain for g in per_text])
        self.error = torch.cat([g.relative_error for g in per_text])
        self.at = torch.cat([g.sources for g in per_text])  # (source,)
        self.of_text = torch.cat([torch.full((len(g.sources),), n) for n, g in enumerate(per_text)])
        length = self.relative.shape[-1]
        self.distance = torch.arange(length)[None] - self.at[:, None]  # (source, token)
        self.later = self.distance > 0
        self.bins = distance_bins(length)

    def own(self) -> Tensor:
        """Relative gain at the source itself: (source, layer + 1)."""
        return at_source(self.relative, self.at)

    def later_mean(self, numbers: Tensor) -> Tensor:
        """Mean over the tokens after each source: (source, layer + 1)."""
        return at_later(numbers, self.at)

    def by_distance(self, seed: int) -> list[JSON]:
        """Relative gain at the last layer in bins of the distance from source to token."""
        return [self._where((self.distance >= low) & (self.distance <= high), seed) for low, high in self.bins]

    def by_position(self, seed: int) -> list[JSON]:
        """The same in bins of the token's position, which is the length of the context it sees."""
        position = torch.arange(self.relative.shape[-1])[None]
        return [self._where(self.later & (position >= low) & (position <= high), seed) for low, high in self.bins]

    def _where(self, chosen: Tensor, seed: int) -> JSON:
        """Mean over chosen pairs, (source, token), or {} where fewer than two texts have any."""
        weight = chosen.double()
        total, count = (self.relative[:, -1] * weight).sum(-1, True), weight.sum(-1, True)
        kept = count[:, 0] > 0
        if len(self.of_text[kept].unique()) < 2:
            return {}
        return asdict(ratio_estimates(total[kept], count[kept], self.of_text[kept], seed)[0])


def _estimates(samples: Tensor, of_text: Tensor, seed: int) -> list[JSON]:
    return [asdict(estimate) for estimate in mean_estimates(samples, of_text, seed)]


MEASUREMENT = Measurement(
    claim="jacobian",
    parameters=Parameters,
    passages=lambda parameters: texts.exactly(parameters.text_source, parameters.passages),
    run=run,
    judge=judge,
    version=2,  # 2: gains over that at the source itself
)
MEASUREMENTS = (MEASUREMENT,)
