"""The same doses under a change that is as small as can be: exact derivatives in place of replaced words.

A replaced word is a large change of one token, of another size at every edit. The gain of a pair of tokens is how far
the later one moves for a small change of the earlier one (see `measures.jacobian`); its mean over later tokens, over
the gain at the changed token itself, is what spread / own is in the limit of small changes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial

import torch

from firsttoken import texts
from firsttoken.claims.dose.runs import encoded
from firsttoken.estimates import JSON
from firsttoken.measures.jacobian import Gains, choose_sources, gains, later_and_own
from firsttoken.models import BosPolicy, LanguageModel
from firsttoken.probe.interventions import in_every_layer, weaken_key
from firsttoken.progress import tracked
from firsttoken.ranges import at_least, in_range
from firsttoken.statistics import ratio_estimates, ratio_of_ratios


@dataclass(frozen=True, kw_only=True)
class Parameters:
    """What is asked. The model must fit into memory, with the derivatives of a batch beside it."""

    gains: int = 12  # texts, the first of those that the doses are measured on
    text_source: str = "passages"  # see `texts.texts_from`
    skip_passages: int = 48  # texts at the beginning that are not used
    sources: int = 2  # changed tokens of each text, one from each part of it
    directions: int = 2  # random directions in which each is changed
    length: int = 64  # tokens of each text, BOS included
    bos: BosPolicy = "auto"
    seed: int = 0  # of sources, directions and bootstrap
    batch_tokens: int = 4096

    def __post_init__(self) -> None:
        in_range(self)
        at_least(1, sources=self.sources)
        at_least(2, gains=self.gains, directions=self.directions)
        # Neither the first token of a text nor the last is changed, and BOS may be in front.
        at_least(self.sources + 3, length=self.length)


def passages(parameters: Parameters) -> list[str]:
    """The measured texts."""
    return texts.exactly(parameters.text_source, parameters.gains, parameters.skip_passages)


def run(lm: LanguageModel, parameters: Parameters, passages: Sequence[str], doses: Sequence[float]) -> JSON:
    """At each of the `doses`, relative to the untouched model: `later_over_own`, the relative gain at later tokens
    over that at the changed token, `later` and `own`, each a mean over layers 1 to L and with an interval over texts;
    `monte_carlo_error`, the median error of a gain from the random directions, as a share of it; `pairs` of tokens.
    """
    ids, arm = encoded(lm, passages, parameters.length, parameters.bos)
    generator = torch.Generator().manual_seed(parameters.seed)
    sources = [choose_sources(ids.shape[1], parameters.sources, generator) for _ in ids]

    def at(dose: float) -> list[Gains]:
        hook = in_every_layer(partial(weaken_key, nats=-dose)) if dose else None
        measure = partial(
            gains, lm, directions=parameters.directions, arm=arm, batch_tokens=parameters.batch_tokens, hook=hook
        )
        numbered = enumerate(zip(ids, tracked(sources), strict=True))
        return [measure(row, some, seed=parameters.seed + number) for number, (row, some) in numbered]

    return summary({dose: at(dose) for dose in tracked(doses)}, parameters.seed)


def summary(by_dose: dict[float, list[Gains]], seed: int = 0) -> JSON:
    """What `run` returns, from the gains of each text at each dose, the untouched model among them."""
    untouched = by_dose[0.0]
    of_text = torch.cat([torch.full((len(g.sources),), n) for n, g in enumerate(untouched)])
    at = torch.cat([g.sources for g in untouched])
    means = {dose: later_and_own(torch.cat([g.relative for g in of_dose]), at) for dose, of_dose in by_dose.items()}
    later, own = means[0.0]
    values: JSON = {
        "doses": list(by_dose),
        "pairs": int((untouched[0].relative.shape[-1] - 1 - at).sum()),
        "later_over_own": [],
        "later": [],
        "own": [],
        "monte_carlo_error": [],
    }
    for dose, of_dose in by_dose.items():
        here = means[dose]
        values["later_over_own"].append(asdict(ratio_of_ratios(here, (later, own), of_text, seed)))
        for name, above, below in (("later", here[0], later), ("own", here[1], own)):
            values[name].append(asdict(ratio_estimates(above[:, None], below[:, None], of_text, seed)[0]))
        errors = torch.cat([g.relative_error[g.relative > 0] for g in of_dose])
        values["monte_carlo_error"].append(float(errors.median()))
    return values
