"""Token or place: what makes a sink, and where else do sinks form?

The same passages are read in several ways that pull the two apart: another token in first place, the first token
moved into the text, BOS left out or put in twice, the window shifted, the position numbers shifted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from firsttoken import statistics, texts
from firsttoken.claims.sink_position.verdict import judge
from firsttoken.errors import FirstTokenError
from firsttoken.estimates import JSON
from firsttoken.execution.shared_pass import together
from firsttoken.measures import sinks
from firsttoken.measures.ablations import drawn_tokens
from firsttoken.measures.measurement import Measurement
from firsttoken.models import LanguageModel
from firsttoken.models.out_of_memory import explain_out_of_memory
from firsttoken.probe import probe
from firsttoken.probe.forward import in_batches, run_decoder
from firsttoken.probe.residual_stream import watch
from firsttoken.progress import tracked
from firsttoken.ranges import at_least, in_range
from firsttoken.texts.token_classes import decode

Reading = Literal[
    "as it is",
    "without BOS",
    "with BOS",
    "BOS inside",
    "another first token",
    "swapped",
    "window shifted",
    "renumbered",
]
READINGS: tuple[Reading, ...] = get_args(Reading)
MEANING: dict[Reading, str] = {
    "as it is": "what the tokenizer gives",
    "without BOS": "BOS left out",
    "with BOS": "BOS put first",
    "BOS inside": "BOS in the middle of the text as well",
    "another first token": "a random token in first place",
    "swapped": "the first token and the one in the middle exchanged",
    "window shifted": "the text from its ninth token on, nothing before it",
    "renumbered": "position numbers that start at 64",
}
SHIFT = 8
RENUMBERED = 64
TAIL = 8  # the last keys are seen by so few queries that their means say little
SHORTEST = 24  # tokens of a reading, so that there are places inside it before the tail


@dataclass(frozen=True, kw_only=True)
class Parameters:
    """What is asked: how many texts, of which length, are read in all the ways of `MEANING`."""

    text_source: str = "passages"  # see `texts.texts_from`
    passages: int = 16  # how many texts
    length: int = 64  # tokens of each reading, BOS included
    epsilon: float = 0.3  # a key is a sink of a head above this mean attention
    seed: int = 0  # of the random first tokens and the bootstrap
    batch_tokens: int = 512
    execution: str = "auto"  # resident, streamed; see `shared_pass.together`

    def __post_init__(self) -> None:
        in_range(self)
        sinks.check_epsilon(self.epsilon)
        at_least(2, passages=self.passages)
        if self.length < SHORTEST:
            raise FirstTokenError(
                f"Places inside the text need a length of {SHORTEST} tokens or more, not {self.length}."
            )


@dataclass(frozen=True)
class Inputs:
    """One reading: token numbers, where to look beside position 0, and position numbers if not 0, 1, 2 ..."""

    ids: Tensor  # (text, token)
    second: int | None = None  # a position whose attention is of interest too
    positions: Tensor | None = None  # (1, token)


def passages(parameters: Parameters) -> list[str]:
    """The texts that the parameters choose."""
    return texts.exactly(parameters.text_source, parameters.passages)


def readings(lm: LanguageModel, passages: Sequence[str], length: int, seed: int) -> dict[Reading, Inputs]:
    """Every reading that makes sense for a model, all of the same length.

    The first text token is itself in first place where the tokenizer puts no BOS there. What a tokenizer without a BOS
    token puts first counts as one.
    """
    longer = texts.encode(lm, passages, length + SHIFT, "never")
    plain = longer[:, :length]
    own = texts.encode(lm, passages, length, "auto")
    middle = length // 2
    inputs: dict[Reading, Inputs] = {"as it is": Inputs(own)}
    bos = lm.tokenizer.bos_token_id
    if bos is None and lm.prepends_bos:
        bos = lm.prefix("auto")[0]
    if bos is not None:
        if lm.prepends_bos:
            inputs["without BOS"] = Inputs(plain)
        else:
            inputs["with BOS"] = Inputs(texts.encode(lm, passages, length, "always"))
        inside = own.clone()
        inside[:, middle] = bos
        inputs["BOS inside"] = Inputs(inside, middle)
    other = own.clone()
    other[:, 0] = drawn_tokens(plain[:, 1:].flatten(), len(own), seed)
    inputs["another first token"] = Inputs(other)
    swapped = own.clone()
    swapped[:, 0], swapped[:, middle] = own[:, middle], own[:, 0]
    inputs["swapped"] = Inputs(swapped, middle)
    inputs["window shifted"] = Inputs(longer[:, SHIFT:])
    if lm.longest_input is None or RENUMBERED + length <= lm.longest_input:
        inputs["renumbered"] = Inputs(own, None, torch.arange(RENUMBERED, RENUMBERED + length)[None])
    return inputs


def profiles(lm: LanguageModel, inputs: Inputs, batch_tokens: int = 512) -> tuple[Tensor, Tensor]:
    """alpha_k of every key k: the mean attention of the queries from k + 1 on, those that may and need not attend
    to it. Query k itself is left out, so that the first key gains nothing from being alone.

    Returns:
        alpha   # (text, layer, head, key), float32, on the CPU; 0 for the last key
        hidden  # (text, layer + 1, token, width), the residual stream before any final norm, at positions 0 and
                # length // 4 only, float32
    """
    length = inputs.ids.shape[1]
    seen = torch.arange(length - 1, -1, -1).clamp_min(1)
    alphas, states = [], []
    remedy = f"lower batch_tokens (now {batch_tokens}) or length (now {length})"
    with torch.inference_mode(), explain_out_of_memory(remedy):
        for batch in tracked(in_batches(inputs.ids, batch_tokens)):
            extra = {}
            if inputs.positions is not None:
                extra["position_ids"] = inputs.positions.expand(len(batch), -1).to(lm.model.device)
            stream: list[Tensor] = []  # of each layer, (text, position, width)

            def keep(_: int, v: Tensor, stream: list[Tensor] = stream) -> None:
                stream.append(v[:, [0, length // 4]].float().cpu())

            with probe(lm.model, keys=range(length)) as p, watch(lm.model, keep):
                run_decoder(lm.model, batch, **extra)
            for_batch = []
            for _, columns in sorted(p.per_layer().items()):  # (text, head, query, key)
                later = columns.sum(2) - columns.diagonal(dim1=2, dim2=3)
                for_batch.append(later.cpu() / seen)
            alphas.append(torch.stack(for_batch, dim=1))
            states.append(torch.stack(stream, dim=1))
    return torch.cat(alphas), torch.cat(states)


def run(lm: LanguageModel, parameters: Parameters, passages: Sequence[str]) -> JSON:
    """The values of a record: `first_token_kept` (mass on position 0 with a random token there, over that as it is),
    `readings` (mass on position 0 and on the second place), `profile` (alpha_k over heads), `secondary` (sinks
    elsewhere), `identity` (how alike the first position is between texts that begin with different tokens, layer by
    layer; None where there are no two such texts)."""
    values: JSON = {"readings": {}, "prepends_bos": lm.prepends_bos}
    seed = parameters.seed
    mass: dict[Reading, Tensor] = {}  # (text,)
    inputs = readings(lm, passages, parameters.length, seed)
    profile_of = {
        name: partial(profiles, inputs=one, batch_tokens=parameters.batch_tokens) for name, one in inputs.items()
    }
    for name, (alpha, hidden) in together(lm, profile_of, parameters.execution).items():
        second = inputs[name].second
        mass[name] = alpha[..., 0].mean((1, 2)).double()
        values["readings"][name] = {
            "first": asdict(statistics.bootstrap(mass[name], seed=seed)),
            "second": None if second is None else asdict(statistics.bootstrap(alpha[..., second], seed=seed)),
            "position": second,
            "sink_rate": asdict(sinks.sink_rate_estimate(alpha[..., 0], parameters.epsilon, seed=seed)),
        }
        if name in ("as it is", "without BOS", "with BOS"):
            values.setdefault("profile", {})[name] = statistics.rounded(alpha.mean((0, 1, 2)))
        if name == "as it is":
            values["secondary"] = secondary(alpha, decode(lm, inputs[name].ids), parameters.epsilon, seed)
        if name == "another first token":
            values["identity"] = identity(hidden, inputs[name].ids[:, [0, parameters.length // 4]])
    pairs = torch.stack([mass["another first token"], mass["as it is"]], dim=1)
    values["first_token_kept"] = asdict(statistics.ratio_of_sums(pairs, seed))
    return values


def secondary(alpha: Tensor, tokens: list[list[str]], epsilon: float, seed: int) -> JSON:
    """Sinks at positions other than 0: keys to which some head pays more than epsilon on average.

    Args:
        alpha: (text, layer, head, key).
        tokens: [text][token].
    """
    inner = alpha[..., 1:-TAIL]
    strong = inner > epsilon
    per_head = strong.any(-1).double()  # (text, layer, head)
    heads_at = strong.double().sum((1, 2))  # (text, key): how many heads have a sink there
    keys = heads_at.shape[1]
    order = heads_at.flatten().argsort(descending=True)[:12].tolist()
    examples = [
        {
            "token": tokens[i // keys][i % keys + 1],
            "before": tokens[i // keys][max(0, i % keys - 3) : i % keys + 1],
            "position": i % keys + 1,
            "heads": int(heads_at.flatten()[i]),
        }
        for i in order
        if heads_at.flatten()[i] > 0
    ]
    return {
        "head_share": asdict(statistics.bootstrap(per_head, seed=seed)),
        "by_layer": statistics.rounded(per_head.mean((0, 2))),
        "first_by_layer": statistics.rounded((alpha[..., 0] > epsilon).double().mean((0, 2))),
        "by_position": statistics.rounded(strong.double().mean((0, 1, 2))),
        "examples": examples,
    }


def identity(hidden: Tensor, tokens: Tensor) -> JSON | None:
    """Mean cosine between texts with different tokens at the same position, layer by layer: 1 means that the
    position's state no longer says which token stands there. None where no two texts have different tokens.

    Args:
        hidden: (text, layer + 1, 2, width), at two positions.
        tokens: (text, 2), what stands there.
    """
    unit = F.normalize(hidden.double(), dim=-1)
    alike = torch.einsum("alpw,blpw->lpab", unit, unit)
    # Common tokens are drawn more than once, and texts with the same one are alike whatever the model does.
    apart = (tokens[:, None] != tokens).movedim(-1, 0)  # (2, text, text)
    pairs = apart.sum((1, 2))
    if not pairs.all():
        return None
    mean = (alike * apart).sum((2, 3)) / pairs  # (layer + 1, 2)
    return {"first": statistics.rounded(mean[:, 0]), "ordinary": statistics.rounded(mean[:, 1])}


MEASUREMENT = Measurement(
    claim="sink_position",
    parameters=Parameters,
    passages=passages,
    run=run,
    judge=judge,
    # 1: the last layer's residual stream was taken behind the final norm.
    # 2: `identity` counted pairs of texts that happened to begin with the same token.
    version=3,
)
MEASUREMENTS = (MEASUREMENT,)
