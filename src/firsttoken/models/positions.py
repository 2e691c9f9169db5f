"""How long a text a model can read, where it has a table of positions."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_POSITIONS = re.compile(r"(^|\.)(wpe|embed_positions|pos(itions?)?_emb(ed(dings?)?)?)$")
_OF_OTHER_INPUT = re.compile(r"vision|visual|image|audio|speech")
# Types with a table of computed vectors, or one in parts, and what their configurations call its length.
_TABLES = {
    "codegen": "n_positions",
    "ctrl": "n_positions",
    "gptj": "n_positions",
    "mpt": "max_seq_len",
    "reformer": "max_position_embeddings",
}


def positions_of(model: PreTrainedModel) -> int | None:
    """How many tokens a model can read that has a table of positions, as GPT-2 and OPT have; None without one."""
    config = model.config.get_text_config()
    if config.model_type in _TABLES:
        return int(getattr(config, _TABLES[config.model_type]))
    # The rows up to that of padding are no position's in the models that have one, RoBERTa's kin.
    rows = [
        module.num_embeddings - (0 if module.padding_idx is None else module.padding_idx + 1)
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Embedding) and _POSITIONS.search(name) and not _OF_OTHER_INPUT.search(name)
    ]
    if not rows:
        return None
    if config.model_type == "prophetnet":
        return min(rows) - 1  # it predicts the token after the next one too, from that one's position
    # OPT's table is two rows longer than its positions; the configuration counts the positions.
    stated = getattr(config, "max_position_embeddings", None)
    return min(rows) if not isinstance(stated, int) else min(*rows, stated)
