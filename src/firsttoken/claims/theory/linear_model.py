"""A linear attention-only model whose Jacobian is known exactly: v_i^+ = v_i + sum_h A^h_ij W_h v_j, with fixed maps.

Its maps have a dial: the sink strength s in [0, 1). Every row of every head gives s to the first token and spreads
1 - s over the tokens it may see, so the effect of the sink alone can be seen, everything else held fixed.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from firsttoken.measures.path_sums import log_path_sums, mean_map


@dataclass(frozen=True)
class LinearModel:
    """The model: maps and matrices of each layer and head."""

    maps: Tensor  # (layer, head, query, key), rows sum to one
    weights: Tensor  # (layer, head, width, width)

    def step(self, layer: int) -> Tensor:
        """One layer as a matrix on all tokens at once, (token * width, token * width)."""
        _, heads, length, _ = self.maps.shape
        width = self.weights.shape[-1]
        matrix = torch.eye(length * width, dtype=torch.float64)
        for head in range(heads):
            matrix = matrix + torch.kron(self.maps[layer, head], self.weights[layer, head])
        return matrix

    def jacobian_norms(self) -> Tensor:
        """Exact spectral norms ||dv_j^(L) / dv_i^(0)||, (token j, token i)."""
        length, width = self.maps.shape[2], self.weights.shape[-1]
        product = torch.eye(length * width, dtype=torch.float64)
        for layer in range(len(self.maps)):
            product = self.step(layer) @ product
        blocks = product.reshape(length, width, length, width).transpose(1, 2)
        return torch.linalg.matrix_norm(blocks, ord=2)

    def log_bounds(self) -> tuple[Tensor, Tensor]:
        """Natural logarithm of two upper bounds on `jacobian_norms`, (token j, token i): the path sum of
        I + sum_h ||W_h|| A^h, and C^L times the path sum of abar with C = max(H, ||W_h||)."""
        norms = torch.linalg.matrix_norm(self.weights, ord=2)  # (layer, head)
        identity = torch.eye(self.maps.shape[2], dtype=torch.float64)
        tight = [identity + (n[:, None, None] * a).sum(0) for n, a in zip(norms, self.maps, strict=True)]
        constant = torch.tensor(max(float(self.maps.shape[1]), float(norms.max())), dtype=torch.float64)
        theorem = log_path_sums([mean_map(a) for a in self.maps])[-1] + len(self.maps) * constant.log()
        return log_path_sums(tight)[-1], theorem


def random_model(
    depth: int = 6, heads: int = 2, length: int = 24, width: int = 8, sink: float = 0.0, seed: int = 0
) -> LinearModel:
    """A random one. The same seed gives the same weights and the same attention before the sink is added."""
    generator = torch.Generator().manual_seed(seed)
    scores = torch.randn(depth, heads, length, length, generator=generator, dtype=torch.float64)
    blocked = torch.ones(length, length, dtype=torch.bool).triu(1)
    maps = (1 - sink) * scores.masked_fill(blocked, -torch.inf).softmax(-1)
    maps[..., 0] += sink
    weights = torch.randn(depth, heads, width, width, generator=generator, dtype=torch.float64)
    # Orthogonal up to a factor: spectral norm 1 / H for each head, so that all heads together have at most 1.
    return LinearModel(maps, (torch.linalg.qr(weights).Q / heads).contiguous())


@dataclass(frozen=True)
class Sweep:
    """One quantity varied: mean over later pairs of log10 of the exact norm and of the two bounds."""

    name: str
    values: list[float]
    exact: list[float]
    tight: list[float]
    theorem: list[float]


SWEEPS: dict[str, list[float]] = {
    "sink": [0.0, 0.2, 0.4, 0.6, 0.8, 0.9, 0.95],
    "depth": [1, 2, 4, 8, 12],
    "heads": [1, 2, 4, 8],
    "length": [8, 16, 32, 48],
}


def sweep(name: str, sink: float = 0.0, seed: int = 0) -> Sweep:
    """Vary one of `SWEEPS`; the others keep their defaults. Sources are all tokens but the first, the sink."""
    swept = Sweep(name, SWEEPS[name], [], [], [])
    for value in swept.values:
        chosen = {"sink": sink} | {name: value if name == "sink" else int(value)}
        model = random_model(**chosen, seed=seed)  # type: ignore[arg-type]
        later = torch.ones(model.maps.shape[-2:], dtype=torch.bool).tril(-1)
        later[:, 0] = False
        tight, theorem = model.log_bounds()
        for kept, logs in (
            (swept.exact, model.jacobian_norms().log()),
            (swept.tight, tight),
            (swept.theorem, theorem),
        ):
            kept.append(float(logs[later].mean()) / 2.302585092994046)
    return swept
