"""Rounding to a few bits, simulated: of the key-value cache, of attention, activations and weights, with tokens exact.

Nothing here is fast or small. Numbers are rounded to what a b-bit code could hold and turned back at once, so that the
model computes in its own precision with the *error* of quantisation. A test holds this equal to a cache that is
quantised in earnest, by transformers with optimum-quanto.

Asymmetric round-to-nearest, as in KIVI (arXiv 2402.02750): with low and high the ends of a group,

    scale = (high - low) / (2^b - 1),    x' = low + scale * round((x - low) / scale),    |x' - x| <= scale / 2
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn

from firsttoken.errors import FirstTokenError
from firsttoken.models.anatomy import find_layers, keeps_in_out, shared_by
from firsttoken.probe.attention import AttentionCall, additive, log_sum_exp, plain_scores
from firsttoken.probe.interventions import Hook, explicit_mask, in_every_layer
from firsttoken.probe.residual_stream import watch

if TYPE_CHECKING:
    from transformers import PreTrainedModel

Grouping = Literal["token", "channel"]
Scope = Literal["token", "tensor"]
Exact = Literal["none", "first", "another", "largest"]  # the attention probabilities that are not rounded


def round_to_bits(x: Tensor, bits: int, dim: int | tuple[int, ...]) -> Tensor:
    """x rounded to 2^bits levels between the smallest and the largest number of each group.

    Args:
        dim: the dimensions that make up a group: -1 for one scale a row, (-2, -1) for one a matrix.

    Raises:
        FirstTokenError: bits is not between 1 and 16.
    """
    if not 1 <= bits <= 16:
        raise FirstTokenError(f"bits must be between 1 and 16, not {bits}.")
    low, high = x.float().amin(dim, keepdim=True), x.float().amax(dim, keepdim=True)
    scale = (high - low) / (2**bits - 1)
    # A group of equal numbers has no width and needs none.
    levels = ((x.float() - low) / scale.clamp_min(1e-30)).round()
    return (low + scale * levels).to(x)


def round_tokens(x: Tensor, bits: int, dim: int | tuple[int, ...], exact: Sequence[int] = ()) -> Tensor:
    """`round_to_bits` of all tokens but some, which stay exact and are in no group.

    Args:
        x: (..., token, channel).
        dim: -1 for a group for each token, -2 for one for each channel, (-2, -1) for all together.
        exact: positions of the tokens that stay.
    """
    kept = set(exact)
    if not kept:
        return round_to_bits(x, bits, dim)
    rest = torch.tensor([t for t in range(x.shape[-2]) if t not in kept], device=x.device)
    if len(rest) == 0:
        return x
    rounded = x.clone()
    rounded[..., rest, :] = round_to_bits(x[..., rest, :], bits, dim)
    return rounded


def rounded_cache(bits: int, grouping: Grouping, exact: Sequence[int] = ()) -> Hook:
    """A hook under which every query reads rounded keys and values, as from a quantised cache.

    Keys are rounded as a cache holds them, after rotary embedding, one group for each head and token or for each head
    and channel. The newest token is rounded too; caches in use keep some of the newest ones exact.
    """
    dims: dict[Grouping, int] = {"token": -1, "channel": -2}
    if grouping not in dims:
        raise FirstTokenError(f"Groups are of a token or of a channel, not of a {grouping!r}.")

    def hook(module: Any, call: AttentionCall) -> AttentionCall:
        # Keys and values come repeated for grouped queries; a cache holds them once.
        groups = shared_by(module)
        key, value = (
            round_tokens(x[:, ::groups], bits, dims[grouping], exact).repeat_interleave(groups, dim=1)
            for x in (call.key, call.value)
        )
        return replace(call, key=key, value=value)

    return hook


def round_attention(call: AttentionCall, bits: int, exact: Exact = "none", key: int = 0) -> AttentionCall:
    """Attention from probabilities that are rounded to 2^bits levels between 0 and the largest of each row.

    The exact ones stay and set no scale. As in a kernel that adds up what it holds, the rounded row is divided by its
    own sum.

    Args:
        exact: the first token's probability, that of `key`, or the largest of each row.
    """
    logits = plain_scores(call)
    total = log_sum_exp(logits, call.sink_logits)[..., None]
    weights = (logits - total).exp().nan_to_num(0.0)  # (batch, head, query, key)
    places = call.key_positions()
    kept = torch.zeros_like(weights, dtype=torch.bool)
    if exact == "largest":
        kept.scatter_(-1, weights.argmax(-1, keepdim=True), True)
    elif exact != "none":
        kept |= places == (0 if exact == "first" else key)
    step = weights.masked_fill(kept, 0.0).amax(-1, keepdim=True) / (2**bits - 1)
    # A row whose only weight is exact has no width and needs none.
    rounded = torch.where(kept, weights, (weights / step.clamp_min(1e-30)).round() * step)
    change = (rounded.log() - (logits - total)).masked_fill(rounded == 0, -torch.inf)
    return replace(call, mask=additive(explicit_mask(call)) + change, causal=False)


def rounded_attention(bits: int, exact: Exact = "none", key: int = 0) -> Hook:
    """A hook under which every layer attends with rounded probabilities; see `round_attention`."""
    return in_every_layer(partial(round_attention, bits=bits, exact=exact, key=key))


def linear_layers(model: PreTrainedModel) -> list[Any]:
    """The matrices inside the decoder's layers; embeddings and the output layer are left out, as is usual.

    Raises:
        FirstTokenError: a layer keeps some of its matrices in stacks, as mixtures of experts do: nobody outside sees
            what these read.
    """
    matrices = []
    for layer in find_layers(model)[1]:
        for path, module in layer.named_modules():
            if isinstance(module, nn.Linear) or keeps_in_out(module):
                matrices.append(module)
            elif _is_stack(path, module):
                raise FirstTokenError(
                    f"{type(model).__name__} keeps matrices in stacks ({type(module).__name__}), as mixtures of "
                    "experts do, so what these read cannot be rounded; choose a model without experts."
                )
    return matrices


def _is_stack(path: str, module: nn.Module) -> bool:
    """Whether a module of a layer holds several matrices as one parameter; a convolution along the text does not."""
    least = 2 if "experts" in path.split(".") else 3  # some lay their experts behind each other
    is_convolution = isinstance(module, nn.Conv1d | nn.Conv2d)
    return not is_convolution and any(weight.dim() >= least for weight in module.parameters(recurse=False))


@contextmanager
def rounded_activations(model: PreTrainedModel, bits: int, scope: Scope, exact: Sequence[int] = ()) -> Iterator[None]:
    """Inside the block, what every matrix of the decoder reads is rounded: one group for each token, or one for all
    tokens of a text together.

    Raises:
        FirstTokenError: the model is a mixture of experts; in a pass, a matrix reads something else than all tokens.
    """
    dims: dict[Scope, int | tuple[int, int]] = {"token": -1, "tensor": (-2, -1)}
    if scope not in dims:
        raise FirstTokenError(f"Activations are rounded by token or by tensor, not by {scope!r}.")

    last: list[Tensor] = []  # an input and the same rounded: several matrices read one tensor, one after the other
    shape: list[int] = []  # how many texts and tokens the pass has

    def note(layer: int, v: Tensor) -> None:
        if layer == 0:
            shape[:] = v.shape[:2]

    def by_token(given: Tensor) -> bool:
        """Whether it has a row for each token, text by text; some layers lay a batch of texts end to end."""
        sizes = list(given.shape[:-1])
        return sizes == [math.prod(shape)] or [n for n in sizes if n > 1] == [n for n in shape if n > 1]

    def before(module: nn.Module, arguments: tuple[Any, ...]) -> Any:
        given: Tensor = arguments[0]
        if not last or last[0] is not given:
            if not by_token(given):
                raise FirstTokenError(
                    f"A {type(module).__name__} of {type(model).__name__} reads {tuple(given.shape)} numbers and not "
                    "one row for each token, so they cannot be rounded by token; choose another model."
                )
            rows = given.reshape(*shape, given.shape[-1])
            last[:] = given, round_tokens(rows, bits, dims[scope], exact).reshape(given.shape)
        return (last[1], *arguments[1:])

    with ExitStack() as stack:
        for module in linear_layers(model):
            stack.callback(module.register_forward_pre_hook(before).remove)
        stack.enter_context(watch(model, note))
        yield


def check_exact_weights(model: PreTrainedModel) -> None:
    """Raises `FirstTokenError` for a model whose matrices are quantised already, or a mixture of experts."""
    if bad := [module for module in linear_layers(model) if not module.weight.is_floating_point()]:
        raise FirstTokenError(f"{type(bad[0]).__name__} already holds quantised weights; load the model without.")


@contextmanager
def rounded_weights(model: PreTrainedModel, bits: int) -> Iterator[None]:
    """Inside the block, every matrix of the decoder is rounded to nearest, one group for each output channel; after
    it, all are as before, bit by bit.

    Raises:
        FirstTokenError: the weights are quantised already, or the model is a mixture of experts.
    """
    check_exact_weights(model)
    layers = linear_layers(model)
    with restored(layers) as before:
        with torch.no_grad():
            for module, weight in zip(layers, before, strict=True):
                module.weight.copy_(round_to_bits(weight, bits, 0 if keeps_in_out(module) else 1))
        yield


@contextmanager
def restored(modules: Sequence[Any]) -> Iterator[list[Tensor]]:
    """Inside the block the weights of some modules may be written over; after it they are as before, bit by bit.

    Yields:
        copies of the weights as they were
    """
    before = [module.weight.detach().clone() for module in modules]
    try:
        yield before
    finally:
        with torch.no_grad():
            for module, weight in zip(modules, before, strict=True):
                module.weight.copy_(weight)


def remember_first(store: dict[int, tuple[Tensor, Tensor]], kept: int) -> Hook:
    """A hook that changes nothing and keeps the first `kept` keys and values of every layer in `store`."""

    def hook(module: Any, call: AttentionCall) -> AttentionCall:
        store[module.layer_idx] = (call.key[:, :, :kept].clone(), call.value[:, :, :kept].clone())
        return call

    return hook


def put_back_first(store: dict[int, tuple[Tensor, Tensor]]) -> Hook:
    """A hook that gives every layer the first keys and values of `store`, taken from the same batch before its weights
    were rounded: IntactKV (arXiv 2403.01241)."""

    def hook(module: Any, call: AttentionCall) -> AttentionCall:
        key, value = call.key.clone(), call.value.clone()
        own_key, own_value = store[module.layer_idx]
        key[:, :, : own_key.shape[2]], value[:, :, : own_value.shape[2]] = own_key, own_value
        return replace(call, key=key, value=value)

    return hook
