"""What skipping where a head rests takes on this processor: time beside full attention, as a ratio within one run.

    python benchmarks/skipping.py                   # every layer of a bundled model at T = 2048
    python benchmarks/skipping.py --record          # also write the record that the book shows

Each layer's queries, keys and values of a real text are taken from a run of the model. Full attention is the fused
kernel that the model uses. Skipping is written in plain tensor operations: the first token and a window for every
query, in blocks; then, for the queries of each head at which it does not rest, all keys. The ways take turns, the
fastest of several rounds counts, and the outputs are held against attention under a mask that forbids what is skipped.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from firsttoken import estimates, models, records, texts
from firsttoken.claims.compression.skipping import THRESHOLDS, allowed, at_rest, skip
from firsttoken.probe import probe
from firsttoken.probe.attention import AttentionCall, attend
from firsttoken.probe.forward import run_decoder

BLOCK = 64  # queries that read a window together
CHUNK = 128  # queries of one head that read everything together


def skipping_attention(call: AttentionCall, window: int, threshold: float) -> tuple[Tensor, Tensor]:
    """Causal attention of one text in which queries at rest read the first token and the newest `window` keys.

    Args:
        call: without a mask of its own, a soft cap or sink logits.

    Returns:
        output  # (1, head, query, value_dim)
        rests   # (1, head, query), bool, the queries that skipped
    """
    query, key, value = call.query[0], call.key[0], call.value[0]  # (head, token, dim)
    length = query.shape[1]
    out, first = _near(query, key, value, call.scale, window)
    far = torch.arange(length) > window
    rests = (first > threshold) & far
    working = ~rests & far
    for head in range(len(query)):
        for some in working[head].nonzero()[:, 0].split(CHUNK):
            if len(some) == 0:
                continue
            end = int(some[-1]) + 1
            mask = torch.arange(end) <= some[:, None]
            part = (x[head : head + 1, :end] for x in (key, value))
            out[head, some] = F.scaled_dot_product_attention(
                query[head : head + 1, some], *part, attn_mask=mask, scale=call.scale
            )[0]
    return out[None], rests[None]


def _near(query: Tensor, key: Tensor, value: Tensor, scale: float, window: int) -> tuple[Tensor, Tensor]:
    """Attention to the first token and the window alone, (head, query, value_dim), and the first token's share of it,
    (head, query)."""
    length = query.shape[1]
    blocks = -(-length // BLOCK)
    behind = -length % BLOCK

    def in_blocks(x: Tensor) -> Tensor:
        """(head, block, 1 + window - 1 + BLOCK, dim): the first token, then the keys of a block's windows."""
        near = F.pad(x, (0, 0, window - 1, behind)).unfold(1, window - 1 + BLOCK, BLOCK).transpose(-1, -2)
        return torch.cat([x[:, None, :1].expand(-1, blocks, -1, -1), near], dim=2)

    places = torch.arange(blocks)[:, None] * BLOCK - (window - 1) + torch.arange(window - 1 + BLOCK)  # (block, key)
    asked = torch.arange(blocks)[:, None] * BLOCK + torch.arange(BLOCK)  # (block, query)
    back = asked[..., None] - places[:, None, :]  # (block, query, key)
    read = (back >= 0) & (back < window) & (places[:, None, :] > 0)
    read = torch.cat([torch.ones(blocks, BLOCK, 1, dtype=torch.bool), read], dim=2)
    rows = F.pad(query, (0, 0, 0, behind)).unflatten(1, (blocks, BLOCK))
    scores = (rows @ in_blocks(key).transpose(-1, -2)) * scale
    weights = scores.masked_fill(~read, -torch.inf).softmax(-1)
    out = (weights @ in_blocks(value)).flatten(1, 2)[:, :length]
    return out, weights[..., 0].flatten(1, 2)[:, :length]


def calls_of(lm: models.LanguageModel, length: int) -> list[AttentionCall]:
    """The attention of each layer on a text of `length` tokens."""
    ids = texts.windows(lm, texts.long_text(), length, 1)
    calls: list[AttentionCall] = []

    def keep(module: Any, call: AttentionCall) -> AttentionCall:
        calls.append(AttentionCall(call.query, call.key, call.value, call.scale, causal=True))
        return call

    with torch.inference_mode(), probe(lm.model, hook=keep):
        run_decoder(lm.model, ids)
    return calls


def seconds(run: Callable[[], object]) -> float:
    """How long one call takes."""
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def measure(lm: models.LanguageModel, length: int, window: int, repeats: int) -> Callable[[], estimates.JSON]:
    """Of all layers together: `full_seconds`; by threshold `time_ratio` (skipping / full), `scores_left`,
    `largest_difference` of any output from attention under a mask, and `decided_otherwise`, the share of queries at
    which rounding put the first token's share on the other side of the threshold than in `at_rest`."""

    def run() -> estimates.JSON:
        calls = calls_of(lm, length)
        values: estimates.JSON = {"length": length, "window": window, "threads": torch.get_num_threads(), "arms": []}
        with torch.inference_mode():
            for threshold in THRESHOLDS:
                full, skipping, differences, left, scores, otherwise = 0.0, 0.0, [], 0, 0, []
                for call in calls:
                    ways = (partial(attend, call), partial(skipping_attention, call, window, threshold))
                    seen, rests = ways[1]()
                    masked = skip(call, window, rests)
                    differences.append(float((attend(masked)[0] - seen).abs().max()))
                    otherwise.append(float((rests != at_rest(call, window, threshold)).double().mean()))
                    left += int(allowed(masked).sum())
                    scores += int(allowed(call).sum())
                    turns = [[seconds(way) for way in ways] for _ in range(repeats)]
                    full += min(one for one, _ in turns)
                    skipping += min(one for _, one in turns)
                values["full_seconds"] = full
                arm = {
                    "threshold": threshold,
                    "time_ratio": skipping / full,
                    "scores_left": left / scores,
                    "largest_difference": max(differences),
                    "decided_otherwise": sum(otherwise) / len(otherwise),
                }
                values["arms"].append(arm)
                print(json.dumps(arm), flush=True)
        return values

    return run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="smollm2-135m", help="one whose layers all see the whole text")
    parser.add_argument("--length", type=int, default=2048)
    parser.add_argument("--window", type=int, default=32)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--record", action="store_true", help="write results/local/benchmark_skipping/<model>.json")
    args = parser.parse_args()
    lm = models.load(args.model, device="cpu", dtype="float32")
    run = measure(lm, args.length, args.window, args.repeats)
    if not args.record:
        run()
        return
    records.reuse_or_measure(
        "benchmark_skipping",
        model=lm,
        parameters={"length": args.length, "window": args.window, "repeats": args.repeats},
        texts_hash=texts.texts_hash([texts.long_text()]),
        measure=run,
        fresh=True,
    )


if __name__ == "__main__":
    main()
