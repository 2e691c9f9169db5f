"""A model without its weights: the modules, the stack of layers in them, and which weights each part needs."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from firsttoken.errors import FirstTokenError
from firsttoken.models import DTYPES, LanguageModel
from firsttoken.models.checkpoint import Checkpoint

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def empty_model(lm: LanguageModel, device: torch.device) -> PreTrainedModel:
    """The model with weights that take no memory, but with real buffers (rotary frequencies, causal masks)."""
    from accelerate import init_empty_weights
    from transformers import AutoModelForCausalLM
    from transformers.initialization import no_init_weights

    with no_init_weights(), init_empty_weights(include_buffers=False):
        model = AutoModelForCausalLM.from_config(
            lm.config, dtype=DTYPES[lm.dtype], trust_remote_code=lm.trust_remote_code
        )
    if not model._can_set_attn_implementation():
        raise FirstTokenError(
            f"{type(model).__name__} computes attention with code of its own, outside transformers' attention "
            "interface, so it is not run layer by layer; choose a model such as Llama, Qwen, Gemma, OPT or Pythia."
        )
    for module in model.modules():
        for name, buffer in module._buffers.items():
            module._buffers[name] = None if buffer is None else buffer.to(device)
    return model.eval()


def weight_groups(
    model: PreTrainedModel, checkpoint: Checkpoint, prefix: str, conversions: list[Any]
) -> dict[str, list[str]]:
    """Checkpoint keys by when they are needed: `outside` the layers, the layers "0", "1" ..., the untied `head`."""
    from transformers.core_model_loading import WeightConverter, WeightRenaming, rename_source_key

    renamings = [entry for entry in conversions if isinstance(entry, WeightRenaming)]
    converters = [entry for entry in conversions if isinstance(entry, WeightConverter)]
    names = {module: name for name, module in model.named_modules()}
    head = names.get(model.get_output_embeddings())
    tied = getattr(model.config.get_text_config(), "tie_word_embeddings", False)
    state = model.state_dict()
    groups: dict[str, list[str]] = {}
    for key in checkpoint.tensors:
        target, _ = rename_source_key(key, renamings, converters, model.base_model_prefix, state)
        layer = re.match(rf"{re.escape(prefix)}\.(\d+)\.", target)
        if layer:
            group = layer[1]
        elif head and not tied and target.startswith(f"{head}."):
            group = "head"
        else:
            group = "outside"
        groups.setdefault(group, []).append(key)
    return groups


def free(module: nn.Module, recurse: bool = True) -> None:
    """Drop a module's weights, or only its own without those of the modules in it; buffers stay."""
    for part in module.modules() if recurse else (module,):
        for name, parameter in part._parameters.items():
            if parameter is not None:
                part._parameters[name] = nn.Parameter(parameter.to("meta"), requires_grad=False)
