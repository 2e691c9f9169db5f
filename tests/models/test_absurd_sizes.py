"""Configurations of no model are refused, and those of models are not."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from transformers import AutoConfig

from firsttoken import models
from firsttoken.errors import FirstTokenError
from firsttoken.models.absurd_sizes import refuse_absurd
from tiny import tiny_model


def test_absurd_configurations_are_refused_before_a_model_is_made(tmp_path: Path) -> None:
    tiny_model("llama").save_pretrained(tmp_path)
    told = json.loads((tmp_path / "config.json").read_text())
    for key in ("num_hidden_layers", "vocab_size", "hidden_size", "num_attention_heads", "max_position_embeddings"):
        (tmp_path / "config.json").write_text(json.dumps(told | {key: 10**12}))
        with pytest.raises(FirstTokenError, match=f"{key} = 1000000000000, which no model has"):
            models.load(str(tmp_path))


@pytest.mark.parametrize("name", ["gemma3n_text", "gemma4_text", "llama", "deepseek_v3", "mixtral"])
def test_the_sizes_that_transformers_itself_gives_are_not_absurd(name: str) -> None:
    """A vocabulary for each layer is a size, although its key speaks of layers."""
    refuse_absurd("a model", AutoConfig.for_model(name).to_dict())
    with pytest.raises(FirstTokenError, match="num_hidden_layers = 10001"):
        refuse_absurd("a model", {"num_hidden_layers": 10_001})
