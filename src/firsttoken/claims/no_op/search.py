"""Find conditional no-op heads: heads that rest on the first token unless some simple condition holds.

Three steps, each a pure function:

1. *Modes.* A head's attention to the first token is cut in two by the threshold that explains most of its variance
   (Otsu). The head switches when that leaves little variance, the two means lie apart and both sides are in use. It
   is bimodal when its histogram also has a valley between two humps; a head may switch without one, gradually.
2. *Association.* Mutual information, in bits, between a head's mode (on the sink or off it) and each condition.
3. *Significance.* The null: the modes of a text have nothing to do with its tokens. Texts exchange their modes,
   position by position, which keeps the trend of attention with position and the correlation along a text. The
   largest information over all heads and classes of each exchange gives p-values corrected for every head and
   condition that was looked at.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from firsttoken.errors import FirstTokenError
from firsttoken.texts.token_classes import TokenClasses

BINS = 20  # of the histogram in which a valley is looked for
FEWEST_TEXTS = 8  # that can be exchanged with each other
FEWEST_QUERIES = 8  # of each text, from the first query that counts


@dataclass(frozen=True)
class Discovery:
    """Parameters. The defaults ask for a clear case: a rule that can be stated in one phrase."""

    first_query: int = 8  # earlier queries see so few keys that the first gets much attention for nothing
    # Share of the variance that the two sides must explain. A bell shape gives 0.64 and an even spread 0.75, so this
    # alone shows no two modes.
    explained: float = 0.72
    valley: float = 0.5  # a bimodal head has at most this density between its humps, relative to the lower hump
    apart: float = 0.4  # distance between the mean attention of the two sides
    least_share: float = 0.005  # of queries on the rarer side
    permutations: int = 999
    significance: float = 0.05
    separation: float = 0.5  # |P(off the sink | condition) - P(off the sink | otherwise)|
    seed: int = 0


@dataclass(frozen=True)
class Modes:
    """The two sides of every head's attention to the first token; heads are numbered through all layers."""

    threshold: Tensor  # (head,): a query is on the sink above it
    explained: Tensor  # (head,), share of variance between the two sides
    mean_off: Tensor  # (head,), mean attention to the first token off the sink
    mean_on: Tensor  # (head,), on the sink
    share_off: Tensor  # (head,), share of queries off the sink
    valley: Tensor  # (head,), density between the highest points on both sides, relative to the lower of them
    switches: Tensor  # (head,), bool
    bimodal: Tensor  # (head,), bool: switches, with a valley between


@dataclass(frozen=True)
class Rule:
    """What was found for one head: the condition that best separates its modes."""

    head: int  # numbered through all layers
    condition: str
    off_when_true: bool  # the head leaves the sink when the condition holds; else it leaves it when it does not
    off_if_condition: float  # P(off the sink | condition)
    off_otherwise: float
    bits: float  # mutual information
    share_explained: float  # of the entropy of the mode
    p: float  # corrected for all heads and classes
    named: bool  # significant, and separated enough to be called a rule


