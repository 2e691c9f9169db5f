"""Does the sink keep a change of one token local? One picture, and the statistics that a picture cannot give.

Paper: heat maps of Gemma 7B for "greatest" -> "best" in a paragraph on Shakespeare, with and without BOS.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from firsttoken import texts
from firsttoken.claims.perturbation.verdict import judge
from firsttoken.errors import FirstTokenError
from firsttoken.estimates import JSON
from firsttoken.execution.by_layer import through_layers
from firsttoken.measures.bos_arms import ARMS, Arm
from firsttoken.measures.bos_contrast import first_token_mass, start
from firsttoken.measures.measurement import Measurement
from firsttoken.measures.spread import Distances, distances, reach, run_edits, spread
from firsttoken.models import LanguageModel
from firsttoken.probe import Probe
from firsttoken.progress import tracked
from firsttoken.ranges import at_least, in_range
from firsttoken.statistics import mean_estimates, ratio_estimates, ratio_of_ratios
from firsttoken.texts.edits import Edit, choose_edits, edit_text, parse_edit, shakespeare, token_synonyms

ALL_TEXTS = 170
_ARMS_OF: dict[str, tuple[Arm, ...]] = {"both": ARMS, "always": ("with_bos",), "never": ("without_bos",)}


@dataclass(frozen=True, kw_only=True)
class Parameters:
    """What is asked of the spread of a change."""

    text: str = ""  # of the picture, a text or the name of a passage; empty: the project's paragraph on Shakespeare
    edit: str = "greatest -> best"  # the edit of the picture
    shown: int = 48  # tokens of the picture
    text_source: str = "passages"  # see `texts.texts_from`; the statistics are over these
    edits: int = 120  # single-token edits of the statistics
    text_tokens: int = 64  # of each text, BOS not counted
    bos: str = "both"  # both, always, never: which arms to run; the ratio needs both
    threshold: float = 0.1  # a token counts as reached when it moved by this share of its norm
    seed: int = 0
    batch_tokens: int = 4096
    execution: str = "auto"  # resident, streamed; see `by_layer.through_layers`

    def __post_init__(self) -> None:
        in_range(self)
        at_least(2, edits=self.edits, shown=self.shown, text_tokens=self.text_tokens)
        if not 0 < self.threshold < 1:
            raise FirstTokenError(f"threshold is a share of a norm between 0 and 1, not {self.threshold}.")
        if self.bos not in _ARMS_OF:
            raise FirstTokenError(f"bos must be both, always or never here, not {self.bos!r}.")
        parse_edit(self.edit)

    @property
    def arms(self) -> tuple[Arm, ...]:
        """The arms to run."""
        return _ARMS_OF[self.bos]


def passages(parameters: Parameters) -> list[str]:
    """The text of the picture, then those of the statistics."""
    shown = texts.passage(parameters.text) if parameters.text else shakespeare()
    return [shown, *texts.texts_from(parameters.text_source, limit=ALL_TEXTS)]


def run(lm: LanguageModel, parameters: Parameters, passages: Sequence[str]) -> JSON:
    """`spread_ratio` (relative spread without BOS / with BOS, mean over layers) and `spread_ratio_absolute`;
    `own_ratio`, the same of the edited token's own relative change, and `spread_over_own_ratio` of spread over own;
    for each arm `by_layer` with `spread`, `spread_absolute` and `reach`; the ratio `by_layer`, `by_kind` and
    `by_place`; `first_token_mass` of each arm; `picture`, the distances of one edit at every layer and token. Where
    the picture's own edit does not fit the model's tokens, `picture` says why as `refused`.

    Raises:
        FirstTokenError: an edit that was asked for does not fit, or the edits are too few; before anything is run.
    """
    shown, *edited = passages
    arms, execution = parameters.arms, parameters.execution
    ids = texts.encode(lm, edited, parameters.text_tokens, "never")
    vocabulary = sorted(set(ids.flatten().tolist()))
    edits = choose_edits(ids, parameters.edits, token_synonyms(lm), vocabulary, parameters.seed)
    if len({edit.text for edit in edits}) < 2:
        raise FirstTokenError(
            f"The {len(edits)} edits are all of one text, and an interval needs edits of two; raise `edits`."
        )
    pair = pair_of_picture(lm, shown, parameters)
    of_arm = {arm: run_edits(lm, ids, edits, arm, parameters.batch_tokens, execution) for arm in tracked(arms)}
    used = ids[sorted({edit.text for edit in edits})[:16]]
    return summary(of_arm, edits, parameters) | {
        "first_token_mass": {arm: first_token_mass(lm, used, arm, execution=execution) for arm in arms},
        "picture": {"refused": pair} if isinstance(pair, str) else picture(lm, pair, parameters),
    }


def summary(of_arm: dict[Arm, Distances], edits: Sequence[Edit], parameters: Parameters) -> JSON:
    """All statistics of a set of edits that ran in one or both arms."""
    positions = torch.tensor([edit.position for edit in edits])
    of_text = torch.tensor([edit.text for edit in edits])
    seed = parameters.seed
    values: JSON = {"edits": len(edits), "by_layer": {}}
    # Layer 0 is the input: nothing has been mixed yet, and its spread is zero by construction.
    relative = {arm: spread(d.relative, positions)[:, 1:] for arm, d in of_arm.items()}
    absolute = {arm: spread(d.absolute, positions)[:, 1:] for arm, d in of_arm.items()}
    for arm, d in of_arm.items():
        reached = reach(d.relative, positions, parameters.threshold)[:, 1:]
        values["by_layer"][arm] = {
            name: [asdict(estimate) for estimate in mean_estimates(samples, of_text, seed)]
            for name, samples in (("spread", relative[arm]), ("spread_absolute", absolute[arm]), ("reach", reached))
        }
        values[f"spread_{arm}"] = asdict(mean_estimates(relative[arm].mean(1, True), of_text, seed)[0])
        values[f"reach_{arm}"] = asdict(mean_estimates(reached.mean(1, True), of_text, seed)[0])
    if len(of_arm) < 2:
        return values

    def ratios(samples: dict[Arm, Tensor], kept: Tensor | None = None) -> list[JSON]:
        rows = torch.ones(len(edits), dtype=torch.bool) if kept is None else kept
        above, below = (samples[arm][rows] for arm in ("without_bos", "with_bos"))
        return [asdict(estimate) for estimate in ratio_estimates(above, below, of_text[rows], seed)]

    means = {arm: s.mean(1, True) for arm, s in relative.items()}
    values["spread_ratio"] = ratios(means)[0]
    values["spread_ratio_absolute"] = ratios({arm: s.mean(1, True) for arm, s in absolute.items()})[0]
    values["by_layer"]["ratio"] = ratios(relative)
    edit = torch.arange(len(edits))
    own = {arm: d.relative[edit, 1:, positions].mean(1) for arm, d in of_arm.items()}  # (edit,)
    values["own_ratio"] = ratios({arm: change[:, None] for arm, change in own.items()})[0]
    above, below = ((means[arm][:, 0], own[arm]) for arm in ("without_bos", "with_bos"))
    values["spread_over_own_ratio"] = asdict(ratio_of_ratios(above, below, of_text, seed))
    for group, names in (("kind", ("synonym", "random")), ("place", ("early", "middle", "late"))):
        values[f"by_{group}"] = {}
        for name in names:
            kept = torch.tensor([getattr(edit, group) == name for edit in edits])
            if len(of_text[kept].unique()) > 1:
                values[f"by_{group}"][name] = ratios(means, kept)[0] | {"edits": int(kept.sum())}
    return values


Pair = tuple[Tensor, Tensor, int]  # a text before and after an edit, (token,) each, and the position of the edit


def pair_of_picture(lm: LanguageModel, text: str, parameters: Parameters) -> Pair | str:
    """The text of the picture before and after its edit; why there is none, where the tokenizer does not allow the
    one that is shown if no other is asked for.

    Raises:
        FirstTokenError: the edit that was asked for cannot be made or shown.
    """
    try:
        return _pair(lm, text, parameters)
    except FirstTokenError as error:
        plain = Parameters()
        if (parameters.text, parameters.edit, parameters.shown) != (plain.text, plain.edit, plain.shown):
            raise
        return str(error)


def _pair(lm: LanguageModel, text: str, parameters: Parameters) -> Pair:
    before, after, position = edit_text(lm, text, parameters.edit)
    before, after = before[: parameters.shown], after[: parameters.shown]
    if position + 1 >= len(before):
        raise FirstTokenError(
            f"The edit {parameters.edit!r} changes token {position}, and the picture shows {len(before)} tokens; "
            f"raise `shown` or give a text with more tokens after it."
        )
    return before, after, position


def picture(lm: LanguageModel, pair: Pair, parameters: Parameters) -> JSON:
    """One edit of one text: tokens, and for each arm the distances (layer + 1, token), relative and absolute."""
    before, after, position = pair
    values: dict[str, Any] = {
        "tokens": [lm.tokenizer.decode([token]) for token in before.tolist()],
        "edited_tokens": [lm.tokenizer.decode([token]) for token in after.tolist()],
        "position": position,
    }
    for arm in parameters.arms:
        d = _run_pair(lm, before, after, arm, parameters.execution)
        values[arm] = {"relative": _digits(d.relative[0]), "absolute": _digits(d.absolute[0])}
    return values


def _run_pair(lm: LanguageModel, before: Tensor, after: Tensor, arm: Arm, execution: str) -> Distances:
    """Distances of two texts of equal length, which may differ in several tokens: (1, layer + 1, token)."""
    rows, first = start(lm, torch.stack([before, after]), arm)

    def see(number: int, layer: int, v: Tensor, p: Probe) -> Tensor:
        return torch.stack(distances(v[0, first:], v[1, first:]))[None]  # (1, 2, token)

    by_layer = through_layers(lm, [rows], see, execution=execution, task="distances of two texts")
    absolute, relative = torch.stack([parts[0] for parts in by_layer.values()], dim=2).unbind(1)
    return Distances(absolute, relative)


def _digits(rows: Tensor) -> list[list[float]]:
    return [[float(f"{value:.3g}") for value in row] for row in rows.tolist()]


MEASUREMENT = Measurement(
    claim="perturbation", parameters=Parameters, passages=passages, run=run, judge=judge, version=2
)
MEASUREMENTS = (MEASUREMENT,)
