"""Streamed execution against the resident model: the same numbers, each weight read once, killed and resumed."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from firsttoken import models
from firsttoken.probe import probe
from firsttoken.streaming import StreamedModel
from tiny import ARCHITECTURES, tiny_model

TEXTS, LENGTH = 5, 17


def ids() -> torch.Tensor:
    return torch.randint(3, 97, (TEXTS, LENGTH), generator=torch.Generator().manual_seed(1))


def saved(name: str, folder: Path) -> models.LanguageModel:
    """A tiny model as several shards."""
    tiny_model(name).save_pretrained(folder, max_shard_size="20KB")
    assert len(list(folder.glob("*.safetensors"))) > 2
    return models.load(str(folder), device="cpu")


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_streamed_equals_resident(name: str, tmp_path: Path) -> None:
    lm = saved(name, tmp_path)
    with torch.inference_mode(), probe(lm.model, keys=[0, 3], entropy=True) as p:
        out = lm.model(ids(), use_cache=False, output_hidden_states=True)
    streamed = StreamedModel(lm)
    hidden: dict[int, list[torch.Tensor]] = {}

    with probe(streamed.model, keys=[0, 3], entropy=True) as q:

        def observe(layer: int, states: torch.Tensor) -> torch.Tensor:
            hidden.setdefault(layer, []).append(states.clone())
            return torch.cat([q.per_layer()[layer], q.per_layer("entropy")[layer][..., None]], dim=-1)

        found = streamed.run(ids(), observe, batch_tokens=2 * LENGTH, reduce_logits=lambda logits: logits)

    expected = torch.cat([p.attention_per_key, p.entropy[..., None]], dim=-1)
    torch.testing.assert_close(torch.stack(list(found.observed.values())), expected, atol=1e-5, rtol=0)
    assert found.head is not None
    torch.testing.assert_close(found.head, out.logits, atol=1e-5, rtol=1e-5)
    for layer in range(3):  # the last of transformers' hidden states is normalised
        torch.testing.assert_close(torch.cat(hidden[layer]), out.hidden_states[layer + 1], atol=1e-5, rtol=1e-5)
    assert found.bytes_read == streamed.checkpoint.bytes