def modes(attention: Tensor, parameters: Discovery) -> Modes:
    """Cut each head's attention in two.

    Args:
        attention: (head, text, query), to the first token, queries before `first_query` already left out.
    """
    flat = attention.flatten(1).double()
    heads, n = flat.shape
    edges = 100
    index = (flat * edges).long().clamp(0, edges - 1)
    counts = torch.zeros(heads, edges, dtype=torch.float64).scatter_add_(1, index, torch.ones_like(flat))
    sums = torch.zeros(heads, edges, dtype=torch.float64).scatter_add_(1, index, flat)
    below, below_sum = counts.cumsum(1), sums.cumsum(1)
    total = flat.sum(1, keepdim=True)
    low = below_sum / below.clamp_min(1)
    high = (total - below_sum) / (n - below).clamp_min(1)
    between = below * (n - below) / n**2 * (high - low) ** 2
    # Across an empty gap every threshold is as good; the middle one belongs to neither side.
    equal = between >= between.amax(1, keepdim=True) * (1 - 1e-12)
    best = (equal.double().argmax(1) + edges - 1 - equal.flip(1).double().argmax(1)) // 2
    pick = best[:, None]
    share = (below / n).gather(1, pick)[:, 0]
    mean_off, mean_on = low.gather(1, pick)[:, 0], high.gather(1, pick)[:, 0]
    explained = between.gather(1, pick)[:, 0] / flat.var(1, correction=0).clamp_min(1e-12)
    switches = (
        (explained >= parameters.explained)
        & (mean_on - mean_off >= parameters.apart)
        & (torch.minimum(share, 1 - share) >= parameters.least_share)
    )
    depth = valley(counts.unflatten(1, (BINS, -1)).sum(-1), (best + 1) // (edges // BINS))
    bimodal = switches & (depth <= parameters.valley)
    return Modes((best.double() + 1) / edges, explained, mean_off, mean_on, share, depth, switches, bimodal)


def valley(counts: Tensor, split: Tensor) -> Tensor:
    """The lowest density between the highest point on each side of a split, relative to the lower of the two: 0 for
    two separate humps, near 1 for a single hump or an even spread.

    Args:
        counts: (head, bin), histograms; smoothed here over three bins.
        split: (head,), the first bin of the right side.

    Returns:
        depth  # (head,)
    """
    padded = torch.cat([counts[:, :1], counts, counts[:, -1:]], dim=1)
    smooth = (padded[:, :-2] + 2 * padded[:, 1:-1] + padded[:, 2:]) / 4
    bins = torch.arange(counts.shape[1])
    left = bins < split.clamp(1, counts.shape[1] - 1)[:, None]
    low_peak = smooth.masked_fill(~left, -1).argmax(1)
    high_peak = smooth.masked_fill(left, -1).argmax(1)
    between = (bins >= low_peak[:, None]) & (bins <= high_peak[:, None])
    lowest = smooth.masked_fill(~between, torch.inf).amin(1)
    peaks = smooth.gather(1, torch.stack([low_peak, high_peak], dim=1)).amin(1)
    return lowest / peaks.clamp_min(1e-12)


def information(off: Tensor, holds: Tensor) -> Tensor:
    """Mutual information of two tables of booleans, for every pair of rows.

    Args:
        off: (head, n), bool.
        holds: (condition, n), bool.

    Returns:
        bits  # (head, condition)
    """
    n = off.shape[1]
    a, b = off.double(), holds.double()
    both = a @ b.T / n
    p_off, p_holds = a.mean(1)[:, None], b.mean(1)[None]
    cells = (
        (both, p_off * p_holds),
        (p_off - both, p_off * (1 - p_holds)),
        (p_holds - both, (1 - p_off) * p_holds),
        (1 - p_off - p_holds + both, (1 - p_off) * (1 - p_holds)),
    )
    bits = torch.zeros_like(both)
    for joint, product in cells:
        joint = joint.clamp_min(0)
        bits += torch.where(joint > 1e-12, joint * torch.log2(joint.clamp_min(1e-12) / product.clamp_min(1e-12)), 0.0)
    return bits


def largest_by_chance(off: Tensor, holds: Tensor, permutations: int, seed: int) -> Tensor:
    """The largest information over heads and classes when texts exchange their modes: (permutation,), bits.

    Args:
        off: (head, text, query), bool.
        holds: (condition, text, query), bool.
    """
    generator = torch.Generator().manual_seed(seed)
    flat = holds.flatten(1)
    largest = []
    for _ in range(permutations):
        order = torch.randperm(off.shape[1], generator=generator)
        largest.append(information(off[:, order].flatten(1), flat).max())
    return torch.stack(largest)


def discover(attention: Tensor, classes: TokenClasses, parameters: Discovery) -> tuple[Modes, list[Rule]]:
    """Every head that switches with the condition that separates its two sides best, the most informative first.

    Args:
        attention: (text, layer, head, query), to the first token.
        classes: on the same texts and tokens; a query is a token.

    Raises:
        FirstTokenError: too few texts to exchange, or texts too short.
    """
    passages, _, _, length = attention.shape
    if passages < FEWEST_TEXTS:
        raise FirstTokenError(
            f"Finding heads exchanges texts with each other and needs at least {FEWEST_TEXTS}, not {passages}."
        )
    start = parameters.first_query
    if length < (fewest := start + FEWEST_QUERIES):
        raise FirstTokenError(f"Finding heads needs texts of at least {fewest} tokens, not {length}.")
    by_head = attention[..., start:].permute(1, 2, 0, 3).flatten(0, 1)  # (layer * head, text, query)
    two = modes(by_head, parameters)
    chosen = two.switches.nonzero()[:, 0]
    usable = TokenClasses(classes.names, classes.holds[:, :, start:]).kept(max(5, passages // 4))
    if not len(chosen) or not usable.names:
        return two, []
    off = by_head[chosen] <= two.threshold[chosen, None, None]
    bits = information(off.flatten(1), usable.holds.flatten(1))
    chance = largest_by_chance(off, usable.holds, parameters.permutations, parameters.seed)
    rules = []
    for row, head in enumerate(chosen.tolist()):
        column = int(bits[row].argmax())
        holds = usable.holds[column]
        inside, outside = off[row][holds].double().mean().item(), off[row][~holds].double().mean().item()
        p = (1 + int((chance >= bits[row, column]).sum())) / (1 + len(chance))
        share = two.share_off[head].item()
        entropy = -sum(x * torch.log2(torch.tensor(x, dtype=torch.float64)).item() for x in (share, 1 - share))
        rules.append(
            Rule(
                head=head,
                condition=usable.names[column],
                off_when_true=inside > outside,
                off_if_condition=inside,
                off_otherwise=outside,
                bits=bits[row, column].item(),
                share_explained=bits[row, column].item() / entropy,
                p=p,
                named=p <= parameters.significance and abs(inside - outside) >= parameters.separation,
            )
        )
    return two, sorted(rules, key=lambda rule: (not rule.named, -rule.share_explained))


def targets(maps: Tensor, off: Tensor) -> dict[str, float] | None:
    """Where a head looks when it is off the sink: shares of its attention, which add up to one.

    Args:
        maps: (text, query, key), one head's attention.
        off: (text, query), bool.

    Returns:
        shares for `first token`, `itself`, `previous token`, `two to four tokens back`, `further back`; None where it
        never is
    """
    if not off.any():
        return None
    queries = maps.shape[1]
    distance = torch.arange(queries)[:, None] - torch.arange(queries)[None]
    rows = maps[off]
    back = distance.expand(maps.shape)[off]
    first = torch.zeros_like(back, dtype=torch.bool)
    first[:, 0] = True
    groups = {
        "first token": first,
        "itself": (back == 0) & ~first,
        "previous token": (back == 1) & ~first,
        "two to four tokens back": (back >= 2) & (back <= 4) & ~first,
        "further back": (back > 4) & ~first,
    }
    return {name: (rows * group).sum(-1).mean().item() for name, group in groups.items()}
