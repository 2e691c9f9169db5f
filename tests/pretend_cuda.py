"""GPUs that are not there: tensors that say `cuda:0` or `cuda:1`, hold ordinary numbers, and refuse to meet one that
lies elsewhere.

>>> with pretend_cuda():
...     model.to("cuda")(ids.to("cuda"))  # as on a GPU, by the CPU's arithmetic
...     model(ids)                        # RuntimeError: Expected all tensors to be on the same device

What a real GPU would complain about, tensors on two devices in one operation, is found on any machine. Kernels that
exist on GPUs only are not there, and neither are gradients.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

from firsttoken.execution.streaming import StreamedModel
from firsttoken.probe.attention import _backend

aten = torch.ops.aten
COPIES = {aten.copy_.default, aten._to_copy.default}  # between devices


class OnCuda(Tensor):
    """A tensor that says it lies on a GPU."""

    inner: Tensor
    index: int  # of the GPU
    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, inner: Tensor, index: int = 0) -> OnCuda:
        made: OnCuda = Tensor._make_wrapper_subclass(  # type: ignore[attr-defined]
            cls,
            inner.shape,
            strides=inner.stride(),
            storage_offset=inner.storage_offset(),
            dtype=inner.dtype,
            device="meta",  # what torch's C++ code sees; for a GPU it would look for a driver
            requires_grad=inner.requires_grad,
        )
        made.inner, made.index = inner.detach(), index
        return made

    @property
    def device(self) -> torch.device:  # type: ignore[override]
        return torch.device("cuda", self.index)

    @property
    def is_cuda(self) -> bool:  # type: ignore[override]
        return True

    @property
    def is_meta(self) -> bool:  # type: ignore[override]
        return False

    def __repr__(self, **_: Any) -> str:
        return f"OnCuda({self.inner!r})"

    def tolist(self) -> Any:
        return self.inner.tolist()

    def numpy(self, **_: Any) -> np.ndarray:
        raise TypeError("can't convert cuda:0 device type tensor to numpy. Use Tensor.cpu() first.")

    def __array__(self, *_: Any) -> np.ndarray:
        return self.numpy()

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return run(func, args, kwargs or {})


class Asked(TorchFunctionMode):
    """Whoever asks for `cuda` asks torch for `meta`, which needs no driver, and leaves word of it."""

    here = threading.local()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func in (torch.device, torch._C._nn._parse_to):  # they only read arguments
            return func(*args, **kwargs)
        if func in (Tensor.__getitem__, Tensor.__setitem__):
            return indexed(func, *args)
        if func is Tensor.to and len(args) > 1 and isinstance(args[1], Tensor):
            return args[0].to(device=args[1].device, dtype=args[1].dtype)
        if func is Tensor.to and isinstance(args[0], OnCuda):
            # To torch's C++ code one GPU is the other.
            to, dtype, *_ = torch._C._nn._parse_to(*args[1:], **{k: v for k, v in kwargs.items() if k != "copy"})
            if to is not None and to.type == "cuda" and (to.index or 0) != args[0].index:
                return OnCuda(args[0].inner.to(dtype or args[0].dtype, copy=True), to.index or 0)
        if func is F.scaled_dot_product_attention and any(isinstance(value, OnCuda) for value in args):
            (index,) = _same_place(func, (*args, *kwargs.values()))
            return OnCuda(func(*plain(args), **plain(kwargs)), index)
        before = getattr(self.here, "cuda", None)

        def other(value: Any) -> Any:
            if (isinstance(value, torch.device) and value.type == "cuda") or (
                isinstance(value, str) and value.split(":")[0] == "cuda"
            ):
                self.here.cuda = torch.device(value).index or 0
                return torch.device("meta")
            return value

        try:
            self.here.cuda = None
            args, kwargs = tuple(map(other, args)), {key: other(value) for key, value in kwargs.items()}
            if self.here.cuda is not None and func in (torch.tensor, torch.as_tensor):  # they make them out of sight
                made = func(*args, **{**kwargs, "device": "cpu"})
                return made if isinstance(made, OnCuda) else OnCuda(made, self.here.cuda)
            return func(*args, **kwargs)
        finally:
            self.here.cuda = before


def indexed(func: Any, tensor: Tensor, index: Any, *value: Any) -> Any:
    """torch's C++ code would make the indices a tensor where it thinks that `tensor` lies."""
    index = index if isinstance(index, tuple) else (index,)
    by_tensor = any(isinstance(part, Tensor | list) for part in index)
    if any(isinstance(part, OnCuda) and _place(part) != _place(tensor) for part in index):
        raise RuntimeError("indices should be on cpu or on the device of the indexed tensor")
    # A slice takes what lies elsewhere, an index does not.
    if by_tensor and value and _has_size(value[0]):
        _same_place(func, (tensor, value[0]))
    plain_result = func(plain(tensor), plain(index), *plain(value))
    return OnCuda(plain_result, tensor.index) if isinstance(tensor, OnCuda) and not value else plain_result


