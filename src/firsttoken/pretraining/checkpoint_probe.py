"""What a model in training is asked at a checkpoint: does it have a sink yet, and does it need its BOS token?

The same held-out texts throughout, the beginnings of documents. Each is read twice, as it is and with BOS before it,
and the loss is taken on the same tokens both times, so that arms and rows can be compared.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from torch import Tensor

from firsttoken import statistics
from firsttoken.errors import FirstTokenError
from firsttoken.estimates import JSON
from firsttoken.measures import sinks
from firsttoken.measures.head_norms import first_over_others
from firsttoken.pretraining import designs
from firsttoken.pretraining.corpora import BOS, Corpus
from firsttoken.probe import probe
from firsttoken.probe.attention import AttentionCall
from firsttoken.probe.forward import in_batches, run_decoder
from firsttoken.probe.losses import surprise

if TYPE_CHECKING:
    from transformers import PreTrainedModel

Input = Literal["BOS+text", "text"]  # how texts are given to a model
INPUTS: tuple[Input, ...] = ("BOS+text", "text")
EPSILONS = (0.3, 0.8)


@dataclass(frozen=True)
class Seen:
    """What a model showed on texts of one length, in one arm."""

    alpha: Tensor  # (text, layer, head), mean attention to the first token, BOS or not
    value_ratio: Tensor  # (text, layer, head), value norm at the first token over the mean of the others
    loss: Tensor  # (text,), nats on the tokens of the text but its first and last
    late_alpha: Tensor  # (text, layer, head), as `alpha`, over the queries of the text's second half only
    late_loss: Tensor  # (text,), as `loss`, on the tokens that those queries predict


def held_out(corpus: Corpus, count: int, length: int) -> Tensor:
    """The first `length` tokens of held-out documents: (text, token), int64.

    Raises:
        FirstTokenError: fewer than `count` of them are that long.
    """
    numbers = corpus.numbers(held_out=True, least=length)[:count]
    if len(numbers) < count:
        raise FirstTokenError(
            f"{corpus.spec.source} has {len(numbers)} held-out documents of {length} tokens or more, fewer than "
            f"{count}; use more text or a shorter context."
        )
    return torch.from_numpy(np.stack([corpus.document(n)[:length] for n in numbers]).astype(np.int64))


def behind_bos(texts: Tensor) -> Tensor:
    """Texts (text, token) with BOS before each, as long as before: the last token of each is dropped."""
    return torch.cat([torch.full_like(texts[:, :1], BOS), texts[:, :-1]], dim=1)


def observe(model: PreTrainedModel, texts: Tensor, arm: Input, batch_tokens: int = 16_384) -> Seen:
    """Read texts (text, token) once.

    With BOS the last token of each text is dropped, so that both arms have as many tokens and queries.
    """
    if arm == "BOS+text":
        texts = behind_bos(texts)
    read = _probed if designs.design_of(model) is None else designs.read
    half = texts.shape[1] // 2
    alphas, ratios, losses, late_alphas, late_losses = [], [], [], [], []
    # Tokens 1 to length - 2 of the text are what both arms can predict.
    first, count = (1 if arm == "BOS+text" else 0), texts.shape[1] - 2
    with evaluating(model), torch.inference_mode():
        for batch in in_batches(texts, batch_tokens):
            ids = batch.to(model.device)
            # Decoder and head one by one: the Trainer has put bf16 around `model.forward`, and a probe wants float32.
            hidden, first_token, value_ratio = read(model, ids)
            logits = model.get_output_embeddings()(hidden[:, first : first + count]).float()
            alphas.append(sinks.first_token_attention(first_token).cpu())
            late_alphas.append(sinks.first_token_attention(first_token[..., half:]).cpu())
            ratios.append(value_ratio.cpu())
            goal = ids[:, first + 1 : first + 1 + count]
            each = surprise(logits, goal).double().cpu()
            losses.append(each.mean(1))
            late_losses.append(each[:, half - first :].mean(1))
    return Seen(*map(torch.cat, (alphas, ratios, losses, late_alphas, late_losses)))


def _probed(model: PreTrainedModel, ids: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """As `designs.read`, of any model that the probe can read."""
    ratios: list[Tensor] = []

    def note_values(module: Any, call: AttentionCall) -> AttentionCall:
        ratios.append(first_over_others(call.value.float().norm(dim=-1)))
        return call

    with probe(model, keys=[0], hook=note_values) as p:
        hidden = run_decoder(model, ids)
    return hidden, p.attention, torch.stack(ratios, dim=1)


@contextmanager
def evaluating(model: PreTrainedModel) -> Iterator[None]:
    """Inside the block the model is in evaluation mode; after it, in the mode it had."""
    before = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(before)


def point(model: PreTrainedModel, texts: Tensor) -> JSON:
    """Both arms in short, for a curve: rates, mass, value-norm ratio and loss."""
    return {arm: _short(observe(model, texts, arm)) for arm in INPUTS}


def _short(seen: Seen) -> JSON:
    return {
        **{f"sink_rate_{epsilon}": round(float(sinks.sink_rate(seen.alpha, epsilon)), 5) for epsilon in EPSILONS},
        "mass": round(float(seen.alpha.mean()), 5),
        "value_norm_ratio": round(float(seen.value_ratio.mean()), 4),
        "loss": round(float(seen.loss.mean()), 5),
    }


def in_full(model: PreTrainedModel, texts: Tensor, seed: int = 0) -> JSON:
    """Both arms with 95 % intervals over texts, and alpha of every head (layer, head).

    `second_half` has mass and loss of the queries from the middle of the text on, for models that were trained there
    only. `missing_bos` is what leaving BOS out changes, text by text: the arm `text` minus the arm `BOS+text`.
    """
    summary: JSON = {}
    both = {arm: observe(model, texts, arm) for arm in INPUTS}
    for arm, seen in both.items():
        summary[arm] = {
            **{
                f"sink_rate_{epsilon}": asdict(sinks.sink_rate_estimate(seen.alpha, epsilon, seed=seed))
                for epsilon in EPSILONS
            },
            "sink_rate_0.3_average_first": asdict(
                sinks.sink_rate_estimate(seen.alpha, EPSILONS[0], "average_first", seed=seed)
            ),
            "mass": asdict(statistics.bootstrap(seen.alpha, seed=seed)),
            "value_norm_ratio": asdict(statistics.bootstrap(seen.value_ratio, seed=seed)),
            "loss": asdict(statistics.bootstrap(seen.loss, seed=seed)),
            "alpha": [[round(value, 4) for value in layer] for layer in seen.alpha.mean(0).tolist()],
            "second_half": {
                "mass": asdict(statistics.bootstrap(seen.late_alpha, seed=seed)),
                "loss": asdict(statistics.bootstrap(seen.late_loss, seed=seed)),
            },
        }
    with_bos, without = both["BOS+text"], both["text"]
    rates = [(seen.alpha > EPSILONS[0]).double().mean((1, 2)) for seen in (without, with_bos)]
    summary["missing_bos"] = {
        "sink_rate_0.3": asdict(statistics.bootstrap(rates[0] - rates[1], seed=seed)),
        "mass": asdict(statistics.bootstrap((without.alpha - with_bos.alpha).mean((1, 2)), seed=seed)),
        "loss": asdict(statistics.bootstrap(without.loss - with_bos.loss, seed=seed)),
    }
    return summary
