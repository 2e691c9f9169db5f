"""Sinks against the size of a model: the paper's table as a curve, for whatever models are given.

Paper: in LLaMa 3.1 405B about 80 % of all attention goes to BOS, and the sink rate grows from 8B over 70B to 405B.
Size is several things at once (depth, width, heads, training), so the record of a model holds each of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from firsttoken import texts
from firsttoken.claims.scale.verdict import judge
from firsttoken.estimates import JSON
from firsttoken.execution import cost
from firsttoken.measures import first_token_summary
from firsttoken.measures.first_token_summary import Parameters
from firsttoken.measures.measurement import Measurement
from firsttoken.models import LanguageModel
from firsttoken.records import Record
from firsttoken.records.paper_numbers import PAPER_EPSILON

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

# Configurations as published on the hub; the planner needs no weights and no network for them.
PAPER_SHAPES = {
    "meta-llama-llama-3-1-8b": (32, 4096, 14336, 32),
    "meta-llama-llama-3-1-70b": (80, 8192, 28672, 64),
    "meta-llama-llama-3-1-405b": (126, 16384, 53248, 128),
}


def run(lm: LanguageModel, parameters: Parameters, passages: Sequence[str], counted: Record) -> JSON:
    """`mass_first`, `sink_rate` at the paper's epsilon and `sink_rate_0.3`, two of them by layer, all three passage by
    passage (`by_passage`, with the `domains` of the project's own), and the size of the model in parameters, layers,
    width and heads.

    Args:
        counted: the record `sink_rates/<model>.json` for the same parameters, which has looked at the attention.
    """
    by_epsilon = counted.values["by_epsilon"]
    at = dict(zip(by_epsilon["epsilon"], by_epsilon["threshold_first"], strict=True))
    return {
        "mass_first": counted.values["mass"],
        "sink_rate": at[PAPER_EPSILON],
        "sink_rate_0.3": at[0.3],
        "by_layer": {name: counted.values["by_layer"][name] for name in ("mass", "sink_rate_0.3")},
        **_by_passage(counted, parameters),
        **size(lm.config, lm.trust_remote_code),
    }


def _by_passage(counted: Record, parameters: Parameters) -> JSON:
    """What `pairs` compares; nothing where the counted record does not say it at the paper's epsilon."""
    values = counted.values
    if "by_passage_mass" not in values or parameters.epsilon != PAPER_EPSILON:
        return {}
    parts: JSON = {
        "by_passage": {
            "mass_first": values["by_passage_mass"],
            "sink_rate_0.3": values["by_passage_0.3"],
            "sink_rate": values["by_passage"],
        }
    }
    if parameters.text_source == "passages":
        parts["domains"] = [passage.domain for passage in texts.passages()[: len(values["by_passage"])]]
    return parts


def size(config: PreTrainedConfig, trust_remote_code: bool = False) -> JSON:
    """What "large" means for a model, from its configuration alone."""
    shape, text = cost.shape_of(config, trust_remote_code=trust_remote_code), config.get_text_config()
    return {
        "parameters": shape.bytes // shape.itemsize,
        "parameters_in_layers": shape.layers_bytes // shape.itemsize,
        "layers": shape.layers,
        "width": shape.hidden,
        "heads": text.num_attention_heads,
    }


def paper_config(model: str) -> PreTrainedConfig:
    """The configuration of one of the paper's models, without a look at the hub."""
    from transformers import LlamaConfig

    layers, width, inner, heads = PAPER_SHAPES[model]
    return LlamaConfig(
        vocab_size=128256,
        hidden_size=width,
        intermediate_size=inner,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=8,
        tie_word_embeddings=False,
    )


MEASUREMENT = Measurement(
    claim="scale",
    parameters=Parameters,
    passages=first_token_summary.passages,
    run=run,
    judge=judge,
    given=first_token_summary.MEASUREMENT,
)
MEASUREMENTS = (MEASUREMENT,)
