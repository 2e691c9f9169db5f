"""Attention that also returns its log-sum-exp, from the fused kernels that already compute it.

One softmax row is A[j, s] = exp(score[j, s] - lse[j]) with score = scale * q_j . k_s. Whoever has `lse` can have any
entry of A for one dot product, without the T x T matrix. `row_statistics.py` and `attention_probe.py` build on this.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import forward_ad

CHUNK = 1024  # queries at a time, wherever scores or an additive mask must exist for a moment


@dataclass(frozen=True)
class AttentionCall:
    """One attention operation, with keys and values already repeated for grouped queries.

    `mask` is boolean (True: may attend) or additive, broadcastable to (batch, head, query, key); `None` with
    `causal` means the ordinary causal mask. `softcap` c replaces a score s by c * tanh(s / c) (Gemma 2).
    `sink_logits` adds one virtual key without a value to every row (gpt-oss).

    Keys are those of the text's tokens 0, 1, 2 ..., unless a cache has dropped some: then `positions` says which are
    left. Queries belong to the newest keys unless `first_query` says otherwise (a cache with slots still empty).
    """

    query: Tensor  # (batch, head, query, dim)
    key: Tensor  # (batch, head, key, dim)
    value: Tensor  # (batch, head, key, value_dim)
    scale: float
    mask: Tensor | None = None
    causal: bool = False
    softcap: float | None = None
    sink_logits: Tensor | None = None  # (1 or batch, head, 1 or query, 1)
    positions: Tensor | None = None  # (key,), places in the text
    first_query: int | None = None  # place in the text of the first query

    def key_positions(self) -> Tensor:
        """The place in the text of each key, (key,)."""
        if self.positions is not None:
            return self.positions.to(self.key.device)
        return torch.arange(self.key.shape[2], device=self.key.device)

    def query_positions(self) -> Tensor:
        """The place in the text of each query, (query,)."""
        queries = self.query.shape[2]
        if self.first_query is None:
            return self.key_positions()[-queries:]
        return torch.arange(self.first_query, self.first_query + queries, device=self.key.device)

    def rows(self, chunk: int = CHUNK) -> Iterator[AttentionCall]:
        """The same call for `chunk` queries at a time.

        A causal mask is made explicit, and keys outside the range that these rows may attend to are cut off, so
        that a sliding window costs what its width says.
        """
        queries, keys = self.query.shape[2], self.key.shape[2]
        for start in range(0, queries, chunk):
            stop = min(start + chunk, queries)
            mask, key, value = self.mask, self.key, self.value
            if mask is None and self.causal:
                position = torch.arange(start, stop, device=key.device)[:, None]
                mask = (torch.arange(keys, device=key.device) <= position)[None, None]
            elif mask is not None and mask.shape[2] > 1:
                mask = mask[:, :, start:stop]
            if mask is not None and mask.dtype == torch.bool and mask.shape[3] == keys:
                used = mask.any(2).flatten(0, 1).any(0).nonzero()
                first, last = (int(used[0]), int(used[-1]) + 1) if len(used) else (0, 1)
                mask, key, value = mask[..., first:last], key[:, :, first:last], value[:, :, first:last]
            sink = self.sink_logits
            if sink is not None and sink.shape[2] > 1:
                sink = sink[:, :, start:stop]
            query = self.query[:, :, start:stop]
            # Nobody asks a part for places in the text.
            part = replace(self, query=query, key=key, value=value, mask=mask, causal=False, sink_logits=sink)
            yield replace(part, positions=None, first_query=None)


def scores(call: AttentionCall, key: Tensor) -> Tensor:
    """scale * q . k in float32 for a selection of keys (batch, head, some, dim), soft-capped where the model is.

    Returns:
        scores  # (batch, head, query, some), without the mask
    """
    logits = (call.query.float() @ key.float().transpose(-1, -2)) * call.scale
    return logits if call.softcap is None else call.softcap * torch.tanh(logits / call.softcap)


def additive(mask: Tensor) -> Tensor:
    """A mask as float32 numbers to add to the scores: 0 or -inf for a boolean one."""
    if mask.dtype != torch.bool:
        return mask.float()
    return torch.zeros(mask.shape, dtype=torch.float32, device=mask.device).masked_fill_(~mask, -torch.inf)


def plain_scores(call: AttentionCall) -> Tensor:
    """All scores of a call with its mask, (batch, head, query, key), float32. For chunks and for tests."""
    logits = scores(call, call.key)
    if call.mask is not None:
        logits = logits + additive(call.mask)
    elif call.causal:
        blocked = torch.ones(logits.shape[-2:], dtype=torch.bool, device=logits.device).triu(1)
        logits = logits.masked_fill(blocked, -torch.inf)
    return logits


def log_sum_exp(logits: Tensor, sink_logits: Tensor | None) -> Tensor:
    """log of the softmax's denominator, (batch, head, query); the virtual key of `sink_logits` counts."""
    if sink_logits is not None:
        virtual = sink_logits.float().expand(*logits.shape[:3], 1)
        logits = torch.cat([logits, virtual], dim=-1)
    return torch.logsumexp(logits, dim=-1)


