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
* Key path, any j. The score s_ij moves o_i by A_ij (u_j - o_i), and |ds_ij| <= scale ||q_i|| ||dk_j||: in all
  A_ij ||W_O (u_j - o_i)|| scale ||q_i|| ||W_K diag(g)|| / r_j. Rotary embeddings are rotations and change no
  norm; a soft-cap has slope
  <= 1; a norm of keys adds the factor max|g_k| / r(k_j).
* Query path, j = i only. do_i = sum_k A_ik (u_k - o_i) (k_k - kbar_i)^T dq_i scale, kbar_i = sum_k A_ik k_k: at most
  scale sum_k A_ik ||W_O (u_k - o_i)|| ||k_k - kbar_i|| ||W_Q diag(g)|| / r_i.
* MLP. dF = W_down [diag(act' * up) W_gate + diag(act) W_up]: norms with the largest entry of each diagonal.

Together ||dv_i^+ / dv_j|| <= P_ij, P = diag(m) (I (1 + query path) + sum_h A^h * (value + key path)), with m the MLP's
1 + Lipschitz factor, and the path sum of the P^(l) bounds the Jacobian of all layers. In the form of the paper's
Theorem 3.2, P_ij <= C abar_ij with C the largest of P_ij / abar_ij over all layers and pairs: the bound is C^L times
the path sum of abar (`paths.py`). C is the smallest constant that covers this derivation on this text,
which is how it is
estimated here; the paper's own constant could not be checked.
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from firsttoken.attention import AttentionCall, plain_scores
from firsttoken.errors import FirstTokenError
from firsttoken.paths import mean_map
from firsttoken.probe import probe
from firsttoken.residuals import decoder_layers

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
    for module in model.get_decoder().modules():
        for name, value in vars(module).items():
            if name.endswith("attention_scaling") and isinstance(value, float | int) and value != 1.0:
                raise FirstTokenError(
                    "The over-squashing bound assumes unscaled rotary embeddings; this model scales them."
                )


def layer_bounds(model: PreTrainedModel, ids: Tensor) -> list[LayerBound]:
    """The bound of every layer on one short input; memory grows as (head, T, T) for each layer.

    Args:
        ids: (1, token), BOS included where wanted.
    """
    check_supported(model)
    calls: list[AttentionCall] = []
    layers = decoder_layers(model)
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
        model.get_decoder()(ids.to(model.device), use_cache=False)
    with torch.no_grad():
        return [_bound(*parts) for parts in zip(layers, seen, calls, strict=True)]


def _is_sandwich(layer: nn.Module) -> bool:
    """Whether norms follow attention and MLP too (Gemma 2 and 3)."""
    return hasattr(layer, "pre_feedforward_layernorm")


def _watched(layer: Any) -> list[tuple[str, nn.Module, bool]]:
    """(name, module, whether its input is wanted or its output)."""
    sandwich = _is_sandwich(layer)
    found = [
        ("v", layer.input_layernorm, True),
        ("z", layer.pre_feedforward_layernorm if sandwich else layer.post_attention_layernorm, True),
        ("gate", layer.mlp.gate_proj, False),
        ("up", layer.mlp.up_proj, False),
    ]
    if sandwich:
        found += [("a", layer.post_attention_layernorm, True), ("m", layer.post_feedforward_layernorm, True)]
    if hasattr(layer.self_attn, "q_norm"):
        # Before the norm; architectures differ in how they lay out its input, not in this.
        found += [("q", layer.self_attn.q_proj, False), ("k", layer.self_attn.k_proj, False)]
    return found


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
    """Largest singular value of (..., m, n), from the smaller Gram matrix."""
    matrix = matrix.double()
    gram = matrix @ matrix.mT if matrix.shape[-2] <= matrix.shape[-1] else matrix.mT @ matrix
    return torch.linalg.eigvalsh(gram)[..., -1].clamp_min(0).sqrt()


def _product_norm(left: Tensor, right: Tensor) -> Tensor:
    """||left @ right|| of (..., m, k) and (..., k, n) with small k, without the m x n product."""
    inner = torch.linalg.qr(left.double(), mode="r").R @ torch.linalg.qr(right.double().mT, mode="r").R.mT
    return torch.linalg.matrix_norm(inner, ord=2)


def _bound(layer: Any, seen: dict[str, Tensor], call: AttentionCall) -> LayerBound:
    attention, sandwich = layer.self_attn, _is_sandwich(layer)
    maps = plain_scores(call).softmax(-1)[0].double()  # (head, i, j)
    query, key, value = (x[0].double() for x in (call.query, call.key, call.value))  # (head, token, dim)
    heads, length, size = query.shape
    width = seen["v"].shape[-1]

    g = _gain(layer.input_layernorm, width)
    r = _rms(layer.input_layernorm, seen["v"])  # (token,)
    after = torch.ones(length, dtype=torch.float64, device=r.device)  # the factor max|g'| / r' of N', for each query
    if sandwich:
        norm = layer.post_attention_layernorm
        after = _gain(norm, width).abs().max() / _rms(norm, seen["a"])

    out = attention.o_proj.weight.double().reshape(width, heads, -1).transpose(0, 1)  # W_O^h, (head, width, dim)

    def by_head(projection: nn.Linear) -> Tensor:
        weight = projection.weight.double() * g  # (heads of it * dim, width)
        weight = weight.reshape(-1, size, width)
        return weight.repeat_interleave(heads // len(weight), dim=0)  # (head, dim, width)

    # d k_j and d q_i, (head, token)
    dk = spectral_norm(by_head(attention.k_proj))[:, None] / r
    dq = spectral_norm(by_head(attention.q_proj))[:, None] / r
    if "k" in seen:
        dk = dk * _head_norm(attention.k_norm, seen["k"], size, heads)
        dq = dq * _head_norm(attention.q_norm, seen["q"], size, heads)

    dv = _product_norm(out, by_head(attention.v_proj))[:, None] / r  # (head, j)
    gap = _gaps(out, value, maps)  # ||W_O (u_j - o_i)||, (head, i, j)
    key_path = gap * call.scale * query.norm(dim=-1)[..., None] * dk[:, None]
    apart = (key[:, None] - (maps @ key)[:, :, None]).norm(dim=-1)  # ||k_k - kbar_i||, (head, i, k)
    query_path = (maps * gap * apart).sum(-1) * call.scale * dq  # (head, i)

    block = torch.diag(1 + after * query_path.sum(0))
    block = block + after[:, None] * (maps * (dv[:, None] + key_path)).sum(0)
    return LayerBound(maps.cpu(), ((1 + _mlp(layer, seen, sandwich))[:, None] * block).cpu())


def _head_norm(norm: nn.Module, x: Tensor, size: int, heads: int) -> Tensor:
    """max|g| / r of a norm of queries or keys, (head, token); x is (token, heads of it * size)."""
    factor = _gain(norm, size).abs().max() / _rms(norm, x.reshape(len(x), -1, size)).T
    return factor.repeat_interleave(heads // len(factor), dim=0)


def _gaps(out: Tensor, value: Tensor, maps: Tensor) -> Tensor:
    """||W_O (u_j - o_i)|| for all pairs: (head, i, j), from the factor R of W_O = Q R, which changes no norm."""
    small = torch.linalg.qr(out, mode="r").R  # (head, k, dim)
    moved = value @ small.mT  # (head, j, k)
    return torch.cdist(maps @ moved, moved, compute_mode="donot_use_mm_for_euclid_dist")


def _mlp(layer: Any, seen: dict[str, Tensor], sandwich: bool) -> Tensor:
    """Upper bound on the Jacobian of the MLP branch at each token, (token,)."""
    norm = layer.pre_feedforward_layernorm if sandwich else layer.post_attention_layernorm
    width = seen["z"].shape[-1]
    g = _gain(norm, width)
    gate, up = seen["gate"].double(), seen["up"].double()
    both = torch.func.jvp(layer.mlp.act_fn, (gate,), (torch.ones_like(gate),))
    activated, slope = both[0], both[1]
    through_gate = (slope * up).abs().amax(-1) * spectral_norm(layer.mlp.gate_proj.weight.double() * g)
    through_up = activated.abs().amax(-1) * spectral_norm(layer.mlp.up_proj.weight.double() * g)
    found = (through_gate + through_up) * spectral_norm(layer.mlp.down_proj.weight) / _rms(norm, seen["z"])
    if sandwich:
        last = layer.post_feedforward_layernorm
        found = found * _gain(last, width).abs().max() / _rms(last, seen["m"])
    return found
