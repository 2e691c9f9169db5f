"""An upper bound on ||dv_j^(L) / dv_i^(0)|| (spectral norm) from the weights and attention maps of a real model.

One layer of a pre-norm transformer is

    z_i = v_i + N'( sum_h W_O^h o_i^h ),   o_i^h = sum_k A_ik^h u_k^h,   u_k^h = W_V^h N(v_k)
    v_i^+ = z_i + N''( F(N(z_i)) ),        F(x) = W_down (act(W_gate x) * W_up x)

with RMS norms N(x) = g * x / r(x), r(x) = sqrt(mean(x^2) + eps); N' and N'' are there in Gemma 2 and 3 only. All
norms below are spectral; every step is the product or triangle inequality at the given input, so the result bounds
the exact Jacobian *there* (not uniformly over inputs), softmax derivatives included. Steps:

* Norm. dN = diag(g) (I - x x^T / (n r^2)) / r and the bracket has norm <= 1: ||W dN|| <= ||W diag(g)|| / r.
  After a matrix: ||dN' W|| <= max|g| ||W|| / r.
* Value path, any j: A_ij ||W_O W_V diag(g)|| / r_j.
* Key path, any j. The score s_ij moves o_i by A_ij (u_j - o_i), and |ds_ij| <= scale ||q_i|| ||dk_j||, in all at most
  A_ij ||W_O (u_j - o_i)|| scale ||q_i|| ||W_K diag(g)|| / r_j. Rotary embeddings are rotations and change no norm; a
  soft-cap has slope <= 1; a norm of keys adds the factor max|g_k| / r(k_j).
* Query path, j = i only. do_i = sum_k A_ik (u_k - o_i) (k_k - kbar_i)^T dq_i scale, kbar_i = sum_k A_ik k_k: at most
  scale sum_k A_ik ||W_O (u_k - o_i)|| ||k_k - kbar_i|| ||W_Q diag(g)|| / r_i.
* MLP. dF = W_down [diag(act' * up) W_gate + diag(act) W_up]: norms with the largest entry of each diagonal.

Together ||dv_i^+ / dv_j|| <= P_ij, P = diag(m) (I (1 + query path) + sum_h A^h * (value + key path)), with m the MLP's
1 + Lipschitz factor, and the path sum of the P^(l) bounds the Jacobian of all layers.

In the form of the paper's Theorem 3.2, P_ij <= C abar_ij with C the largest of P_ij / abar_ij over all layers and
pairs: the bound is C^L times the path sum of abar (`measures/path_sums.py`). C is the smallest constant that covers
this derivation on this text, which is how it is estimated here; the paper's own constant could not be checked.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from firsttoken.errors import FirstTokenError
from firsttoken.measures.path_sums import mean_map
from firsttoken.models.anatomy import decoder_of, find_layers
from firsttoken.probe import probe
from firsttoken.probe.attention import AttentionCall, plain_scores
from firsttoken.probe.forward import run_decoder

if TYPE_CHECKING:
    from transformers import PreTrainedModel

# Layers built as in the formula above. Others add multipliers, parallel branches or other norms.
SUPPORTED = ("llama", "mistral", "qwen2", "qwen3", "gemma", "gemma2", "gemma3_text")


@dataclass(frozen=True)
class LayerBound:
    """What one layer can pass on at most, at one input."""

    maps: Tensor  # A, (head, query, key)
    block: Tensor  # P, (query, key): bounds ||dv_i^+ / dv_j||

    @property
    def abar(self) -> Tensor:
        return mean_map(self.maps)

    @property
    def constant(self) -> float:
        """The smallest C with P <= C abar in every entry where a token may attend."""
        allowed = self.abar > 0
        return float((self.block[allowed] / self.abar[allowed]).max())


def check_supported(model: PreTrainedModel) -> None:
    """Raises `FirstTokenError` for a model whose layers are not built as the derivation assumes."""
    kind = model.config.get_text_config().model_type
    if kind not in SUPPORTED:
        raise FirstTokenError(
            f"The over-squashing bound is derived for layers as in {', '.join(SUPPORTED)}; {kind} is built otherwise."
        )
    for module in decoder_of(model).modules():
        for name, value in vars(module).items():
            if name.endswith("attention_scaling") and isinstance(value, float | int) and value != 1.0:
                raise FirstTokenError(
                    "The over-squashing bound assumes unscaled rotary embeddings; this model scales them."
                )


@dataclass(frozen=True)
class WeightNorms:
    """What the bound needs to know of one layer's weights, whatever the input. Gains of norms are folded in."""

    value: Tensor  # ||W_O W_V diag(g)||, (head,)
    key: Tensor  # ||W_K diag(g)||, (head,), times max|g| of the norm of keys
    query: Tensor  # ||W_Q diag(g)||, (head,), likewise
    out: Tensor  # R of W_O = Q R, (head, k, dim): ||R x|| = ||W_O x||
    gate: Tensor  # ||W_gate diag(g)||
    up: Tensor  # ||W_up diag(g)||
    down: Tensor  # ||W_down||, times max|g| of the norm that follows
    after: Tensor  # max|g| of the norm after attention, 1 without one


