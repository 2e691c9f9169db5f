"""Models larger than memory: every passage goes through layer i before layer i + 1 is read.

>>> streamed = StreamedModel(lm)
>>> with probe(streamed.model, keys=[0]) as p:
...     out = streamed.run(ids, lambda layer, hidden: p.per_layer()[layer][..., 0])
>>> out.observed[3]  # (text, head, query): what the function returned for layer 3

An ordinary forward pass reads all weights for each batch. Here the order of the two loops is turned round, so that one
pass over the disk serves all passages, and memory holds two layers (the running one and the next, which a thread
reads meanwhile) and the hidden states, instead of the model. The arithmetic of each layer is the model's own code.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from firsttoken.errors import FirstTokenError
from firsttoken.execution.dry_run import LayerInput, dry_run, instead, share
from firsttoken.execution.empty_model import empty_model, free, weight_groups
from firsttoken.execution.resume import Finished, Resume
from firsttoken.models import DTYPES, LanguageModel, no_progress_bar
from firsttoken.models.anatomy import find_layers
from firsttoken.models.checkpoint import Checkpoint, open_checkpoint
from firsttoken.models.finite_weights import refuse_weights_without_number
from firsttoken.progress import Progress

if TYPE_CHECKING:
    from transformers import PreTrainedModel

Observe = Callable[[int, Tensor], Tensor | None]
Reduce = Callable[[Tensor], Tensor]


@dataclass
class Streamed:
    """What one pass showed."""

    observed: dict[int, Tensor] = field(default_factory=dict)  # layer -> (row, ...), on the CPU
    rows: list[int] = field(default_factory=list)  # how many of them are of each batch, the same in all layers
    head: Tensor | None = None  # what `reduce_logits` returned, (text, ...)
    first_layer: int = 0  # greater than 0 where an interrupted pass was taken up again
    bytes_read: int = 0
    seconds_reading: float = 0.0  # waiting for weights; what is read during arithmetic costs nothing
    seconds_computing: float = 0.0

    def keep(self, layer: int, parts: list[Tensor]) -> None:
        """What was observed of each batch in a layer, (row, ...)."""
        if parts:
            self.observed[layer], self.rows = torch.cat(parts), [len(part) for part in parts]


class StreamedModel:
    """A causal LM whose layers stay on disk until their turn.

    `model` is the transformers model itself with empty weights, which a probe can be put on.

    Raises:
        FirstTokenError: a damaged checkpoint, or an architecture that this cannot run.
    """

    def __init__(self, lm: LanguageModel) -> None:
        from transformers.conversion_mapping import get_model_conversion_mapping
        from transformers.modeling_utils import LoadStateDictConfig

        if getattr(lm.config, "quantization_config", None):
            raise FirstTokenError(
                f"{lm.name} is quantised; only plain safetensors can be streamed. Use execution='resident' with "
                "device_map='auto', or an unquantised copy."
            )
        self.lm = lm
        self.device = torch.device(lm.device)
        self.checkpoint: Checkpoint = open_checkpoint(lm.local_folder())
        self.model: PreTrainedModel = empty_model(lm, self.device)
        self.prefix, self.layers = find_layers(self.model)
        conversions: list[Any] = list(get_model_conversion_mapping(self.model, lm.weights.key_mapping()))
        dtype = DTYPES[lm.dtype]
        self._load_config = LoadStateDictConfig(
            weight_mapping=conversions,
            device_map={"": lm.device},
            dtype=dtype,
            dtype_plan=self.model._get_dtype_plan(dtype),
        )
        self._groups = weight_groups(self.model, self.checkpoint, self.prefix, conversions)
        if missing := [i for i in range(len(self.layers)) if str(i) not in self._groups]:
            raise FirstTokenError(
                f"{lm.name}: the checkpoint holds no weights for layer {missing[0]} of {len(self.layers)}."
            )

    def layer_bytes(self) -> list[int]:
        """Bytes on disk of each layer."""
        sizes = {name: entry.bytes for name, entry in self.checkpoint.tensors.items()}
        return [sum(sizes[key] for key in self._groups[str(i)]) for i in range(len(self.layers))]

    @torch.inference_mode()
    def run(
        self,
        ids: Tensor,
        observe: Observe,
        *,
        batch_tokens: int = 4096,
        spans: Sequence[slice] | None = None,
        observe_input: bool = False,
        reduce_logits: Reduce | None = None,
        work: Path | None = None,
        task: str = "",
    ) -> Streamed:
        """One pass of all passages through the model.

        Args:
            ids: (text, token), without padding.
            observe: called after each layer and batch with the layer's number and output (row, token, dim); what
                it returns (row, ...) is collected. With a probe around the call, `p.per_layer()[layer]` holds this
                layer and batch. It must keep no reference to weights, whose memory is used again.
            batch_tokens: how many tokens go through a layer at once; changes no number beyond rounding.
            spans: which texts go through a layer together, side by side from the first to the last; if given,
                `batch_tokens` is not used.
            observe_input: call `observe` with layer -1 too, for what enters the first layer.
            reduce_logits: if given, the output head runs too and this is called with logits (row, token, vocab);
                the head's weights are not read otherwise.
            work: a folder for the state after each layer, from which the same pass, if killed, is taken up again.
            task: what `observe` computes; two passes with the same model, ids and task share their state.

        Raises:
            FirstTokenError: the model does more between its layers than pass hidden states on.
        """
        out = Streamed()
        read_before = self.checkpoint.bytes_read
        resume = None if work is None else Resume(work, self._key(ids, task))
        rows = max(1, batch_tokens // ids.shape[1])
        spans = spans or [slice(i, min(i + rows, len(ids))) for i in range(0, len(ids), rows)]
        with no_progress_bar():
            # Tied embeddings are also the output head, so that freeing them would mean reading them again.
            self._load_outside()
            hidden, inputs, returns_tuple = self._embed(ids, spans)
            if "head" in self._groups or reduce_logits is None:
                free(self.model.get_input_embeddings())
            if resume is not None and (finished := resume.load()) is not None:
                out.first_layer, out.observed, out.rows = finished.layers, finished.observed, finished.rows
                hidden.copy_(finished.hidden)
            elif observe_input:
                seen = [observe(-1, hidden[span].to(self.device)) for span in spans]
                out.keep(-1, [part.cpu() for part in seen if part is not None])
            self._through_layers(hidden, inputs, spans, observe, out, resume)
            if reduce_logits is not None:
                out.head = self._head(ids, hidden, spans, reduce_logits, returns_tuple)
                self.lm.refuse_replaced()
            self._free_outside()
            self.checkpoint.forget_spare()
        if resume is not None:
            resume.clear()
        out.bytes_read = self.checkpoint.bytes_read - read_before
        return out

    # -- the loop over layers -------------------------------------------------------------------------------

    def _through_layers(
        self,
        hidden: Tensor,
        inputs: list[list[LayerInput]],
        spans: Sequence[slice],
        observe: Observe,
        out: Streamed,
        resume: Resume | None,
    ) -> None:
        """Run the layers from `out.first_layer` on; `hidden` (text, token, dim) is overwritten."""
        count, sizes = len(self.layers), self.layer_bytes()
        progress = Progress(self.lm.name, count, sum(sizes[out.first_layer :]), out.first_layer)
        with closing(self.in_turn(out.first_layer)) as turns:
            for i, waited in turns:
                ready = time.perf_counter()
                parts = []
                for batch, span in enumerate(spans):
                    given, states = inputs[batch][i], hidden[span].to(self.device)
                    after = self.layers[i](states, *given.args, **given.kwargs)
                    after = after[0] if isinstance(after, tuple) else after
                    hidden[span] = after.to(hidden.device)
                    if (seen := observe(i, after)) is not None:
                        parts.append(seen.cpu())
                out.keep(i, parts)
                out.seconds_reading += waited
                out.seconds_computing += time.perf_counter() - ready
                if resume is not None:
                    resume.save(Finished(i + 1, hidden, out.observed, out.rows))
                progress.layer_done(i, sizes[i])

    def in_turn(self, first: int = 0) -> Generator[tuple[int, float]]:
        """Each layer from `first` on while its weights are in place, and the seconds that were waited for them; the
        next layer's are read meanwhile. They leave after its turn, so nothing may keep a reference to them. Close it
        where a loop may end early: the thread that reads ends with it."""
        count, largest = len(self.layers), max(self.layer_bytes())
        with ThreadPoolExecutor(1) as reader:
            following: Future[set[str]] | None = None
            for i in range(first, count):
                start = time.perf_counter()
                (following or reader.submit(self._load, str(i))).result()
                waited = time.perf_counter() - start
                following = reader.submit(self._load, str(i + 1)) if i + 1 < count else None
                yield i, waited
                weights = list(self.layers[i].parameters())
                free(self.layers[i])
                for weight in weights:
                    self.checkpoint.recycle(weight.data, limit=largest)
                del weights, weight
        self.lm.refuse_replaced()

    @contextmanager
    def outside(self) -> Iterator[None]:
        """Inside the block, everything but the layers has its weights: embeddings, final norm, output head."""
        with no_progress_bar():
            self._load_outside()
            if "head" in self._groups:
                self._load("head")
            try:
                yield
            finally:
                self._free_outside()
                self.checkpoint.forget_spare()

    def _embed(self, ids: Tensor, spans: Sequence[slice]) -> tuple[Tensor, list[list[LayerInput]], bool]:
        """Everything before the first layer, by the model's own code: the layers only note what they are given.

        Returns:
            hidden         # (text, token, dim), what goes into layer 0
            inputs         # for each batch and layer, what else goes in
            returns_tuple  # whether the model expects its layers to return a tuple
        """
        hidden: Tensor | None = None
        inputs: list[list[LayerInput]] = []
        returns_tuple = self._returns_tuple(ids[spans[0]])
        for span in spans:
            run = dry_run(self.model, self.layers, ids[span].to(self.device), returns_tuple)
            assert run is not None
            states, noted = run
            if hidden is None:
                size = ids.numel() * states.shape[-1] * states.element_size()
                hidden = torch.empty((*ids.shape, states.shape[-1]), dtype=states.dtype, device=self._home(size))
            hidden[span] = states.to(hidden.device)
            inputs.append(share(noted, inputs[0]) if inputs else noted)
        assert hidden is not None
        return hidden, inputs, returns_tuple

    def _returns_tuple(self, ids: Tensor) -> bool:
        """Whether layers return a tuple, as older ones do: only the right convention gets through the decoder."""
        for as_tuple in (False, True):
            if dry_run(self.model, self.layers, ids.to(self.device), as_tuple) is not None:
                return as_tuple
        raise FirstTokenError(
            f"{type(self.model).__name__} does more between its layers than pass hidden states on, so it cannot be "
            "run layer by layer; use execution='resident' with device_map='auto'."
        )

    def _head(
        self, ids: Tensor, hidden: Tensor, spans: Sequence[slice], reduce_logits: Reduce, returns_tuple: bool
    ) -> Tensor:
        """Final norm and output head: the model with layers that return the last hidden states."""
        if "head" in self._groups:
            self._load("head")
        parts = []
        for span in spans:
            last = hidden[span].to(self.device)

            def constant(*args: Any, _last: Tensor = last, **kwargs: Any) -> Any:
                return (_last, None) if returns_tuple else _last

            with instead(self.layers, constant):
                # The embeddings may be gone; what is given in their place reaches no layer.
                parts.append(reduce_logits(self.model(inputs_embeds=last, use_cache=False).logits).cpu())
        return torch.cat(parts)

    # -- weights --------------------------------------------------------------------------------------------

    def _load_outside(self) -> None:
        # Of two tied parameters the file may hold either.
        missing = self._load("outside")
        self.model.tie_weights(missing_keys=missing, recompute_mapping=False)

    def _load(self, group: str) -> set[str]:
        """Put a group's weights in place; the names of the model's parameters that are not in it are returned."""
        from transformers.core_model_loading import convert_and_load_state_dict_in_model

        empty = {name for name, one in self.model.named_parameters() if one.is_meta}
        lazy = {key: self.checkpoint.lazy(key) for key in self._groups.get(group, ())}
        with self.checkpoint.readers_joined():
            info, _ = convert_and_load_state_dict_in_model(self.model, lazy, self._load_config)
        wrong = [str(name) for name, *_ in info.mismatched_keys] + list(info.conversion_errors)
        if group.isdigit():
            wrong += [name for name, value in self.layers[int(group)].named_parameters() if value.is_meta]
        if wrong:
            raise FirstTokenError(
                f"{self.lm.name}: {wrong[0]} of layer {group} is missing from the checkpoint or does not fit the "
                "configuration; download the model again."
            )
        read = ((name, one) for name, one in self.model.named_parameters() if name in empty)
        refuse_weights_without_number(self.lm.name, read)
        return set(info.missing_keys)

    def _free_outside(self) -> None:
        for module in self.model.modules():
            if module is not self.model:
                free(module, recurse=False)

    def _home(self, size: int) -> torch.device:
        """Where hidden states wait for their turn: on the GPU if they take a small part of it."""
        if self.device.type == "cuda" and size < torch.cuda.mem_get_info(self.device)[0] // 8:
            return self.device
        return torch.device("cpu")

    def _key(self, ids: Tensor, task: str) -> str:
        digest = hashlib.sha256(ids.cpu().numpy().tobytes())
        for part in (self.lm.fingerprint, self.lm.dtype, str(tuple(ids.shape)), task, torch.__version__):
            digest.update(part.encode() + b"\0")
        return digest.hexdigest()[:32]