def attend(call: AttentionCall, plain: bool = False) -> tuple[Tensor, Tensor]:
    """Attention output and log-sum-exp by the fastest exact way there is for this call.

    Args:
        plain: by plain tensor operations, which have every derivative: fused kernels have no second one and none in
            forward mode. Inside a level of forward mode, it is so in any case.

    Returns:
        output  # (batch, head, query, value_dim), dtype of the query
        lse     # (batch, head, query), float32; -inf where a row may attend to nothing
    """
    plain = plain or forward_ad._current_level >= 0
    if not plain and call.softcap is None and call.sink_logits is None and _is_boolean(call.mask):
        backend = _backend(call.query.device.type, call.query.dtype, call.mask is None, _width(call))
        if backend is not None:
            return backend(call)
    return attend_chunked(call)


def attend_chunked(call: AttentionCall) -> tuple[Tensor, Tensor]:
    """The same from plain tensor operations, CHUNK queries at a time: any device, any mask, the reference."""
    outputs, sums = [], []
    for part in call.rows():
        logits = plain_scores(part)
        lse = log_sum_exp(logits, part.sink_logits)
        weights = torch.exp(logits - lse.nan_to_num(neginf=0.0)[..., None])
        outputs.append((weights.to(part.value.dtype) @ part.value).to(call.query.dtype))
        sums.append(lse)
    return torch.cat(outputs, dim=2), torch.cat(sums, dim=2)


def _is_boolean(mask: Tensor | None) -> bool:
    return mask is None or mask.dtype == torch.bool


# -- fused kernels ------------------------------------------------------------------------------------------


def _width(call: AttentionCall) -> int:
    """The one head size that a kernel gets: values may be wider than queries."""
    return max(call.query.shape[-1], call.value.shape[-1])


