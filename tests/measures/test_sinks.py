"""Definitions against loops and closed forms."""

from __future__ import annotations

import pytest
import torch

from firsttoken import statistics
from firsttoken.claims.sink_rates.measure import window_plan
from firsttoken.errors import FirstTokenError
from firsttoken.measures import sinks


def test_sink_rate_against_a_loop() -> None:
    alpha = torch.rand(7, 3, 5, generator=torch.Generator().manual_seed(0))
    for epsilon in (0.2, 0.5, 0.8):
        count = sum(float(alpha[p, layer, h]) > epsilon for p in range(7) for layer in range(3) for h in range(5))
        assert sinks.sink_rate(alpha, epsilon).item() == pytest.approx(count / 105)
        means = [sum(float(alpha[p, layer, h]) for p in range(7)) / 7 for layer in range(3) for h in range(5)]
        expected = sum(mean > epsilon for mean in means) / 15
        assert sinks.sink_rate(alpha, epsilon, "average_first").item() == pytest.approx(expected)
        by_layer = [sum(float(a) > epsilon for a in alpha[:, layer].flatten()) / 35 for layer in range(3)]
        assert sinks.sink_rate_by_layer(alpha, epsilon).tolist() == pytest.approx(by_layer)


def test_the_two_orders_differ_as_they_should() -> None:
    """A head that is a sink in half of the passages counts half in one order and not at all in the other."""
    alpha = torch.tensor([0.9, 0.1]).reshape(2, 1, 1)
    assert sinks.sink_rate(alpha, 0.6).item() == 0.5
    assert sinks.sink_rate(alpha, 0.6, "average_first").item() == 0.0


def test_uniform_attention_has_a_known_alpha() -> None:
    """Attention spread evenly gives alpha = H_T / T, H_T the harmonic number; query 0 counts."""
    length = 64
    rows = 1 / torch.arange(1, length + 1)
    alpha = sinks.first_token_attention(rows.expand(2, 3, 4, length))
    assert alpha.shape == (3, 2, 4)
    assert alpha[0, 0, 0].item() == pytest.approx(sum(1 / (j + 1) for j in range(length)) / length)


def test_padding_queries_are_left_out() -> None:
    attention = torch.rand(2, 3, 4, 6)
    real = torch.tensor([[0, 0, 1, 1, 1, 1], [1, 1, 1, 1, 1, 1], [1, 1, 1, 0, 0, 0]]).bool()
    alpha = sinks.first_token_attention(attention.masked_fill(~real[None, :, None, :], torch.nan), real)
    for row in range(3):
        torch.testing.assert_close(alpha[row], attention[:, row][..., real[row]].mean(-1))


def test_bootstrap_interval_has_the_right_width_and_coverage() -> None:
    """For a mean of n normal numbers the interval is close to +-1.96 s / sqrt(n), and holds the truth 95 % of the
    time."""
    generator = torch.Generator().manual_seed(0)
    covered, n = 0, 100
    for trial in range(200):
        sample = torch.randn(n, generator=generator)
        estimate = statistics.bootstrap(sample, resamples=400, seed=trial)
        covered += estimate.low <= 0 <= estimate.high
        if trial == 0:
            assert estimate.high - estimate.low == pytest.approx(2 * 1.96 * sample.std().item() / n**0.5, rel=0.15)
            assert estimate.n == n
            assert estimate.value == pytest.approx(sample.mean().item())
    assert 0.89 <= covered / 200 <= 0.99


def test_bootstrap_of_a_statistic_equals_the_mean_where_the_statistic_is_the_mean() -> None:
    sample = torch.rand(40, 2, 3)
    one, other = statistics.bootstrap(sample), statistics.bootstrap(sample, lambda drawn: drawn.mean())
    assert (one.value, one.low, one.high) == pytest.approx((other.value, other.low, other.high), abs=1e-12)


@pytest.mark.parametrize("epsilon", [0, 1, -0.1, 1.5, float("nan")])
def test_epsilon_outside_the_unit_interval(epsilon: float) -> None:
    with pytest.raises(FirstTokenError, match="between 0 and 1"):
        sinks.sink_rate(torch.rand(2, 2, 2), epsilon)


def test_one_text_gives_no_interval() -> None:
    with pytest.raises(FirstTokenError, match=r"at least two of what it is over .*, not 1;"):
        statistics.bootstrap(torch.rand(1, 2, 2))


def test_windows_cover_every_length_once() -> None:
    lengths = [2**power for power in range(4, 14)]
    plan = window_plan(lengths, 8192)
    assert [length for *_, group in plan for length in group] == lengths
    assert all(count >= 2 and window == group[-1] for window, count, group in plan)