def weight_norms(model: PreTrainedModel) -> list[WeightNorms]:
    """The norms of every layer; the slow part of the bound, to be computed once for many inputs.

    Raises:
        FirstTokenError: the architecture is built otherwise.
    """
    check_supported(model)
    with torch.no_grad():
        return [_norms_of(layer) for layer in find_layers(model)[1]]


def layer_bounds(model: PreTrainedModel, ids: Tensor, norms: Sequence[WeightNorms] | None = None) -> list[LayerBound]:
    """The bound of every layer on one short input; memory grows as (head, T, T) for each layer.

    Args:
        ids: (1, token), BOS included where wanted.
        norms: from `weight_norms`, if already computed.
    """
    norms = norms or weight_norms(model)
    calls: list[AttentionCall] = []
    layers = find_layers(model)[1]
    seen: list[dict[str, Tensor]] = [{} for _ in layers]

    def keep(layer: int, name: str, take_input: bool) -> Any:
        def hook(module: nn.Module, args: Any, output: Any) -> None:
            seen[layer][name] = (args[0] if take_input else output).detach()[0]

        return hook

    def see(module: Any, call: AttentionCall) -> AttentionCall:
        calls.append(call)
        return call

    with torch.no_grad(), probe(model, hook=see), ExitStack() as stack:
        for number, layer in enumerate(layers):
            for name, module, take_input in _watched(layer):
                stack.callback(module.register_forward_hook(keep(number, name, take_input)).remove)
        run_decoder(model, ids)
    with torch.no_grad():
        return [_bound(*parts) for parts in zip(layers, norms, seen, calls, strict=True)]


def _is_sandwich(layer: nn.Module) -> bool:
    """Whether norms follow attention and MLP too (Gemma 2 and 3)."""
    return hasattr(layer, "pre_feedforward_layernorm")


def _watched(layer: Any) -> list[tuple[str, nn.Module, bool]]:
    """(name, module, whether its input is wanted or its output)."""
    sandwich = _is_sandwich(layer)
    watched = [
        ("v", layer.input_layernorm, True),
        ("z", layer.pre_feedforward_layernorm if sandwich else layer.post_attention_layernorm, True),
        ("gate", layer.mlp.gate_proj, False),
        ("up", layer.mlp.up_proj, False),
    ]
    if sandwich:
        watched += [("a", layer.post_attention_layernorm, True), ("m", layer.post_feedforward_layernorm, True)]
    if hasattr(layer.self_attn, "q_norm"):
        # Before the norm; architectures differ in how they lay out its input, not in this.
        watched += [("q", layer.self_attn.q_proj, False), ("k", layer.self_attn.k_proj, False)]
    return watched


def _epsilon(norm: Any) -> float:
    return float(getattr(norm, "variance_epsilon", None) or norm.eps)


def _rms(norm: nn.Module, x: Tensor) -> Tensor:
    return (x.double().square().mean(-1) + _epsilon(norm)).sqrt()


def _gain(norm: nn.Module, width: int) -> Tensor:
    """g, read off what the norm does to a vector of ones: some norms keep g, others g - 1."""
    weight = next(norm.parameters())
    ones = torch.ones(1, 1, width, dtype=weight.dtype, device=weight.device)
    return norm(ones)[0, 0].double() * (1 + _epsilon(norm)) ** 0.5


def spectral_norm(matrix: Tensor) -> Tensor:
    """Largest singular value of (..., m, n) in float64, never too small.

    From the smaller Gram matrix, in the precision of the weights; float32 gets a margin above its rounding error.
    """
    exact = matrix.dtype == torch.float64
    matrix = matrix if exact else matrix.float()
    gram = matrix @ matrix.mT if matrix.shape[-2] <= matrix.shape[-1] else matrix.mT @ matrix
    largest = torch.linalg.eigvalsh(gram)[..., -1].clamp_min(0).sqrt().double()
    return largest if exact else largest * (1 + 1e-4)


def _product_norm(left: Tensor, right: Tensor) -> Tensor:
    """||left @ right|| of (..., m, k) and (..., k, n) with small k, without the m x n product."""
    inner = torch.linalg.qr(left.double(), mode="r").R @ torch.linalg.qr(right.double().mT, mode="r").R.mT
    return spectral_norm(inner)


