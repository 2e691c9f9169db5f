"""Several measurements of one model side by side, so that a model on disk is read once for all of them.

>>> losses = together(lm, {arm: lambda lm, arm=arm: run_arm(lm, ids, queries, arm) for arm in arms}, "streamed")

A measurement is any function of a `LanguageModel` that runs forward passes: it may put probes and hooks on
`lm.model`, change what a layer reads, or look at logits. Streamed, each gets a model of its own whose weights are not
there, and a thread of its own that stops before every layer. When all have come to the same layer, it is read from
disk, and one after the other goes through it. Their first passes thus share one reading, their second ones the next.
Only one thread runs at any time, so a measurement need not know of the others.
"""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable, Hashable, Mapping
from contextlib import closing
from typing import TYPE_CHECKING, Any, TypeVar

from torch import nn

from firsttoken.execution.choose import choose_for_one_process
from firsttoken.execution.empty_model import free
from firsttoken.execution.streaming import StreamedModel
from firsttoken.models import LanguageModel
from firsttoken.models.anatomy import find_layers
from firsttoken.progress import Progress, tracked

if TYPE_CHECKING:
    from transformers import PreTrainedModel

Key = TypeVar("Key", bound=Hashable)
Result = TypeVar("Result")


def together(
    lm: LanguageModel, measures: Mapping[Key, Callable[[LanguageModel], Result]], execution: str = "resident"
) -> dict[Key, Result]:
    """What each measurement returns, by its name.

    Args:
        measures: each is called with a model; none may wait for another. The one with the most forward passes decides
            how often the disk is read. None may keep a layer's weights, which leave after its turn.
        execution: `resident` calls them one after the other with `lm`; `streamed` as described above; `auto`, see
            `execution.choose`.

    Raises:
        FirstTokenError: the model cannot be streamed, or several processes were started.
        Exception: whatever a measurement raises; the others are ended.
    """
    if choose_for_one_process(lm, execution) == "resident":
        return {name: measure(lm) for name, measure in tracked(measures.items())}
    return _streamed(StreamedModel(lm), measures)


def _streamed(streamed: StreamedModel, measures: Mapping[Key, Callable[[LanguageModel], Result]]) -> dict[Key, Result]:
    with streamed.outside():
        lanes: dict[Key, _Lane] = {}
        try:
            for name, measure in measures.items():
                lanes[name] = _Lane(streamed, measure)
                lanes[name].go_on()
            while any(lane.at is not None for lane in lanes.values()):
                _pass(streamed, list(lanes.values()))
        finally:
            for lane in lanes.values():
                lane.end()
    return {name: lane.result for name, lane in lanes.items()}


def _pass(streamed: StreamedModel, lanes: list[_Lane]) -> None:
    """Read every layer once and let all that wait for it go through."""
    sizes = streamed.layer_bytes()
    progress = Progress(streamed.lm.name, len(sizes), sum(sizes))
    with closing(streamed.in_turn()) as turns:
        for number, _ in turns:
            for lane in lanes:
                if lane.at == number:
                    _lend(streamed.layers[number], lane.layers[number])
                    lane.go_on()
                    free(lane.layers[number])
            progress.layer_done(number, sizes[number])


def _lend(layer: nn.Module, to: nn.Module) -> None:
    for lender, borrower in zip(layer.modules(), to.modules(), strict=True):
        borrower._parameters.update(lender._parameters)
        borrower._buffers.update(lender._buffers)


class _Ended(BaseException):
    """Thrown into a measurement that will not go on; no `except Exception` of its own should stop it."""


class _Lane:
    """One measurement in a thread of its own, which runs only while `go_on` waits for it."""

    def __init__(self, streamed: StreamedModel, measure: Callable[[LanguageModel], Any]) -> None:
        self.at: int | None = None  # the layer before which it waits; None at the start and at the end
        self.result: Any = None
        self._error: BaseException | None = None
        self._ending = False
        self._may_run, self._has_stopped = threading.Semaphore(0), threading.Semaphore(0)
        self.model: PreTrainedModel = _copy_without_weights(streamed.model)
        self.layers = find_layers(self.model)[1]
        for number, layer in enumerate(self.layers):
            layer.register_forward_pre_hook(lambda module, given, number=number: self._wait(number))
        own = copy.copy(streamed.lm)
        vars(own)["model"] = self.model
        self._thread = threading.Thread(target=self._run, args=(measure, own), daemon=True)
        self._thread.start()

    def go_on(self) -> None:
        """Let it run up to its next layer or its end; raises what it raises."""
        self._may_run.release()
        self._has_stopped.acquire()
        if self._error is not None:
            raise self._error

    def end(self) -> None:
        """Stop it where it is, if it still runs."""
        self._ending = True
        self._may_run.release()
        self._thread.join()

    def _run(self, measure: Callable[[LanguageModel], Any], lm: LanguageModel) -> None:
        try:
            self._may_run.acquire()
            if not self._ending:
                self.result = measure(lm)
        except _Ended:
            pass
        except BaseException as error:
            self._error = error
        finally:
            self.at = None
            self._has_stopped.release()

    def _wait(self, layer: int) -> None:
        self.at = layer
        self._has_stopped.release()
        self._may_run.acquire()
        if self._ending:
            raise _Ended


def _copy_without_weights(model: PreTrainedModel) -> PreTrainedModel:
    """A model with modules, configuration and hooks of its own that shares the weights and buffers of another."""
    shared = {id(part): part for part in (*model.parameters(), *model.buffers())}
    return copy.deepcopy(model, shared)
