"""What a measurement will cost before it starts: bytes read, peak memory and time, for each way of running a model.

>>> shape = shape_of(AutoConfig.from_pretrained("meta-llama/Llama-3.1-405B"), "bfloat16")
>>> plans(shape, Machine("one GPU", ram=64e9, gpus=1, gpu_memory=24e9, disk_rate=3e9), Load(passages=170, length=64))

The model of cost is deliberately small. Reading takes bytes / disk rate; arithmetic takes two operations for each
weight and token; a streamed pass does both at once and takes the longer of the two, layer by layer.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from firsttoken.errors import FirstTokenError
from firsttoken.models import DTYPES
from firsttoken.models.anatomy import head_size
from firsttoken.models.machine import Machine

if TYPE_CHECKING:
    from transformers import PreTrainedConfig


@dataclass(frozen=True)
class Load:
    """What is run."""

    passages: int = 170
    length: int = 64  # tokens of each text
    batch_tokens: int = 4096
    head: bool = False  # whether logits are computed; attention statistics need none

    @property
    def tokens(self) -> int:
        return self.passages * self.length


@dataclass(frozen=True)
class Shape:
    """A model as far as it decides cost; sizes in bytes, in the precision of the run."""

    layers: int
    layer_bytes: int  # of the largest layer
    layers_bytes: int  # of all layers
    embedding_bytes: int  # all that stands outside the layers but the untied head
    head_bytes: int  # 0 where the head shares the embedding's weights
    active: float  # share of a layer's weights that one token uses: less than 1 with experts
    hidden: int
    widest: int  # numbers that one token occupies inside a layer at most
    itemsize: int

    @property
    def bytes(self) -> int:
        return self.layers_bytes + self.embedding_bytes + self.head_bytes


@dataclass(frozen=True)
class Plan:
    """Prediction for one way of running. `memory` is the peak of one GPU, or of RAM without a GPU."""

    way: str
    bytes_read: float
    memory: float
    seconds: float
    fits: bool


def shape_of(config: PreTrainedConfig, dtype: str = "bfloat16", trust_remote_code: bool = False) -> Shape:
    """Count a model's weights from its configuration alone, on torch's `meta` device; no weights are needed.

    Args:
        trust_remote_code: whether to count those of the model's own code, which then runs.

    Raises:
        FirstTokenError: the configuration belongs to no stack of layers.
    """
    from transformers import AutoModelForCausalLM

    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config, trust_remote_code=trust_remote_code)
    text = config.get_text_config()
    count = text.num_hidden_layers
    stack = next((m for m in model.modules() if isinstance(m, torch.nn.ModuleList) and len(m) == count), None)
    if stack is None:
        raise FirstTokenError(f"{type(model).__name__} is no stack of layers; its cost is not predicted.")
    size = DTYPES[dtype].itemsize
    layers = [_count(layer) * size for layer in stack]
    head = model.get_output_embeddings()
    tied = getattr(text, "tie_word_embeddings", False)
    head_bytes = 0 if head is None or tied else _count(head) * size
    total = _count(model) * size
    if tied and head is not None and head.weight is not model.get_input_embeddings().weight:
        total -= _count(head) * size
    return Shape(
        layers=count,
        layer_bytes=max(layers),
        layers_bytes=sum(layers),
        embedding_bytes=total - sum(layers) - head_bytes,
        head_bytes=head_bytes,
        active=_active(text, stack),
        hidden=text.hidden_size,
        widest=_widest(text),
        itemsize=size,
    )


def _count(module: torch.nn.Module) -> int:
    """Numbers that a checkpoint stores of a module: parameters and lasting buffers, shared ones once."""
    return sum(tensor.numel() for tensor in {id(t): t for t in module.state_dict(keep_vars=True).values()}.values())


def _active(text: Any, layers: torch.nn.ModuleList) -> float:
    experts = getattr(text, "num_local_experts", None) or getattr(text, "num_experts", None)
    used = getattr(text, "num_experts_per_tok", None)
    if not experts or not used:
        return 1.0
    every = _count(layers)
    in_experts = sum(p.numel() for name, p in layers.named_parameters() if ".experts." in name)
    return 1.0 - in_experts / every * (1.0 - min(used / experts, 1.0))


def _widest(text: Any) -> int:
    """Numbers that the widest layer holds of one token: either a feed-forward block with its gate and product, or
    attention with q, repeated k and v, and output. Layers may differ in their heads and in their width."""
    own = getattr(text, "per_layer_config", None)
    layers = [own[layer] for layer in range(text.num_hidden_layers)] if own else [text]
    return max(map(_width, layers))


def _width(layer: Any) -> int:
    inner = getattr(layer, "intermediate_size", None) or getattr(layer, "n_inner", None) or 4 * layer.hidden_size
    inner = max(inner) if isinstance(inner, list | tuple) else inner  # one for each layer
    return int(3 * layer.hidden_size + max(3 * inner, 4 * layer.num_attention_heads * head_size(layer)))


def plans(shape: Shape, machine: Machine, load: Load) -> Iterator[Plan]:
    """The cost of each way there is on a machine, whether it fits or not."""
    used = shape.layers_bytes * shape.active + (shape.head_bytes or shape.embedding_bytes) * load.head
    arithmetic = 2 * used / shape.itemsize * load.tokens / machine.compute_rate
    states = load.tokens * shape.hidden * shape.itemsize
    batch = min(load.batch_tokens, load.tokens) * shape.widest * shape.itemsize
    reading = shape.bytes / machine.disk_rate
    gpus = max(machine.gpus, 1)
    available = machine.gpu_memory if machine.gpus else machine.ram

    yield _plan("resident", shape.bytes, shape.bytes + batch, reading + arithmetic, available)
    if machine.gpus > 1:
        # Layers are divided, not work: one GPU computes while the others wait.
        share = shape.bytes / gpus + shape.layer_bytes + batch
        yield _plan("device_map='auto'", shape.bytes, share, reading + arithmetic * gpus, available)
        share = (shape.bytes - shape.embedding_bytes) / gpus + shape.embedding_bytes + batch
        yield _plan("tensor_parallel", shape.bytes, share, reading + arithmetic, available)

    read = shape.layers_bytes + shape.embedding_bytes + shape.head_bytes * load.head
    outside = (read - shape.layers_bytes) / machine.disk_rate
    each_read = shape.layers_bytes / shape.layers / machine.disk_rate
    # One GPU computes however many there are.
    each_compute = arithmetic * gpus / shape.layers
    seconds = outside + each_read + (shape.layers - 1) * max(each_read, each_compute) + each_compute
    memory = max(shape.embedding_bytes, 2 * shape.layer_bytes + batch) + (0 if machine.gpus else states)
    fits = states + 2e9 <= machine.ram
    yield _plan("streamed", read, memory, seconds, available if fits else 0)


def _plan(way: str, read: float, memory: float, seconds: float, available: float) -> Plan:
    return Plan(way, read, memory, seconds, memory <= available)
