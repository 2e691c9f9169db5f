"""What real models do by themselves, for tests that compare the probe with it."""

from __future__ import annotations

import torch

from firsttoken.models import LanguageModel


def eager_maps(lm: LanguageModel, ids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The last layer's states and (text, layer, head, query, key) by transformers' eager attention."""
    lm.model.set_attn_implementation("eager")
    with torch.inference_mode():
        out = lm.model.get_decoder()(ids, output_attentions=True, use_cache=False)
    lm.model.set_attn_implementation("sdpa")
    return out.last_hidden_state, torch.stack(out.attentions, dim=1)