def _equal_widths(call: AttentionCall, multiple: int = 1) -> AttentionCall:
    # Zeros appended to q and k leave every score as it is; those appended to v are cut off again by the caller.
    width = -(-_width(call) // multiple) * multiple
    query, key, value = (F.pad(x, (0, width - x.shape[-1])) for x in (call.query, call.key, call.value))
    return replace(call, query=query, key=key, value=value)


def _cpu_flash(call: AttentionCall) -> tuple[Tensor, Tensor]:
    width = call.value.shape[-1]
    call = _equal_widths(call)
    kernel = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
    if call.mask is None:
        output, lse = kernel(call.query, call.key, call.value, 0.0, call.causal, scale=call.scale)
        return output[..., :width], lse.float()
    outputs, sums = [], []
    for part in call.rows():
        assert part.mask is not None
        mask = additive(part.mask).to(part.query.dtype)
        output, lse = kernel(part.query, part.key, part.value, 0.0, False, attn_mask=mask, scale=part.scale)
        # A row that may attend to nothing comes back as not-a-number from some versions of the kernel.
        empty = ~part.mask.any(-1)
        outputs.append(output[..., :width].masked_fill(empty[..., None], 0.0))
        sums.append(lse.float().masked_fill(empty, -torch.inf))
    return torch.cat(outputs, dim=2), torch.cat(sums, dim=2)


def _cuda_flash(call: AttentionCall) -> tuple[Tensor, Tensor]:
    width = call.value.shape[-1]
    call = _equal_widths(call, multiple=8)
    kernel = torch.ops.aten._scaled_dot_product_flash_attention
    output, lse, *_ = kernel(call.query, call.key, call.value, 0.0, call.causal, scale=call.scale)
    return output[..., :width], lse.float()


def _cuda_efficient(call: AttentionCall) -> tuple[Tensor, Tensor]:
    width = call.value.shape[-1]
    # It reads rows of sixteen bytes.
    call = _equal_widths(call, multiple=16 // call.query.element_size())
    kernel = torch.ops.aten._scaled_dot_product_efficient_attention
    outputs, sums = [], []
    for part in [call] if call.mask is None else call.rows():
        bias, empty = None, None
        if part.mask is not None:
            shape = (*part.query.shape[:3], part.key.shape[2])
            # The kernel reads the bias in rows of sixteen bytes or more, so rows are padded in memory.
            padded = F.pad(additive(part.mask).to(part.query.dtype), (0, -shape[-1] % 16))
            bias = padded[..., : shape[-1]].expand(shape)
            empty = ~part.mask.any(-1)
        output, lse, *_ = kernel(part.query, part.key, part.value, bias, True, 0.0, part.causal, scale=part.scale)
        output, lse = (
            output[..., :width],
            lse[..., : part.query.shape[2]].float(),
        )  # lse comes padded to 32 queries
        if empty is not None:
            output, lse = output.masked_fill(empty[..., None], 0.0), lse.masked_fill(empty, -torch.inf)
        outputs.append(output)
        sums.append(lse)
    return torch.cat(outputs, dim=2), torch.cat(sums, dim=2)


_Backend = Callable[[AttentionCall], tuple[Tensor, Tensor]]


def _candidates(device: str, dtype: torch.dtype, unmasked: bool, width: int) -> list[_Backend]:
    """The kernels that take such inputs, the fastest first."""
    if device == "cpu":
        return [_cpu_flash]
    if device != "cuda":
        return []
    half = dtype in (torch.float16, torch.bfloat16)
    return [_cuda_flash, _cuda_efficient] if half and unmasked and width <= 256 else [_cuda_efficient]


@cache
def _backend(device: str, dtype: torch.dtype, unmasked: bool, width: int) -> _Backend | None:
    """The fused kernel for these inputs, or None. Each is compared once with `attend_chunked` on a small random
    input, because these operators are internal to torch and their conventions could change between versions."""
    candidates = _candidates(device, dtype, unmasked, width)
    if not candidates:
        return None
    for candidate in candidates:
        if _agrees(candidate, device, dtype, unmasked, width):
            return candidate
    warnings.warn(
        f"No fused attention kernel of torch {torch.__version__} gives a right log-sum-exp on {device} in {dtype}; "
        "the slower exact path is used.",
        stacklevel=2,
    )
    return None


def _agrees(candidate: _Backend, device: str, dtype: torch.dtype, unmasked: bool, width: int) -> bool:
    generator = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(2, 2, 37, width, generator=generator).to(device, dtype) for _ in range(3))
    mask = None
    if not unmasked:
        mask = torch.ones(2, 1, 37, 37, dtype=torch.bool).tril()
        mask[0, :, :, :5] = False  # left padding: five rows that may attend to nothing
        mask = mask.to(device)
    call = AttentionCall(q, k, v, width**-0.5, mask, causal=unmasked)
    try:
        output, lse = candidate(call)
    except (RuntimeError, NotImplementedError):
        return False
    expected_output, expected_lse = attend_chunked(call)
    tolerance = 1e-4 if dtype == torch.float32 else 3e-2
    close = torch.allclose(output.float(), expected_output.float(), atol=tolerance, rtol=tolerance)
    return close and torch.allclose(lse, expected_lse, atol=tolerance, rtol=tolerance)
