"""How strongly token j after l layers depends on the input at token i: ||dv_j^(l) / dv_i^(0)||.

The Jacobian J of one pair (i, j) is a width x width matrix. Its size is measured with random directions: for u
uniform on the unit sphere of d dimensions, E ||J u||^2 = ||J||_F^2 / d. The *gain*

    g = ||J||_F / sqrt(d) = sqrt(E ||J u||^2)

is what a random unit change of v_i^(0) becomes at v_j^(l), root mean square; the spectral norm is at least g and at
most sqrt(d) g. The *relative gain* g ||v_i^(0)|| / ||v_j^(l)|| says by which share of itself token j moves when token
i moves by a small share of itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from firsttoken.errors import FirstTokenError
from firsttoken.measures.bos_arms import Arm
from firsttoken.measures.bos_contrast import start
from firsttoken.models import LanguageModel
from firsttoken.models.anatomy import find_layers
from firsttoken.models.out_of_memory import explain_out_of_memory
from firsttoken.probe.interventions import Hook
from firsttoken.probe.residual_stream import push_forward


@dataclass(frozen=True)
class Gains:
    """Squared gains of sampled sources in one text; zero before the source, because attention is causal."""

    squared: Tensor  # (source, direction, layer + 1, token), float32: ||J u||^2
    norms: Tensor  # (layer + 1, token), ||v_j^(l)||
    sources: Tensor  # (source,), positions among the text's tokens

    @property
    def gain(self) -> Tensor:
        """Root mean square over directions, (source, layer + 1, token)."""
        return self.squared.mean(1).sqrt()

    @property
    def relative(self) -> Tensor:
        """g ||v_i^(0)|| / ||v_j^(l)||, (source, layer + 1, token)."""
        return self.gain * self.norms[0, self.sources][:, None, None] / self.norms

    @property
    def relative_error(self) -> Tensor:
        """Standard error of `gain` from the directions, as a share of it, (source, layer + 1, token); zero where the
        gain is. The error of a square root is half that of its argument."""
        mean = self.squared.mean(1)
        error = self.squared.std(1) / self.squared.shape[1] ** 0.5
        return torch.where(mean > 0, 0.5 * error / mean.clamp_min(1e-30), torch.zeros(()))


def at_source(numbers: Tensor, sources: Tensor) -> Tensor:
    """Of numbers (source, layer + 1, token), those at each source itself: (source, layer + 1)."""
    return numbers.gather(2, sources[:, None, None].expand(-1, numbers.shape[1], 1))[..., 0]


def at_later(numbers: Tensor, sources: Tensor) -> Tensor:
    """Of numbers (source, layer + 1, token), the mean over the tokens after each source: (source, layer + 1)."""
    later = (torch.arange(numbers.shape[-1]) > sources[:, None])[:, None].to(numbers)
    return (numbers * later).sum(-1) / later.sum(-1)


def later_and_own(relative: Tensor, sources: Tensor) -> tuple[Tensor, Tensor]:
    """Relative gain, (source, layer + 1, token), at later tokens and at each source itself: means over layers 1 to L,
    (source,) both. Their ratio is what spread over own is in the limit of small changes."""
    later, own = (kind(relative, sources)[:, 1:].mean(1) for kind in (at_later, at_source))
    return later, own


def sphere(shape: Sequence[int], generator: torch.Generator) -> Tensor:
    """Directions uniform on the unit sphere of the last dimension."""
    gaussian = torch.randn(*shape, generator=generator)
    return gaussian / gaussian.norm(dim=-1, keepdim=True)


def gains(
    lm: LanguageModel,
    ids: Tensor,
    sources: Sequence[int],
    directions: int,
    arm: Arm = "without_bos",
    seed: int = 0,
    batch_tokens: int = 2048,
    hook: Hook | None = None,
) -> Gains:
    """Gains from each source to every token at every layer, by exact forward-mode derivatives.

    Args:
        ids: (token,), text tokens without BOS.
        sources: positions i among them.
        directions: random unit vectors for each source, the same in both arms for the same seed.
        hook: a change of every attention operation, as for `probe`; the gains are those of the changed model.

    Raises:
        FirstTokenError: fewer than two directions (no error can be told), or a source outside the text.
    """
    length = len(ids)
    if directions < 2:
        raise FirstTokenError(f"directions must be at least 2, so that their error can be told; not {directions}.")
    if bad := [source for source in sources if not 0 <= source < length]:
        raise FirstTokenError(f"There is no token {bad[0]} in a text of {length} tokens.")
    row, first = start(lm, ids[None], arm)
    width = lm.model.config.get_text_config().hidden_size
    depth = len(find_layers(lm.model)[1]) + 1
    each = sphere((len(sources), directions, width), torch.Generator().manual_seed(seed))
    pairs = [(source, number) for source in range(len(sources)) for number in range(directions)]
    squared = torch.zeros(len(sources), directions, depth, length)
    norms = torch.zeros(depth, length)
    size = max(1, batch_tokens // row.shape[1])
    with explain_out_of_memory(f"lower batch_tokens (now {batch_tokens}) or give shorter texts (now {length} tokens)"):
        for begin in range(0, len(pairs), size):
            chosen = torch.tensor(pairs[begin : begin + size])
            source, number = chosen.T
            tangent = torch.zeros(len(chosen), row.shape[1], width)
            tangent[torch.arange(len(chosen)), torch.tensor(sources)[source] + first] = each[source, number]

            def see(layer: int, v: Tensor, jv: Tensor, *, s: Tensor = source, k: Tensor = number) -> None:
                squared[s, k, layer] = jv[:, first:].float().square().sum(-1).cpu()
                norms[layer] = v[0, first:].float().norm(dim=-1).cpu()

            push_forward(lm.model, row.expand(len(chosen), -1), tangent.to(lm.model.device), see, hook)
    return Gains(squared, norms, torch.tensor(sources))


def choose_sources(length: int, count: int, generator: torch.Generator) -> list[int]:
    """One random position in each of `count` equal parts of a text; the first token, which may be the sink, and the
    last, which nothing follows, are left out."""
    if count < 1 or length - 2 < count:
        raise FirstTokenError(f"A text of {length} tokens has no room for {count} sources; lower `sources`.")
    edges = [1 + (length - 2) * k // count for k in range(count + 1)]
    return [int(torch.randint(low, high, (), generator=generator)) for low, high in pairwise(edges)]
