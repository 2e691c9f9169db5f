"""The residual stream of a running model, and how a small change of one token travels along it.

Notation of the paper: v_j^(l) is the representation of token j after l layers; v_j^(0) enters the first layer
(token and, where a model has them, position embeddings), v_j^(L) leaves the last one, before the final norm.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

import torch
import torch.autograd.forward_ad as forward_mode
from torch import Tensor, nn

from firsttoken.errors import FirstTokenError
from firsttoken.models.anatomy import find_layers
from firsttoken.probe.attention_probe import probe
from firsttoken.probe.forward import run_decoder
from firsttoken.probe.interventions import Hook

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def _of_output(output: Any) -> Tensor:
    states: Tensor = output[0] if isinstance(output, tuple) else output
    return states


def refuse_several_streams(model: PreTrainedModel, states: Tensor) -> None:
    """Raises `FirstTokenError` unless what goes from layer to layer is one vector a token, (batch, token, width)."""
    if states.dim() != 3:
        raise FirstTokenError(
            f"{type(model).__name__} hands several streams from layer to layer, so there is no one representation of "
            "a token; choose another model for this measurement."
        )


@contextmanager
def watch(model: PreTrainedModel, see: Callable[[int, Tensor], Tensor | None]) -> Iterator[None]:
    """Call `see(l, v)` in every forward pass inside the block, for l = 0 (before the first layer) to L.

    `v` is (batch, token, width). What `see(0, v)` returns, unless `None`, enters the first layer instead.

    Raises:
        FirstTokenError: in a pass of a model that has several streams.
    """
    _, layers = find_layers(model)

    def enter(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        positional = bool(args)
        states = args[0] if positional else kwargs["hidden_states"]
        refuse_several_streams(model, states)
        changed = see(0, states)
        if changed is None:
            return None
        return ((changed, *args[1:]), kwargs) if positional else (args, kwargs | {"hidden_states": changed})

    def leave(layer: int) -> Callable[[nn.Module, Any, Any], None]:
        def hook(module: nn.Module, args: Any, output: Any) -> None:
            see(layer, _of_output(output))

        return hook

    with ExitStack() as stack:
        stack.callback(layers[0].register_forward_pre_hook(enter, with_kwargs=True).remove)
        for number, layer in enumerate(layers, 1):
            stack.callback(layer.register_forward_hook(leave(number)).remove)
        yield


def residual_stream(model: PreTrainedModel, ids: Tensor) -> Tensor:
    """v_j^(l) for all l and j of a batch without padding.

    Args:
        ids: (batch, token).

    Returns:
        states  # (layer + 1, batch, token, width), float32, on the model's device
    """
    states: list[Tensor] = []
    with torch.inference_mode(), watch(model, lambda layer, v: states.append(v.float())):
        run_decoder(model, ids)
    return torch.stack([state.to(states[0].device) for state in states])


def push_forward(
    model: PreTrainedModel,
    ids: Tensor,
    tangent: Tensor,
    see: Callable[[int, Tensor, Tensor], None],
    hook: Hook | None = None,
) -> None:
    """Exact directional derivatives by forward-mode differentiation: one pass, no backward pass, no step size.

    Runs `model` with the direction `tangent` attached to v^(0) and calls `see(l, v, Jv)` for l = 0..L, where Jv is
    the derivative of v^(l) along it.

    Args:
        ids: (batch, token).
        tangent: (batch, token, width); the direction in which v^(0) moves.
        hook: a change of every attention operation, as for `probe`; the derivative is that of the changed model.

    Raises:
        FirstTokenError: a step of the model has no such derivative.
    """

    def attach(layer: int, v: Tensor) -> Tensor | None:
        if layer == 0:
            if v.shape != tangent.shape:
                raise FirstTokenError(
                    f"{type(model).__name__} enters its layers with {v.shape[-1]} numbers a token and not "
                    f"{tangent.shape[-1]}, so its derivatives cannot be measured; choose another model."
                )
            v = forward_mode.make_dual(v.detach(), tangent.to(v))
        primal, moved = forward_mode.unpack_dual(v)
        see(layer, primal, moved if moved is not None else torch.zeros_like(primal))
        return v if layer == 0 else None

    try:
        changed = probe(model, hook=hook) if hook is not None else nullcontext()
        with _differentiable(model), changed, torch.no_grad(), forward_mode.dual_level(), watch(model, attach):
            run_decoder(model, ids)
    except NotImplementedError as error:
        raise FirstTokenError(
            f"{type(model).__name__} has a step without a forward-mode derivative, so its derivatives cannot be "
            "measured; choose another model."
        ) from error


@contextmanager
def _differentiable(model: PreTrainedModel) -> Iterator[None]:
    """Inside the block, attention and experts are computed step by step; fused kernels have no forward-mode
    derivative."""
    attention, experts = model.config._attn_implementation, model.get_experts_implementation()
    with ExitStack() as stack:
        stack.callback(model.set_attn_implementation, attention)
        model.set_attn_implementation("eager")
        if any(name not in (None, "eager") for name in experts.values()):
            stack.callback(model.set_experts_implementation, experts)
            model.set_experts_implementation("eager")
        yield
