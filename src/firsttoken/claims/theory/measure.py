"""The paper's theory on real models: collapse along the depth, and a bound on how far a change can travel.

Definitions and proofs are where the functions are: `collapse.py` (rank and representational collapse, the
proposition), `bounds.py` (the over-squashing bound), `measures/path_sums.py` (path sums).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial

import torch
from torch import Tensor

from firsttoken import estimates, texts
from firsttoken.claims.theory import collapse
from firsttoken.claims.theory.bounds import WeightNorms, layer_bounds, weight_norms
from firsttoken.claims.theory.verdict import judge
from firsttoken.errors import FirstTokenError
from firsttoken.estimates import JSON
from firsttoken.execution.choose import choose_for_one_process
from firsttoken.execution.shared_pass import together
from firsttoken.measures.bos_arms import ARMS, Arm
from firsttoken.measures.bos_contrast import first_token_mass, start
from firsttoken.measures.jacobian import choose_sources, gains
from firsttoken.measures.measurement import Measurement
from firsttoken.measures.path_sums import log_path_sums, walk
from firsttoken.models import LanguageModel
from firsttoken.models.out_of_memory import explain_out_of_memory
from firsttoken.progress import tracked
from firsttoken.ranges import at_least, in_range
from firsttoken.statistics import mean_estimates, ratio_of_sums

LN10 = 2.302585092994046
NOT_COMPARED = (
    "The bound was not compared with the Jacobian: that needs all weights at once, so it is left out where a model is "
    "streamed from disk or bounded is 0."
)


@dataclass(frozen=True, kw_only=True)
class Parameters:
    """What is asked of collapse, path sums and the bound."""

    text_source: str = "passages"  # see `texts.texts_from`
    passages: int = 12  # texts for the collapse measures and the path sums
    text_tokens: int = 64  # of each of these, BOS not counted
    bounded: int = 4  # texts on which the bound is compared with the Jacobian; 0: no comparison
    bound_text_tokens: int = 32  # of each of these, BOS not counted
    sources: int = 3  # tokens i for each of them
    directions: int = 3  # random directions for the Jacobian
    repeats: int = 256  # tokens of the repeating inputs
    seed: int = 0
    execution: str = "auto"  # resident, streamed; see `shared_pass.together`

    def __post_init__(self) -> None:
        in_range(self)
        at_least(1, sources=self.sources)
        at_least(2, passages=self.passages, directions=self.directions, repeats=self.repeats)
        at_least(collapse.PREFIX, text_tokens=self.text_tokens)
        if not self.bounded:
            return
        if not 2 <= self.bounded <= self.passages:
            raise FirstTokenError(f"bounded must be 0 or between 2 and passages={self.passages}, not {self.bounded}.")
        # The first token of a text and the last are no sources.
        at_least(self.sources + 2, bound_text_tokens=self.bound_text_tokens)
        if self.bound_text_tokens > self.text_tokens:
            raise FirstTokenError(
                f"bound_text_tokens must be at most text_tokens={self.text_tokens}, not {self.bound_text_tokens}."
            )


def without_the_bound(lm: LanguageModel, parameters: Parameters) -> Parameters:
    """No comparison of the bound where the model is streamed: a record without it answers a smaller question, and
    must not be taken for the larger one."""
    streamed = parameters.bounded and choose_for_one_process(lm, parameters.execution) == "streamed"
    return replace(parameters, bounded=0) if streamed else parameters


def run(lm: LanguageModel, parameters: Parameters, passages: Sequence[str]) -> JSON:
    """`bound_over_jacobian` (log10, mean over later pairs, both bounds at the last layer, in the usual arm),
    `violations`, and for each arm `bound` by layer, `collapse` by layer, `last_two` by repeats, `walk` by layer;
    `path_sum_ratio`, `first_token_mass`. Where the bound is not derived for an architecture, `bound` says why.

    Raises:
        FirstTokenError: the model cannot read the repeating inputs.
    """
    execution, seed = parameters.execution, parameters.seed
    ids = texts.encode(lm, passages, parameters.text_tokens, "never")
    collapse.check_repeats(lm, ids, parameters.repeats)
    with explain_out_of_memory("lower passages, text_tokens or bound_text_tokens"):
        return {
            "first_token_mass": {arm: first_token_mass(lm, ids, arm, seed, execution) for arm in ARMS},
            "collapse": {arm: collapse.by_layer(lm, ids, arm, seed, execution) for arm in ARMS},
            "last_two": collapse.last_two(lm, ids, parameters.repeats, seed, execution),
            **path_sums(lm, ids, seed, execution),
            **compare(lm, ids[: parameters.bounded, : parameters.bound_text_tokens], parameters),
        }


# -- path sums and the bound --------------------------------------------------------------------------------


def path_sums(lm: LanguageModel, ids: Tensor, seed: int = 0, execution: str = "resident") -> JSON:
    """Path sums from the text's tokens to its last one, as the probability of a walk, along the depth.

    `walk` is the share that comes from text tokens other than the first and the last; the rest comes from BOS or the
    first token. Both arms leave out the same tokens of the text.
    """
    walks: dict[Arm, Callable[[LanguageModel], Tensor]] = {}
    for arm in ARMS:
        rows, begin = start(lm, ids, arm)
        walks[arm] = partial(walk, ids=rows, sources=range(begin + 1, rows.shape[1] - 1))
    walked = together(lm, walks, execution)  # each (layer, text, token, source)
    shares = {arm: one[:, :, -1].sum(-1).T.double() for arm, one in walked.items()}  # (text, layer)
    of_text = torch.arange(len(ids))
    values: JSON = {
        "walk": {arm: [asdict(e) for e in mean_estimates(share, of_text, seed)] for arm, share in shares.items()}
    }
    pairs = torch.stack([shares[arm][:, -1] for arm in ("without_bos", "with_bos")], 1)
    values["path_sum_ratio"] = asdict(ratio_of_sums(pairs, seed))
    return values


def compare(lm: LanguageModel, ids: Tensor, parameters: Parameters) -> JSON:
    """The bound beside the measured Jacobian, both arms, for sampled sources and all later tokens.

    The measured gain is at most the spectral norm, so the bound must exceed it; how far is printed.

    Args:
        ids: (text, token), text tokens without BOS.
    """
    if not parameters.bounded:
        return {"bound": {"refused": NOT_COMPARED}}
    try:
        norms = weight_norms(lm.model)
    except FirstTokenError as error:
        return {"bound": {"refused": str(error)}}
    generator = torch.Generator().manual_seed(parameters.seed)
    sources = [choose_sources(ids.shape[1], parameters.sources, generator) for _ in ids]
    values: JSON = {"bound": {}, "violations": 0, "pairs": 0}
    orders: dict[Arm, Tensor] = {}
    for arm in tracked(ARMS):
        by_text = [
            _compare_one(lm, norms, row, at, arm, parameters, parameters.seed + number)
            for number, (row, at) in enumerate(zip(ids, tracked(sources), strict=True))
        ]
        log_gain, tight, theorem = (
            torch.stack([one[name] for one in by_text]) for name in ("gain", "tight", "theorem")
        )
        values["violations"] += sum(int(one["violations"]) for one in by_text)
        values["pairs"] += sum(int(one["pairs"]) for one in by_text)
        of_text = torch.arange(len(ids))
        values["bound"][arm] = {
            name: [asdict(e) for e in mean_estimates(numbers, of_text, parameters.seed)]
            for name, numbers in (("log10_gain", log_gain), ("log10_tight", tight), ("log10_theorem", theorem))
        } | {
            "log10_constant": asdict(_one(torch.stack([one["constant"] for one in by_text]), parameters.seed)),
            "rank_correlation": {
                name: _of_defined(torch.stack([one[name] for one in by_text]), parameters.seed)
                for name in ("abar", "tight_bound", "rollout")
            },
        }
        orders[arm] = torch.stack([(theorem - log_gain)[:, -1], (tight - log_gain)[:, -1]], 1)
    usual: Arm = "with_bos" if lm.prepends_bos else "without_bos"
    of_text = torch.arange(len(ids))
    theorem_orders, tight_orders = mean_estimates(orders[usual], of_text, parameters.seed)
    return values | {"bound_over_jacobian": asdict(theorem_orders), "tight_over_jacobian": asdict(tight_orders)}


def _of_defined(numbers: Tensor, seed: int) -> JSON | None:
    """The mean over texts that have a number, (text,); None where fewer than two have."""
    there = numbers[numbers.isfinite()]
    return asdict(_one(there, seed)) if len(there) >= 2 else None


def _one(numbers: Tensor, seed: int) -> estimates.Estimate:
    return mean_estimates(numbers[:, None], torch.arange(len(numbers)), seed)[0]


def _compare_one(
    lm: LanguageModel,
    norms: list[WeightNorms],
    row: Tensor,
    sources: list[int],
    arm: Arm,
    parameters: Parameters,
    seed: int,
) -> dict[str, Tensor]:
    """One text: log10 of gain and of both bounds by layer, mean over later pairs; rank correlations at the last
    layer of the measured gain with the path sums of abar, the tight bound and the rollout."""
    inputs, begin = start(lm, row[None], arm)
    bounds = layer_bounds(lm.model, inputs, norms)
    at = torch.tensor(sources)
    constant = torch.tensor(max(bound.constant for bound in bounds), dtype=torch.float64)

    def cut(products: list[Tensor]) -> Tensor:
        """(layer, source, token), text tokens only."""
        return torch.stack([product[begin:, begin:][:, at].T for product in products])

    tight = cut(log_path_sums([bound.block for bound in bounds]))
    paths = cut(log_path_sums([bound.abar for bound in bounds]))
    rollout = cut(log_path_sums([0.5 * (bound.maps.mean(0) + torch.eye(inputs.shape[1])) for bound in bounds]))
    depth = torch.arange(1, len(bounds) + 1, dtype=torch.float64)[:, None, None]
    theorem = paths + depth * constant.log()
    measured = gains(lm, row, sources, parameters.directions, arm, seed).gain[:, 1:].transpose(0, 1)
    log_gain = measured.double().log()  # (layer, source, token)
    later = (torch.arange(len(row))[None] > at[:, None]).expand_as(log_gain)
    # A sliding window can leave a pair unconnected in the first layers: gain and bound are both zero there.
    linked = later & torch.isfinite(log_gain) & torch.isfinite(tight)
    broken = linked & ((log_gain > tight + 1e-3) | (log_gain > theorem + 1e-3))
    broken |= later & torch.isfinite(log_gain) & ~torch.isfinite(tight)

    def mean(numbers: Tensor) -> Tensor:
        weight = linked.double()
        return (numbers.nan_to_num(neginf=0.0) * weight).sum((1, 2)) / weight.sum((1, 2)).clamp_min(1) / LN10

    last = linked[-1]
    return {
        "gain": mean(log_gain),
        "tight": mean(tight),
        "theorem": mean(theorem),
        "constant": constant.log10(),
        "abar": rank_correlation(paths[-1][last], log_gain[-1][last]),
        "tight_bound": rank_correlation(tight[-1][last], log_gain[-1][last]),
        "rollout": rank_correlation(rollout[-1][last], log_gain[-1][last]),
        "violations": broken.sum(),
        "pairs": linked.sum(),
    }


def rank_correlation(a: Tensor, b: Tensor) -> Tensor:
    """Spearman's correlation of two lists of numbers without ties; NaN for fewer than two pairs."""
    if len(a) < 2:
        return torch.tensor(torch.nan, dtype=torch.float64)
    ranks = torch.stack([a, b]).argsort(-1).argsort(-1).double()
    return torch.corrcoef(ranks)[0, 1]


MEASUREMENT = Measurement(
    claim="theory",
    parameters=Parameters,
    passages=lambda parameters: texts.exactly(parameters.text_source, parameters.passages),
    run=run,
    judge=judge,
    fit=without_the_bound,
)
MEASUREMENTS = (MEASUREMENT,)
