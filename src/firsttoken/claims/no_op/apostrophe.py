"""The paper's apostrophe head: attention to an apostrophe right after one, to BOS everywhere else; or, in a model
without it, the head that comes nearest.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from firsttoken import files, statistics
from firsttoken.errors import FirstTokenError
from firsttoken.estimates import JSON
from firsttoken.execution.shared_pass import together
from firsttoken.models import LanguageModel
from firsttoken.models.anatomy import shared_by
from firsttoken.probe import probe
from firsttoken.probe.forward import in_batches, run_decoder
from firsttoken.records import paper_numbers
from firsttoken.texts.token_classes import containing

SHOWN = 40  # tokens of an example
FIRST_QUERY = 8  # earlier queries see so few keys that the first gets much attention for nothing


@dataclass(frozen=True)
class Wanted:
    """Which head to look at, and what it should look for. Without a layer and a head, the paper's head is taken in the
    paper's model, and in another model the head that comes nearest."""

    layer: int | None = None
    head: int | None = None
    trigger: str = "'"


def triggers(tokens: Sequence[Sequence[str]], trigger: str) -> Tensor:
    """Where a trigger stands with a token before it and a query after it: (text, token), bool.

    Raises:
        FirstTokenError: in fewer than two texts, from which no interval can be had.
    """
    where = containing(tokens, trigger)
    where[:, 0] = where[:, -1] = False
    if int(where.any(1).sum()) < 2:
        raise FirstTokenError(
            f"The trigger {trigger!r} is in fewer than two texts; give another one or more passages."
        )
    return where


def trigger_head(
    lm: LanguageModel,
    ids: Tensor,
    tokens: list[list[str]],
    where: Tensor,
    attention: Tensor,
    wanted: Wanted,
    seed: int = 0,
    batch_tokens: int = 2048,
    execution: str = "resident",
    *,
    layers: Sequence[int],
) -> JSON:
    """One head under the paper's lens: does it attend to the trigger right after it, and to the first token
    everywhere else, and how large are the two values?

    Without a layer and a head, the paper's head is taken in the paper's model; elsewhere the head that comes nearest:
    the one with the largest minimum of the two attentions.

    Args:
        where: from `triggers`.
        attention: to the first token, (text, layer, head, query).
        layers: the numbers of the layers that its rows belong to.
    """
    rows = where.any(1).nonzero()[:, 0][:16]
    see = partial(follow, ids=ids[rows], where=where[rows], batch_tokens=batch_tokens)
    after, norms = together(lm, {"triggers": see}, execution)["triggers"]
    theirs = paper_numbers.paper()["apostrophe_head"]
    follows = torch.zeros_like(where)
    follows[:, 1:] = where[:, :-1]
    elsewhere = ~(where | follows)
    elsewhere[:, :FIRST_QUERY] = False
    rest = (attention * elsewhere[:, None, None]).sum((0, 3)) / elsewhere.sum()  # (layer, head)
    counts = where[rows].sum(1).double()  # (text,)
    nearness = torch.minimum(after.sum(0) / counts.sum(), rest.double())
    if wanted.layer is not None and wanted.head is not None:
        how, layer, head = "given", wanted.layer, wanted.head
    elif files.slug(lm.name) == files.slug(theirs["model"]):
        how, layer, head = "paper", theirs["layer"], theirs["head"]
    else:
        how = "nearest"
        row, head = divmod(int(nearness.argmax()), nearness.shape[1])
        layer = layers[row]
    row = list(layers).index(layer)
    group = head * norms.shape[2] // attention.shape[2]
    norm = norms[:, row, group].double()  # (text, token)
    here = where[rows]
    others = ~here
    others[:, 0] = False
    ratio = torch.stack([after[:, row, head], counts], dim=1)
    liveliest = int(attention[rows][:, row, head].var(1).argmax())
    # The stretch shown has the text's first trigger in it, a quarter of the way in.
    begin = max(1, min(int(here[liveliest].nonzero()[0]) - SHOWN // 4, here.shape[1] - SHOWN))
    stretch = slice(begin, begin + SHOWN)
    return {
        "trigger": wanted.trigger,
        "layer": layer,
        "head": head,
        "chosen": how,
        "triggers": int(counts.sum()),
        "attention_to_trigger": asdict(statistics.ratio_of_sums(ratio, seed)),
        "first_elsewhere": statistics.mean_where(attention[:, row, head].double(), elsewhere, seed),
        "first_after": statistics.mean_where(attention[:, row, head].double(), follows, seed),
        "value_first": asdict(statistics.bootstrap(norm[:, 0], seed=seed)),
        "value_trigger": statistics.mean_where(norm, here, seed),
        "value_others": statistics.mean_where(norm, others, seed),
        "is_one": bool(nearness[row, head] > 0.5),
        "heads_of_that_kind": int((nearness > 0.5).sum()),
        "example": {
            "tokens": tokens[int(rows[liveliest])][stretch],
            "attention": statistics.rounded(attention[rows[liveliest], row, head, stretch]),
            "value_norm": statistics.rounded(norm[liveliest, stretch]),
            "value_norm_first": float(norm[liveliest, 0]),
        },
    }


def follow(lm: LanguageModel, ids: Tensor, where: Tensor, batch_tokens: int) -> tuple[Tensor, Tensor]:
    """Attention that the query right after a trigger pays to it, in every head; and the norms of all values.

    Args:
        where: (text, token), true at triggers; false at the last token.

    Returns:
        attention  # (text, layer, head), summed over the triggers of each text
        norms      # (text, layer, kv_head, token)
    """
    attention, norms = [], []
    for batch, here in zip(in_batches(ids, batch_tokens), in_batches(where, batch_tokens), strict=True):
        value: dict[int, Tensor] = {}

        def hook(module: Any, call: Any, value: dict[int, Tensor] = value) -> Any:
            value[module.layer_idx] = call.value[:, :: shared_by(module)].float().norm(dim=-1).cpu()
            return call

        most = int(here.sum(1).max())
        # Rows with fewer triggers are filled with key 0, whose weight is zero below.
        keys = torch.zeros(len(batch), most, dtype=torch.int64)
        real = torch.zeros(len(batch), most)
        for i, row in enumerate(here):
            positions = row.nonzero()[:, 0]
            keys[i, : len(positions)], real[i, : len(positions)] = positions, 1.0
        with torch.inference_mode(), probe(lm.model, keys=keys.to(lm.model.device), hook=hook) as p:
            run_decoder(lm.model, batch)
        per_key = p.attention_per_key.cpu()  # (layer, batch, head, query, key)
        query = (keys + 1)[None, :, None, None, :].expand(*per_key.shape[:3], 1, -1)
        taken = per_key.gather(3, query)[..., 0, :] * real[None, :, None]
        attention.append(taken.sum(-1).transpose(0, 1).double())
        norms.append(torch.stack([value[layer] for layer in sorted(value)], dim=1))
    return torch.cat(attention), torch.cat(norms)
