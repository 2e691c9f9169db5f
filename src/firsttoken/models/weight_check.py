"""Every parameter of a model comes from its file, or the model is not used.

Where a file lacks a parameter, or holds it under another name or with another shape, transformers fills it with random
numbers and says so in a log line. Here the loader itself is run beforehand, with tensors that have shapes but no
numbers: the headers of the files on one side, the model on torch's meta device on the other. It takes no memory, reads
no weights and knows every renaming and conversion that the real loading knows.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from firsttoken.errors import FirstTokenError
from firsttoken.models.checkpoint import Checkpoint
from firsttoken.models.positions import positions_of
from firsttoken.models.quiet import no_progress_bar
from firsttoken.models.safetensors_header import DTYPES

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel

# Modules that a training script puts around a model or its layers, whose names stay in what it saves.
_ANYWHERE = ("_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module")
_OUTERMOST = re.compile(rf"^((?:module|{'|'.join(_ANYWHERE)})\.)+")
_PLAIN = frozenset({"F64", "F32", "F16", "BF16"})  # types whose numbers are the weights themselves
_LARGEST_BUFFERS = 1 << 30  # bytes
_SHOWN = 3  # names in a sentence
_NOTED = 50  # names in a record


@dataclass(frozen=True, kw_only=True)
class Weights:
    """What the check of a checkpoint against its model found, where it found nothing to refuse."""

    wrappers: tuple[str, ...] = ()  # module names left by a training script that were taken away
    ignored: tuple[str, ...] = ()  # tensors of the file that the model has no place for
    positions: int | None = None  # tokens that a table of positions is for; None where positions are computed

    def key_mapping(self) -> dict[str, str] | None:
        """What `from_pretrained` needs to read names with wrappers."""
        return dict(_renamings(self.wrappers)) or None

    def told(self) -> dict[str, Any]:
        """What a record says."""
        notes: dict[str, Any] = {"checked": True}
        if self.wrappers:
            notes["mapped"] = "names without " + ", ".join(f"{name}." for name in self.wrappers)
        if self.ignored:
            notes["ignored"] = list(self.ignored[:_NOTED])
            notes["ignored_count"] = len(self.ignored)
        return notes


def check_weights(name: str, checkpoint: Checkpoint, model: PreTrainedModel) -> Weights:
    """Compare a checkpoint with the model class that is to be filled from it.

    Args:
        name: the model's name, for sentences.
        model: on the meta device; its parameters are replaced by other empty ones.

    Raises:
        FirstTokenError: parameters are missing, come twice or have another shape, or embeddings and output head are
            tied by the configuration and differ in the file.
    """
    from transformers.conversion_mapping import get_model_conversion_mapping
    from transformers.core_model_loading import convert_and_load_state_dict_in_model
    from transformers.modeling_utils import LoadStateDictConfig

    _refuse_large_buffers(name, checkpoint, model)
    state = model.state_dict()
    wrappers = wrappers_in(checkpoint.tensors, state)
    mapping = dict(_renamings(wrappers))
    conversions: list[Any] = list(get_model_conversion_mapping(model, mapping or None))
    _refuse_duplicates(name, checkpoint, model, conversions, state)
    _refuse_coded_numbers(name, checkpoint, model, conversions, state)
    positions = positions_of(model)
    shapes = {
        key: torch.empty(entry.shape, dtype=DTYPES[entry.dtype], device="meta")
        for key, entry in checkpoint.tensors.items()
    }
    config = LoadStateDictConfig(weight_mapping=conversions, device_map={"": "meta"}, dtype=model.dtype)
    with no_progress_bar():
        info, _ = convert_and_load_state_dict_in_model(model, shapes, config)
    in_file = set(state) - info.missing_keys
    model.tie_weights(missing_keys=info.missing_keys, recompute_mapping=False)
    model._adjust_missing_and_unexpected_keys(info)
    refuse_incomplete(name, info.missing_keys, info.mismatched_keys, info.conversion_errors)
    _refuse_untied(name, checkpoint, model, conversions, in_file, state)
    return Weights(wrappers=wrappers, ignored=tuple(sorted(info.unexpected_keys)), positions=positions)


def meta_model(config: PreTrainedConfig, trust_remote_code: bool = False) -> PreTrainedModel:
    """The model of a configuration with shapes only."""
    from transformers import AutoModelForCausalLM
    from transformers.initialization import no_init_weights

    with torch.device("meta"), no_init_weights():
        return AutoModelForCausalLM.from_config(config, trust_remote_code=trust_remote_code)


def refuse_incomplete(
    name: str, missing: Iterable[str], mismatched: Iterable[tuple[Any, ...]], failed: Iterable[str] = ()
) -> None:
    """Raise one `FirstTokenError` that names the parameters which a file does not give, if there are any."""
    absent, misshapen, broken = sorted(missing), sorted(map(tuple, mismatched)), sorted(failed)
    if absent:
        raise FirstTokenError(
            f"{name}: the file lacks {len(absent)} of the model's parameters ({some(absent)}), which would be random "
            "numbers; save or download the whole model again, or put config.json right."
        )
    if misshapen:
        key, there, expected = misshapen[0]
        raise FirstTokenError(
            f"{name}: {len(misshapen)} of the file's tensors have another shape than config.json says, the first "
            f"{key} with {list(there)} instead of {list(expected)}; put config.json right or take the right file."
        )
    if broken:
        raise FirstTokenError(
            f"{name}: {len(broken)} of the model's parameters cannot be put together from the file's tensors "
            f"({some(broken)}); save or download the whole model again, or put config.json right."
        )


def wrappers_in(keys: Iterable[str], expected: Mapping[str, Any]) -> tuple[str, ...]:
    """Names of wrapping modules in the keys of a checkpoint that the model itself does not have."""
    own = {part for key in expected for part in key.split(".")}
    keys = list(keys)
    seen = [wrapper for wrapper in _ANYWHERE if wrapper not in own and any(wrapper in k.split(".") for k in keys)]
    outer = [_OUTERMOST.match(key) for key in keys]
    if "module" not in own and keys and all(match and "module" in match[0].split(".") for match in outer):
        seen.append("module")
    return tuple(seen)


def _renamings(wrappers: tuple[str, ...]) -> Iterable[tuple[str, str]]:
    """Pairs of pattern and replacement, as `key_mapping` has them. Each is used once a name, so a wrapper around
    the model and one around a layer are two patterns."""
    if wrappers:
        yield rf"^(?:(?:{'|'.join(wrappers)})\.)+", ""
    if inner := [wrapper for wrapper in wrappers if wrapper != "module"]:
        for _ in range(2):
            # Two layers of wrappers inside one name; patterns are keys of a dictionary, so the second is spelt apart.
            yield rf"\.(?:(?:{'|'.join(inner)})\.)+" + ("(?:)" if _ else ""), "."


def _refuse_large_buffers(name: str, checkpoint: Checkpoint, model: PreTrainedModel) -> None:
    """Buffers are computed from the configuration alone, so no file bounds them: masks and tables of positions."""
    size = sum(buffer.numel() * buffer.element_size() for buffer in model.buffers())
    if size > max(_LARGEST_BUFFERS, 4 * checkpoint.bytes):
        raise FirstTokenError(
            f"{name}: config.json asks for {size / 1e9:.0f} GB of tables beside {checkpoint.bytes / 1e9:.1f} GB of "
            "weights; it is damaged, or the wrong one."
        )


def _targets(
    keys: Iterable[str], model: PreTrainedModel, conversions: list[Any], state: Mapping[str, Any]
) -> Iterator[tuple[str, str, str | None]]:
    """Each of a file's names, the name in the model that it is loaded under, and what of a converter takes it, if one
    does."""
    from transformers.core_model_loading import WeightConverter, WeightRenaming, rename_source_key

    renamings = [entry for entry in conversions if isinstance(entry, WeightRenaming)]
    converters = [entry for entry in conversions if isinstance(entry, WeightConverter)]
    places = dict(state)
    for key in keys:
        yield (key, *rename_source_key(key, renamings, converters, model.base_model_prefix, places))


def _refuse_duplicates(
    name: str, checkpoint: Checkpoint, model: PreTrainedModel, conversions: list[Any], state: Mapping[str, Any]
) -> None:
    """Two tensors for one parameter: which one would win is chance. Converters join several on purpose."""
    targets = Counter(
        target
        for _, target, joined in _targets(checkpoint.tensors, model, conversions, state)
        if joined is None and target in state
    )
    if twice := sorted(target for target, times in targets.items() if times > 1):
        raise FirstTokenError(
            f"{name}: the file holds {len(twice)} of the model's parameters twice, under different names "
            f"({some(twice)}); save the model again so that each is there once."
        )


def _refuse_coded_numbers(
    name: str, checkpoint: Checkpoint, model: PreTrainedModel, conversions: list[Any], state: Mapping[str, Any]
) -> None:
    """Integers and eight-bit floats stand for other numbers, by a scale that a `quantization_config` tells about; the
    loader would take them as they are."""
    parameters = dict(model.named_parameters(remove_duplicate=False))
    not_plain = [key for key, entry in checkpoint.tensors.items() if entry.dtype not in _PLAIN]
    coded = [
        key
        for key, target, _ in _targets(not_plain, model, conversions, state)
        if target in parameters and parameters[target].is_floating_point()
    ]
    if coded:
        raise FirstTokenError(
            f"{name}: {len(coded)} of the file's tensors hold coded numbers, the first {coded[0]} of type "
            f"{checkpoint.tensors[coded[0]].dtype}, and config.json has no quantization_config that says what they "
            "stand for; take the config.json that belongs to the file, or an unquantised copy."
        )


def _refuse_untied(
    name: str,
    checkpoint: Checkpoint,
    model: PreTrainedModel,
    conversions: list[Any],
    in_file: set[str],
    state: Mapping[str, Any],
) -> None:
    """A configuration that ties two parameters of which the file holds two different ones contradicts its file."""
    from transformers.core_model_loading import WeightRenaming, rename_source_key

    renamings = [entry for entry in conversions if isinstance(entry, WeightRenaming)]
    pairs = model.get_expanded_tied_weights_keys(all_submodels=True)
    both = [(target, source) for target, source in pairs.items() if target in in_file and source in in_file]
    if not both:
        return
    where = {
        rename_source_key(k, renamings, [], model.base_model_prefix, dict(state))[0]: k for k in checkpoint.tensors
    }
    for target, source in both:
        if target not in where or source not in where:
            continue  # put together by a converter: no head or embedding is
        if not _same_numbers(checkpoint, where[target], where[source]):
            raise FirstTokenError(
                f"{name}: config.json ties {target} to {source}, but the file holds two different tensors; set "
                "tie_word_embeddings to false in config.json if both were trained, or save the model again without "
                f"{target}."
            )


def _same_numbers(checkpoint: Checkpoint, one: str, other: str) -> bool:
    a, b = checkpoint.tensors[one], checkpoint.tensors[other]
    if (a.shard, a.start, a.bytes) == (b.shard, b.start, b.bytes):
        return True
    first, second = checkpoint.read(one), checkpoint.read(other)
    common = torch.promote_types(first.dtype, second.dtype)
    return first.shape == second.shape and torch.equal(first.to(common), second.to(common))


def some(names: list[str]) -> str:
    """The first of some names, for a sentence."""
    more = len(names) - _SHOWN
    return ", ".join(names[:_SHOWN]) + (f" and {more} more" if more > 0 else "")
