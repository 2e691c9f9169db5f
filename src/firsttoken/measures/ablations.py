"""Take the first token away in several ways, and see what is lost.

Deleting BOS does two things at once: heads lose the place where they rest, and the text loses what BOS told it (that
this is how training texts began). With rotary positions, forbidding attention to position 0 in every layer does
exactly the same, because then nothing can be read from it. The arm `zero_value` takes only the second away: heads may
still put their attention on the first token, and get nothing from it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from firsttoken import texts
from firsttoken.errors import FirstTokenError
from firsttoken.execution.shared_pass import together
from firsttoken.measures import sinks
from firsttoken.models import BosPolicy, LanguageModel
from firsttoken.models.anatomy import attention_blocks
from firsttoken.probe import Probe, probe
from firsttoken.probe.attention import AttentionCall
from firsttoken.probe.forward import run_decoder
from firsttoken.probe.interventions import Hook, forbid_key, in_every_layer, set_first_value
from firsttoken.probe.losses import Predictions, predict
from firsttoken.probe.residual_stream import refuse_several_streams

Ablation = Literal[
    "intact", "delete", "replace", "mask", "zero_value", "mean_value", "mean_residual", "mask_other", "add_bos"
]
ABLATIONS: tuple[Ablation, ...] = get_args(Ablation)
OTHER = 4  # the ordinary position whose key `mask_other` forbids
NAMES: dict[Ablation, str] = {
    "intact": "untouched",
    "delete": "deleted",
    "replace": "replaced",
    "mask": "masked",
    "zero_value": "value zero",
    "mean_value": "value mean",
    "mean_residual": "no sink",
    "mask_other": "control: another masked",
    "add_bos": "BOS added",
}
MEANING: dict[Ablation, str] = {
    "intact": "as the tokenizer has it",
    "delete": "first token deleted",
    "replace": "first token replaced by a random one",
    "mask": "attention to the first token forbidden",
    "zero_value": "others read a zero value from it",
    "mean_value": "others read the mean value from it",
    "mean_residual": "its residual held at the mean in every layer",
    "mask_other": "control: attention to another token forbidden",
    "add_bos": "BOS added, which the tokenizer does not do",
}


@dataclass(frozen=True)
class Means:
    """Averages over ordinary tokens, from texts that are not measured: no later token of a text leaks into them."""

    value: dict[int, Tensor]  # layer -> (head, value_dim)
    residual: dict[int, Tensor]  # layer -> (width,), of what the layer reads


def ordinary_means(lm: LanguageModel, ids: Tensor, first: int = 4) -> Means:
    """Mean value of every head and mean residual of every layer over positions from `first` on.

    Args:
        ids: (text, token), without padding.
    """
    value: dict[int, Tensor] = {}
    residual: dict[int, Tensor] = {}

    def hook(module: Any, call: AttentionCall) -> AttentionCall:
        value[module.layer_idx] = call.value[:, :, first:].float().mean((0, 2))
        return call

    def watch(index: int, hidden: Tensor) -> Tensor:
        residual[index] = hidden[:, first:].float().mean((0, 1))
        return hidden

    with torch.inference_mode(), ExitStack() as stack:
        stack.enter_context(residuals_changed(lm, watch))
        stack.enter_context(probe(lm.model, hook=hook))
        run_decoder(lm.model, ids)
    return Means(value, residual)


@contextmanager
def residuals_changed(lm: LanguageModel, change: Any) -> Iterator[None]:
    """Inside the block, every layer reads `change(layer, hidden)` in place of its input, (batch, token, width)."""

    def before(index: int, module: nn.Module, arguments: tuple[Any, ...], named: dict[str, Any]) -> Any:
        refuse_several_streams(lm.model, arguments[0] if arguments else named["hidden_states"])
        if arguments:
            return (change(index, arguments[0]), *arguments[1:]), named
        return arguments, {**named, "hidden_states": change(index, named["hidden_states"])}

    with ExitStack() as stack:
        for block in attention_blocks(lm.model):
            hook = block.layer.register_forward_pre_hook(partial(before, block.index), with_kwargs=True)
            stack.callback(hook.remove)
        yield


@contextmanager
def intervened(lm: LanguageModel, arm: Ablation, means: Means | None = None) -> Iterator[Probe]:
    """The model as one arm runs it; the probe inside measures attention to key 0. What an arm does to the input
    itself is `inputs`."""
    with ExitStack() as stack:
        hook: Hook | None = None
        if arm == "mask":
            hook = in_every_layer(forbid_key)
        elif arm == "mask_other":
            hook = in_every_layer(partial(forbid_key, key=OTHER))
        elif arm == "zero_value":
            hook = in_every_layer(lambda call: set_first_value(call, torch.zeros_like(call.value[0, :, 0])))
        elif arm in ("mean_value", "mean_residual"):
            if means is None:
                raise FirstTokenError(f"The arm {arm} needs the means that `ordinary_means` gives.")
            if arm == "mean_value":
                values = means.value

                def hook(module: Any, call: AttentionCall) -> AttentionCall:
                    return set_first_value(call, values[module.layer_idx])
            else:
                stack.enter_context(residuals_changed(lm, partial(_put_first, means.residual)))
        elif arm not in ABLATIONS:
            raise FirstTokenError(f"There is no arm {arm!r}; there are {', '.join(ABLATIONS)}.")
        yield stack.enter_context(probe(lm.model, keys=[0], hook=hook))


def _put_first(residual: dict[int, Tensor], index: int, hidden: Tensor) -> Tensor:
    hidden = hidden.clone()
    hidden[:, 0] = residual[index].to(hidden)
    return hidden


def inputs(lm: LanguageModel, ids: Tensor, arm: Ablation, seed: int = 0) -> tuple[Tensor, int]:
    """The input of an arm, and by how many places its tokens have moved to the right.

    `replace` draws for each text a token from the texts themselves, never the first of one: give it all texts at
    once, without filler.

    Args:
        ids: (text, token).

    Raises:
        FirstTokenError: `add_bos` for a model whose tokenizer has no BOS token.
    """
    if arm == "delete":
        return ids[:, 1:], -1
    if arm == "add_bos":
        bos = lm.prefix("always")
        return torch.cat([torch.tensor([bos]).expand(len(ids), -1), ids], dim=1), len(bos)
    if arm == "replace":
        drawn = drawn_tokens(ids[:, 1:].flatten(), len(ids), seed)
        return torch.cat([drawn[:, None], ids[:, 1:]], dim=1), 0
    return ids, 0


def drawn_tokens(ordinary: Tensor, count: int, seed: int) -> Tensor:
    """`count` tokens out of some, (token,), with replacement."""
    return ordinary[torch.randint(len(ordinary), (count,), generator=torch.Generator().manual_seed(seed))]


@dataclass(frozen=True)
class Outcome:
    """One arm on some texts; the queries predict the same tokens in every arm."""

    predictions: Predictions
    alpha: Tensor  # (text, layer, head), mean attention to the token at position 0 over all queries


def run_arm(
    lm: LanguageModel,
    ids: Tensor,
    queries: Sequence[int] | Tensor,
    arm: Ablation,
    means: Means | None = None,
    seed: int = 0,
    batch_tokens: int = 1024,
) -> Outcome:
    """Losses, predictions and attention under one arm.

    Args:
        ids: (text, token), as the intact arm reads them.
        queries: positions in `ids`, from 1 on; the first token itself is not there in every arm.
        batch_tokens: how many logits exist at once.

    Raises:
        FirstTokenError: a query at position 0.
    """
    queries = torch.as_tensor(queries)
    if queries.min() < 1:
        raise FirstTokenError("Arms are compared from the second token on; the first is not there in all of them.")
    given, moved = inputs(lm, ids, arm, seed)
    losses, tops, alphas = [], [], []
    rows = max(1, batch_tokens // len(queries))
    for batch in given.split(rows):
        with intervened(lm, arm, means) as p:
            predictions = predict(lm, batch, queries + moved, batch_tokens)
            alphas.append(first_attention(p.attention, batch.shape[1]))
        losses.append(predictions.loss)
        tops.append(predictions.top)
    return Outcome(Predictions(torch.cat(losses), torch.cat(tops)), torch.cat(alphas))


def first_attention(attention: Tensor, length: int) -> Tensor:
    """alpha over the first `length` queries: (text, layer, head), on the CPU."""
    return sinks.first_token_attention(attention[..., :length]).cpu()


def agreement(intact: Tensor, other: Tensor) -> tuple[Tensor, Tensor]:
    """How often two arms predict the same.

    Args:
        intact, other: (text, query, k), likeliest tokens, the likeliest first.

    Returns:
        top1  # (text,), share of queries with the same likeliest token
        topk  # (text,), mean share of the k tokens that are in both lists
    """
    top1 = (intact[..., 0] == other[..., 0]).double().mean(1)
    shared = (intact[..., :, None] == other[..., None, :]).any(-1).double().mean(-1)
    return top1, shared.mean(1)


CALIBRATION = 8  # texts, the last of the passages, from which ordinary means are taken


def calibrated(lm: LanguageModel, bos: BosPolicy, execution: str = "resident") -> Means:
    """Ordinary means from passages that no measurement uses with its default parameters."""
    rest = [passage.text for passage in texts.passages()[-CALIBRATION:]]
    ids = texts.encode(lm, rest, 64, bos)
    return together(lm, {"means": partial(ordinary_means, ids=ids)}, execution)["means"]