def _has_size(value: Any) -> bool:
    """A number may meet a tensor anywhere."""
    return isinstance(value, Tensor) and value.dim() > 0


def _place(tensor: Tensor) -> int | None:
    """The number of its GPU; None for the CPU."""
    return tensor.index if isinstance(tensor, OnCuda) else None


def _same_place(func: Any, values: Iterable[Any]) -> set[int | None]:
    """The one place of all tensors, or none where there are no tensors."""
    places = {_place(value) for value in values if _has_size(value)}
    if len(places) > 1:
        named = " and ".join("cpu" if place is None else f"cuda:{place}" for place in places)
        raise RuntimeError(f"Expected all tensors to be on the same device, but {func} got {named}")
    return places


def plain(tree: Any) -> Any:
    return tree_map(lambda leaf: leaf.inner if isinstance(leaf, OnCuda) else leaf, tree)


class Machine(TorchDispatchMode):
    """Lets tensors be made on `cuda`."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return run(func, args, kwargs or {})


def run(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    if func is aten._has_compatible_shallow_copy_type.default:
        return False  # a module moved to a device gets new parameters
    if any(isinstance(leaf, torch.device) for leaf in args):
        with Machine():  # `to`, which is made of others
            return func.decompose(*args, **kwargs)
    tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
    there = sorted((leaf for leaf in tensors if isinstance(leaf, OnCuda)), key=_has_size)
    place = there[-1].index if there else None
    if func not in COPIES:
        _same_place(func, (leaf for leaf in tensors if isinstance(leaf, OnCuda) or leaf.device.type == "cpu"))
    to = kwargs.get("device")
    if to is not None:
        asked = getattr(Asked.here, "cuda", None) if to.type == "meta" else None
        place = (to.index or 0) if to.type == "cuda" else asked
        kwargs = {**kwargs, "device": to if place is None else torch.device("cpu")}
    plain_args, plain_kwargs = plain((args, kwargs))
    out = func(*plain_args, **plain_kwargs)
    if func._schema.is_mutable and args and isinstance(args[0], Tensor):
        return args[0]
    return out if place is None else tree_map(lambda leaf: OnCuda(leaf, place) if _is_there(leaf) else leaf, out)


def _is_there(leaf: Any) -> bool:
    return isinstance(leaf, Tensor) and leaf.device.type == "cpu"


@contextmanager
def pretend_cuda() -> Iterator[None]:
    """Inside the block there are GPUs, in this thread and in those that it starts."""
    run_thread = threading.Thread.run

    def run_there(thread: threading.Thread) -> None:
        with Machine(), Asked():
            run_thread(thread)

    with pytest.MonkeyPatch.context() as patch, Machine(), Asked():
        patch.setattr(threading.Thread, "run", run_there)
        patch.setattr(torch.cuda, "_lazy_init", lambda: None)
        # Views of tensors that were made outside do not pass through Python in inference mode.
        patch.setattr(torch, "inference_mode", torch.no_grad)
        patch.setattr(StreamedModel, "run", torch.no_grad()(StreamedModel.run.__wrapped__))  # type: ignore[attr-defined]
        patch.setattr(torch.cuda, "mem_get_info", lambda device=None: (80 << 30, 80 << 30))
        # What kernels there are is looked up once; where there is a GPU, the tests after these need another answer.
        _backend.cache_clear()
        try:
            yield
        finally:
            _backend.cache_clear()
