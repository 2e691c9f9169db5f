"""What a GGUF file says and transformers' reader does not read: refused where llama.cpp would compute with it.

The reader looks for the tensors and keys that an architecture usually has and passes over all others without a word,
biases of a fine-tune, another window and further layers among them.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING, Any

from firsttoken.errors import FirstTokenError
from firsttoken.models.anatomy import head_size
from firsttoken.models.gguf_header import GgufHeader
from firsttoken.models.weight_check import some

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel

# Computed from keys, heads of classifiers, predictors of further tokens, and encoders of images and sound: nothing
# that a text goes through on its way to the next token.
_UNUSED = re.compile(r"(^|\.)(attn_rot_embd|nextn)\.|^(cls|v|mm|a|resampler)\.")
_ROTARY = re.compile(r"(^|\.)(rope_freqs|rope_factors_(short|long))\.")  # see `rope_factors`
_EXPERTS = re.compile(r"_exps\.")
# Keys that change what is computed, whatever the architecture; no configuration that transformers makes of a GGUF file
# has a place for them. With these values they change nothing.
_NEUTRAL: dict[str, tuple[Any, ...]] = {
    "attention.causal": (True,),
    "attention.clamp_kqv": (0.0,),
    "attention.output_scale": (0.0, 1.0),
    "attention.temperature_scale": (0.0,),
    "embedding_scale": (0.0, 1.0),
    "expert_weights_scale": (0.0, 1.0),
    "logit_scale": (0.0, 1.0),
    "residual_scale": (0.0, 1.0),
    "rope.scaling.yarn_attn_factor": (1.0,),
    "rope.scaling.yarn_beta_fast": (32.0,),
    "rope.scaling.yarn_beta_slow": (1.0,),
    "rope.scaling.yarn_ext_factor": (-1.0, 1.0),
    "rope.scaling.yarn_log_multiplier": (0.0,),
}
# Keys for which a configuration may have a value, under these names; 0 stands for none.
_CONFIGURED = {
    "attn_logit_softcapping": "attn_logit_softcapping",
    "final_logit_softcapping": "final_logit_softcapping",
    "attention.sliding_window": "sliding_window",
}
# What norms add under the root: keys, and names in configurations.
_EPSILON_KEYS = ("attention.layer_norm_rms_epsilon", "attention.layer_norm_epsilon")
_EPSILON_FIELDS = ("rms_norm_eps", "layer_norm_eps", "layer_norm_epsilon", "norm_eps", "norm_epsilon")
_OTHER_NUMBERS = (
    "attention.scale",
    "attention.max_alibi_bias",
    "rope.freq_base",
    "rope.freq_base_swa",
    "rope.dimension_count",
    "rope.scaling.attn_factor",
)
_WITH_ALIBI = ("bloom", "falcon")


def unread_tensors(name: str, header: GgufHeader, model: PreTrainedModel) -> tuple[str, ...]:
    """Tensors of a file that its model has no place for and a text does not need.

    Args:
        name: the model's name, for sentences.
        model: what transformers makes of the file, perhaps on the meta device.

    Raises:
        FirstTokenError: llama.cpp would compute with such a tensor, or one that is read has another shape.
    """
    places = _places(header.architecture, model)
    if places is None:
        return ()
    shapes = {key: tuple(value.shape) for key, value in model.state_dict().items()}
    unread = []
    for tensor, told in header.tensors.items():
        place = places.get(tensor)
        if place is not None and not _EXPERTS.search(tensor) and not _same(told.shape, shapes[place]):
            raise FirstTokenError(
                f"{name}: the tensor {tensor} has the shape {list(told.shape)} where the model needs "
                f"{list(shapes[place])}; the file is damaged, download it again."
            )
        if place is None and tensor.removesuffix(".weight") not in places and not _ROTARY.search(tensor):
            unread.append(tensor)
    return harmless(name, header, model.config, unread)


def harmless(name: str, header: GgufHeader, config: PreTrainedConfig, unread: list[str]) -> tuple[str, ...]:
    """These tensors, if a text does not need them.

    Raises:
        FirstTokenError: llama.cpp would compute with one of them.
    """
    # Blocks behind the last layer predict further tokens where the file says that it has such blocks.
    predicts = header.keys.get(f"{header.architecture}.nextn_predict_layers", 0)
    layers = getattr(config.get_text_config(), "num_hidden_layers", 0)

    def needed(tensor: str) -> bool:
        block = re.match(r"(?:blk|model\.layers)\.(\d+)\.", tensor)
        return not _UNUSED.search(tensor) and not (predicts and block and int(block[1]) >= layers)

    if missed := sorted(tensor for tensor in unread if needed(tensor)):
        raise FirstTokenError(
            f"{name}: {len(missed)} of the file's tensors ({some(missed)}) have no place in the "
            "model that transformers makes of it, so another model would be measured; use the original safetensors "
            "instead."
        )
    return tuple(sorted(unread))


def refuse_unread_keys(name: str, header: GgufHeader, config: PreTrainedConfig) -> None:
    """Compare the keys of a file with the configuration that was made of it.

    Raises:
        FirstTokenError: a key that changes what is computed has no effect.
    """
    text, architecture = config.get_text_config(), header.architecture

    def refuse(key: str, value: Any, instead: Any) -> None:
        raise FirstTokenError(
            f"{name}: the file says {architecture}.{key} = {value}, and transformers computes with {instead}; use the "
            "original safetensors instead."
        )

    keys = {key.removeprefix(f"{architecture}."): value for key, value in header.keys.items()}
    for key in (*_NEUTRAL, *_CONFIGURED, *_EPSILON_KEYS, *_OTHER_NUMBERS):
        if key in keys and not isinstance(keys[key], int | float):
            raise FirstTokenError(
                f"{name}: the file says {architecture}.{key} = {keys[key]!r}, which is no number; download it again."
            )
    _refuse_other_epsilon(name, keys, text, refuse)
    for key, neutral in _NEUTRAL.items():
        if key in keys and keys[key] not in neutral:
            refuse(key, keys[key], neutral[-1])
    # With a pair of factors it is read.
    paired = any("rope_factors_long" in tensor for tensor in header.tensors)
    if not paired and keys.get("rope.scaling.attn_factor", 1.0) != 1.0:
        refuse("rope.scaling.attn_factor", keys["rope.scaling.attn_factor"], 1.0)
    for key, field in _CONFIGURED.items():
        if key in keys and not isinstance(getattr(text, field, None), list):
            told, used = keys[key], getattr(text, field, None)
            beyond = field == "sliding_window" and told >= keys.get("context_length", math.inf) and not used
            if (told or used) and told != used and not beyond:
                refuse(key, told, used)
    if keys.get("attention.max_alibi_bias") and architecture not in _WITH_ALIBI:
        refuse("attention.max_alibi_bias", keys["attention.max_alibi_bias"], 0)
    size = head_size(text)
    if size and keys.get("attention.scale") and not math.isclose(keys["attention.scale"], size**-0.5, rel_tol=1e-4):
        refuse("attention.scale", keys["attention.scale"], f"{size**-0.5:.4g}")
    _refuse_other_rotation(keys, getattr(text, "rope_parameters", None) or {}, size, refuse, text)


def _refuse_other_epsilon(name: str, keys: dict[str, Any], text: PreTrainedConfig, refuse: Any) -> None:
    used = [value for field in _EPSILON_FIELDS if isinstance(value := getattr(text, field, None), float)]
    told = [key for key in _EPSILON_KEYS if key in keys]
    if used and not told:
        raise FirstTokenError(
            f"{name}: the file does not say what its norms add under the root ({_EPSILON_KEYS[0]}), and llama.cpp "
            "does not load it either; convert the model again."
        )
    # A file may name both; its architecture computes with one.
    if used and not any(math.isclose(keys[key], value, rel_tol=1e-4) for key in told for value in used):
        refuse(told[0], keys[told[0]], used[0])


def refuse_more_tokens_than_embeddings(name: str, header: GgufHeader) -> None:
    """Refuse a table of tokens of another model; to read one of millions takes minutes.

    Raises:
        FirstTokenError: the file has fewer embeddings than tokens.
    """
    tokens, table = header.keys.get("tokenizer.ggml.tokens"), header.tensors.get("token_embd.weight")
    if isinstance(tokens, int) and table is not None and tokens > table.shape[0]:
        raise FirstTokenError(
            f"{name}: the file lists {tokens} tokens and holds {table.shape[0]} embeddings; the two do not belong "
            "together: convert the model again, or download the file again."
        )


def _refuse_other_rotation(
    keys: dict[str, Any], rope: dict[str, Any], size: int, refuse: Any, text: PreTrainedConfig
) -> None:
    kinds = {"freq_base": rope.get("full_attention", rope), "freq_base_swa": rope.get("sliding_attention", {})}
    for key, parameters in kinds.items():
        told, used = keys.get(f"rope.{key}"), parameters.get("rope_theta")
        if told and used and not math.isclose(told, used, rel_tol=1e-4):
            refuse(f"rope.{key}", told, used)
    turned = keys.get("rope.dimension_count")
    if turned and "rope_theta" in rope and not hasattr(text, "rotary_dim"):
        used = int(size * rope.get("partial_rotary_factor", 1.0))
        if turned != used:
            refuse("rope.dimension_count", turned, used)


def _places(architecture: str, model: PreTrainedModel) -> dict[str, str] | None:
    """The model's parameters by the names of the tensors that are read into them; None where the reader is the newer
    one of transformers, which says itself what it left."""
    from transformers import modeling_gguf_pytorch_utils as reader

    try:
        from transformers.integrations.gguf import is_gguf_arch_supported
    except ImportError:  # before that reader
        pass
    else:
        if is_gguf_arch_supported(architecture):
            return None
    processor = reader.TENSOR_PROCESSORS.get(architecture, reader.TensorProcessor)(config={})
    with _names_once():
        places = dict(reader.get_gguf_hf_weights_map(model, processor))
    if architecture == "gpt2":  # read apart from the others
        places["output.weight"] = "lm_head.weight"
    known = model.state_dict()
    return {tensor: place for tensor, place in places.items() if place in known}


@contextmanager
def _names_once() -> Iterator[None]:
    """The reader asks for the table of names anew for every module of a model, which takes seconds in all."""
    import gguf

    original: Any = gguf.get_tensor_name_map
    gguf.get_tensor_name_map = cache(original)
    try:
        yield
    finally:
        gguf.get_tensor_name_map = original


def _same(there: tuple[int, ...], needed: tuple[int, ...]) -> bool:
    """Whether two shapes differ at most in the order of dimensions and dimensions of 1, as the reader puts right."""
    return sorted(n for n in there if n > 1) == sorted(n for n in needed if n > 1)
