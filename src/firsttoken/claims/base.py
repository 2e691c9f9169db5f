"""The claims this book tests, in the order of the verdict board.

What the paper says is put together from `results/paper.json`, so that no number is typed twice. A claim whose
measurement has no record yet stays on the board as "not measured yet".
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Claim:
    """One claim; its records are `<store>/<id>/*.json`, and the board shows `values[headline]` of each."""

    id: str
    chapter: str
    statement: str
    paper: str  # what the paper reports; `{key:format}` stands for a number of `results/paper.json`
    headline: str
    headline_name: str  # what the headline number is, in a few words
    format: str = ".1%"


CLAIMS = (
    Claim(
        "sink_rates",
        "sink_rates",
        "Many heads of LLaMa 3.1 attend mostly to the first token, and more of them do in larger models.",
        "share of heads above ε = {llama.epsilon}: "
        "{llama.meta-llama-llama-3-1-8b.sink_rate:.2%} (8B), "
        "{llama.meta-llama-llama-3-1-70b.sink_rate:.2%} (70B), "
        "{llama.meta-llama-llama-3-1-405b.sink_rate:.2%} (405B)",
        "sink_rate",
        "share of sink heads",
    ),
    Claim(
        "perturbation",
        "perturbation",
        "With the sink, the effect of changing one token stays local until the late layers.",
        "figure only, Gemma 7B: without BOS the change reaches more tokens, in earlier layers",
        "spread_ratio",
        "spread without BOS / with BOS",
        ".2f",
    ),
    Claim(
        "smoothing",
        "smoothing",
        "Without the sink, attention is smoother: each row spreads over more tokens.",
        "figure only, Gemma 7B: attention maps look smoother without BOS",
        "effective_tokens_ratio",
        "effective number of tokens without BOS / with BOS",
        ".2f",
    ),
    Claim(
        "jacobian",
        "jacobian",
        "With the sink, tokens are less sensitive to each other.",
        "argued from the over-squashing bound, not measured on its own",
        "sensitivity_ratio",
        "sensitivity without BOS / with BOS",
        ".2f",
    ),
    Claim(
        "no_op",
        "no_op",
        "A head with nothing to do attends to the first token, whose value is small: an approximate no-op.",
        "{apostrophe_head.model}, layer {apostrophe_head.layer}, head {apostrophe_head.head}: value norm "
        "{apostrophe_head.bos_value_norm:.0f} at BOS, {apostrophe_head.apostrophe_value_norm:.0f} at the "
        "apostrophe",
        "value_norm_ratio",
        "value norm, first token / others",
        ".2f",
    ),
    Claim(
        "removal",
        "removal",
        "A model trained with BOS at the start loses its abilities without it.",
        "{removal.model}, with and without BOS: "
        "ARC-E {removal.ARC-E.with:.2%} and {removal.ARC-E.without:.2%}, "
        "HellaSwag {removal.HellaSwag.with:.2%} and {removal.HellaSwag.without:.2%}, "
        "RULER-4096 {removal.RULER-4096.with:.2%} and {removal.RULER-4096.without:.2%}",
        "loss_increase",
        "increase of the loss without BOS",
        ".2f",
    ),
    Claim(
        "where",
        "where",
        "The sink sits on the first place whatever stands there, unless BOS was always there in training.",
        "argued from training with and without a fixed BOS, see the claim on packing",
        "first_token_kept",
        "first-token mass kept with a random first token",
        ".0%",
    ),
    Claim(
        "context_length",
        "context_length",
        "Pretraining on longer contexts makes sinks stronger.",
        "share of sink heads {context_length.128:.0%} at 128 tokens, {context_length.2048:.0%} at "
        "2048 (read off a figure)",
        "sink_rate_longest",
        "share of sink heads at the longest context",
    ),
    Claim(
        "packing",
        "packing",
        "How documents are packed, and whether BOS is fixed at the start, decides where the sink forms.",
        "share of sink heads {packing.rows.0.sink_rate:.2%} without BOS, {packing.rows.2.sink_rate:.2%} with "
        "BOS fixed, {packing.rows.3.sink_rate:.2%} when a fixed BOS is missing at inference",
        "sink_rate_fixed_bos",
        "share of sink heads, BOS fixed",
    ),
    Claim(
        "theory",
        "theory",
        "Rank collapse implies representational collapse, and a sum over attention paths bounds how far a "
        "change can travel.",
        "a proposition and a theorem; no numbers",
        "bound_over_jacobian",
        "log10 of bound / measured Jacobian",
        ".1f",
    ),
    Claim(
        "scale",
        "scale",
        "In the largest model most of the attention goes to the first token.",
        "{mass_405b.value:.0%} of the attention mass in LLaMa 3.1 405B",
        "mass_first",
        "attention mass on the first token",
    ),
    Claim(
        "kv_cache",
        "kv_cache",
        "Keeping the first tokens in the cache is enough to keep a sliding window working (StreamingLLM).",
        "discussed there as related work, not measured",
        "perplexity_ratio",
        "perplexity, window with sinks / full cache",
        ".2f",
    ),
    Claim(
        "quantisation",
        "quantisation",
        "Sink tokens carry the outliers, so quantising them hurts most (IntactKV, KVSink).",
        "discussed there as related work, not measured",
        "loss_saved",
        "loss saved by keeping sinks in high precision",
        ".2f",
    ),
    Claim(
        "robustness",
        "robustness",
        "The sink makes a model less sensitive to small changes of its input.",
        "argued from the over-squashing bound, not measured on its own",
        "sensitivity_ratio",
        "sensitivity without the sink / with it",
        ".2f",
    ),
)