def _norms_of(layer: Any) -> WeightNorms:
    attention, sandwich = layer.self_attn, _is_sandwich(layer)
    width, size = attention.o_proj.weight.shape[0], attention.head_dim
    heads = attention.o_proj.weight.shape[1] // size
    g = _gain(layer.input_layernorm, width)
    out = attention.o_proj.weight.double().reshape(width, heads, size).transpose(0, 1)  # (head, width, dim)

    def by_head(projection: nn.Linear) -> Tensor:
        """(heads of the projection, dim, width), gains of the norm before it included."""
        return (projection.weight * g.to(projection.weight)).reshape(-1, size, width)

    def for_every_head(numbers: Tensor) -> Tensor:
        return numbers.repeat_interleave(heads // len(numbers), dim=0)

    one = torch.ones((), dtype=torch.float64, device=out.device)
    has_head_norms = hasattr(attention, "q_norm")
    mlp_norm = layer.pre_feedforward_layernorm if sandwich else layer.post_attention_layernorm
    g_mlp = _gain(mlp_norm, width)
    down = spectral_norm(layer.mlp.down_proj.weight)
    if sandwich:
        down = down * _gain(layer.post_feedforward_layernorm, width).abs().max()
    return WeightNorms(
        value=_product_norm(out, for_every_head(by_head(attention.v_proj))),
        key=for_every_head(spectral_norm(by_head(attention.k_proj)))
        * (_gain(attention.k_norm, size).abs().max() if has_head_norms else one),
        query=for_every_head(spectral_norm(by_head(attention.q_proj)))
        * (_gain(attention.q_norm, size).abs().max() if has_head_norms else one),
        out=torch.linalg.qr(out, mode="r").R,
        gate=spectral_norm(layer.mlp.gate_proj.weight * g_mlp.to(layer.mlp.gate_proj.weight)),
        up=spectral_norm(layer.mlp.up_proj.weight * g_mlp.to(layer.mlp.up_proj.weight)),
        down=down,
        after=_gain(layer.post_attention_layernorm, width).abs().max() if sandwich else one,
    )


def _bound(layer: Any, norms: WeightNorms, seen: dict[str, Tensor], call: AttentionCall) -> LayerBound:
    maps = plain_scores(call).softmax(-1)[0].double()  # (head, i, j)
    query, key, value = (x[0].double() for x in (call.query, call.key, call.value))  # (head, token, dim)
    heads, length, size = query.shape
    r = _rms(layer.input_layernorm, seen["v"])  # (token,)
    after = torch.ones(length, dtype=torch.float64, device=r.device)  # the factor max|g'| / r' of N', for each query
    if "a" in seen:
        after = norms.after / _rms(layer.post_attention_layernorm, seen["a"])

    dk, dq = norms.key[:, None] / r, norms.query[:, None] / r  # (head, token)
    if "k" in seen:
        dk = dk / _head_rms(layer.self_attn.k_norm, seen["k"], size, heads)
        dq = dq / _head_rms(layer.self_attn.q_norm, seen["q"], size, heads)
    moved = value @ norms.out.mT  # W_O u_k up to a rotation, (head, token, k)
    gap = _pairwise(maps @ moved, moved)  # ||W_O (u_j - o_i)||, (head, i, j)
    key_path = gap * call.scale * query.norm(dim=-1)[..., None] * dk[:, None]
    apart = _pairwise(maps @ key, key)  # ||k_k - kbar_i||, (head, i, k)
    query_path = (maps * gap * apart).sum(-1) * call.scale * dq  # (head, i)
    dv = norms.value[:, None] / r  # (head, j)

    block = torch.diag(1 + after * query_path.sum(0))
    block = block + after[:, None] * (maps * (dv[:, None] + key_path)).sum(0)
    return LayerBound(maps.cpu(), ((1 + _mlp(layer, norms, seen))[:, None] * block).cpu())


def _head_rms(norm: nn.Module, x: Tensor, size: int, heads: int) -> Tensor:
    """r of queries or keys before their norm, (head, token); x is (token, heads of it * size)."""
    r = _rms(norm, x.reshape(len(x), -1, size)).T
    return r.repeat_interleave(heads // len(r), dim=0)


def _pairwise(a: Tensor, b: Tensor) -> Tensor:
    """||a_i - b_j||, (head, i, j), without the cancellation of the expanded square."""
    return torch.cdist(a, b, compute_mode="donot_use_mm_for_euclid_dist")


def _mlp(layer: Any, norms: WeightNorms, seen: dict[str, Tensor]) -> Tensor:
    """Upper bound on the Jacobian of the MLP branch at each token, (token,)."""
    gate, up = seen["gate"].double(), seen["up"].double()
    both = torch.func.jvp(layer.mlp.act_fn, (gate,), (torch.ones_like(gate),))
    activated, slope = both[0], both[1]
    inner = (slope * up).abs().amax(-1) * norms.gate + activated.abs().amax(-1) * norms.up
    mlp_norm = layer.pre_feedforward_layernorm if "m" in seen else layer.post_attention_layernorm
    steepest = inner * norms.down / _rms(mlp_norm, seen["z"])
    return steepest / _rms(layer.post_feedforward_layernorm, seen["m"]) if "m" in seen else steepest
