"""Which fused kernel computes an attention call: a choice that can be looked at where no GPU is."""

from __future__ import annotations

import pytest
import torch

from firsttoken.probe import attention
from firsttoken.probe.attention import AttentionCall, attend, attend_chunked


@pytest.mark.parametrize(
    ("dtype", "unmasked", "width", "names"),
    [
        (torch.bfloat16, True, 256, ["_cuda_flash", "_cuda_efficient"]),
        (torch.float16, True, 64, ["_cuda_flash", "_cuda_efficient"]),
        (torch.bfloat16, True, 257, ["_cuda_efficient"]),  # the flash kernel takes 256 at most
        (torch.bfloat16, False, 64, ["_cuda_efficient"]),  # and no mask
        (torch.float32, True, 64, ["_cuda_efficient"]),  # and no float32
    ],
)
def test_kernels_of_a_gpu(dtype: torch.dtype, unmasked: bool, width: int, names: list[str]) -> None:
    assert [kernel.__name__ for kernel in attention._candidates("cuda", dtype, unmasked, width)] == names


def test_a_kernel_is_chosen_by_the_wider_of_queries_and_values(monkeypatch: pytest.MonkeyPatch) -> None:
    """Path sums read 298 values from heads of 64."""
    asked: list[int] = []
    monkeypatch.setattr(attention, "_backend", lambda device, dtype, unmasked, width: asked.append(width))
    for query, value in ((64, 298), (64, 12)):
        q, k, v = (torch.randn(1, 2, 5, width) for width in (query, query, value))
        attend(AttentionCall(q, k, v, 1.0, causal=True))
    assert asked == [298, 64]


@pytest.mark.parametrize("multiple", [1, 4, 8])
@pytest.mark.parametrize("value", [5, 12, 37])
def test_one_head_size_changes_no_number(value: int, multiple: int) -> None:
    q, k, v = (torch.randn(2, 3, 9, width) for width in (12, 12, value))
    call = AttentionCall(q, k, v, 0.3, causal=True)
    wider = attention._equal_widths(call, multiple)
    sizes = {part.shape[-1] for part in (wider.query, wider.key, wider.value)}
    assert len(sizes) == 1
    assert sizes.pop() % multiple == 0
    output, lse = attend_chunked(wider)
    expected, expected_lse = attend_chunked(call)
    torch.testing.assert_close(output[..., :value], expected)
    torch.testing.assert_close(lse, expected_lse)
