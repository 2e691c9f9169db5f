"""What a pretraining run costs: named budgets, from a minute in a test to the paper's own runs."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Literal

from firsttoken.errors import FirstTokenError
from firsttoken.estimates import JSON
from firsttoken.pretraining.corpora import BOS, EOS, GENERATED, NOTES, CorpusSpec

if TYPE_CHECKING:
    from transformers import LlamaConfig


@dataclass(frozen=True)
class Budget:
    """Model, text and optimiser of a run; the chapters choose packing and context length."""

    name: str
    layers: int
    width: int
    heads: int
    hidden: int  # of the MLP
    corpus: CorpusSpec
    tokens: int
    tokens_per_step: int  # the same whatever the context length
    lengths: tuple[int, ...]  # of the chapter context_length
    length: int  # of the chapter packing
    learning_rate: float = 3e-3
    weight_decay: float = 0.1
    warmup: float = 0.05  # share of all steps
    schedule: Literal["cosine", "constant_with_warmup"] = "cosine"
    batch_tokens: int = 65_536  # on one device at once; the rest of a step is accumulated
    compile: bool = False
    texts: int = 64  # held out, on which everything is measured
    short: str = "python-functions"  # source of the chapter packing: documents of which several fit into a window
    activation: str = "silu"  # of the MLP, which is gated whatever it is
    packing_tokens: int | None = None  # of the chapter packing, where it trains for longer

    def told(self) -> JSON:
        """What a record says of it. `activation` came later than the first records and is left out where it is theirs,
        so that they still answer; so is `packing_tokens`, which a run names by itself."""
        told = asdict(self)
        del told["packing_tokens"]
        if self.activation == "silu":
            del told["activation"]
        return told

    @property
    def steps(self) -> int:
        return self.tokens // self.tokens_per_step

    def config(self, longest: int) -> LlamaConfig:
        """A LLaMa-style architecture with tied embeddings."""
        from transformers import LlamaConfig

        return LlamaConfig(
            vocab_size=self.corpus.vocabulary,
            hidden_size=self.width,
            intermediate_size=self.hidden,
            num_hidden_layers=self.layers,
            num_attention_heads=self.heads,
            num_key_value_heads=self.heads,
            hidden_act=self.activation,
            max_position_embeddings=longest,
            tie_word_embeddings=True,
            bos_token_id=BOS,
            eos_token_id=EOS,
            pad_token_id=None,
        )

    @property
    def parameters(self) -> int:
        """Weights, embeddings (tied) and norms included."""
        layer = 4 * self.width**2 + 3 * self.width * self.hidden + 2 * self.width
        return self.corpus.vocabulary * self.width + self.layers * layer + self.width

    def flops_per_token(self, length: int) -> float:
        """Operations of forward and backward pass for one token: six for each weight in a matrix product, and
        attention to half a window on average (Chowdhery et al., arXiv 2204.02311, appendix B)."""
        weights = self.parameters - self.width * (2 * self.layers + 1)
        return 6.0 * weights + 6.0 * self.layers * self.width * length


PYTHON = CorpusSpec("python-source", vocabulary=8192)

BUDGETS: dict[str, Budget] = {
    budget.name: budget
    for budget in (
        Budget(
            "smoke", layers=2, width=64, heads=2, hidden=160,
            corpus=CorpusSpec("python-source", vocabulary=512, megabytes=4.0),
            tokens=81_920, tokens_per_step=2048, lengths=(64, 128), length=64, texts=8,
        ),
        Budget(
            "cpu", layers=6, width=128, heads=4, hidden=352,
            corpus=replace(PYTHON, vocabulary=4096),
            tokens=10_240_000, tokens_per_step=4096, lengths=(64, 256), length=256,
        ),
        Budget(
            "lab", layers=8, width=128, heads=2, hidden=352,
            corpus=CorpusSpec(GENERATED, vocabulary=1024, megabytes=40.0),
            tokens=8_192_000, tokens_per_step=4096, lengths=(64, 256, 1024), length=256,
            schedule="constant_with_warmup", activation="gelu", short=GENERATED,
        ),
        Budget(
            "lab-notes", layers=8, width=128, heads=2, hidden=352,
            corpus=CorpusSpec(NOTES, vocabulary=1024, megabytes=30.0),
            tokens=8_192_000, tokens_per_step=4096, lengths=(64, 256), length=256,
            schedule="constant_with_warmup", activation="gelu", short=NOTES,
        ),
        Budget(
            "lab-gpu", layers=8, width=512, heads=8, hidden=1408,
            corpus=CorpusSpec(GENERATED, vocabulary=4096, megabytes=200.0),
            tokens=122_880_000, tokens_per_step=65_536, lengths=(128, 512, 2048), length=1024,
            learning_rate=2e-3, schedule="constant_with_warmup", activation="gelu", short=GENERATED,
        ),
        Budget(
            "gpu", layers=8, width=512, heads=8, hidden=1408,
            corpus=PYTHON,
            tokens=131_072_000, tokens_per_step=65_536, lengths=(128, 256, 512, 1024, 2048), length=1024,
            learning_rate=2e-3, compile=True,
        ),
        Budget(
            "paper", layers=12, width=768, heads=12, hidden=2048,
            corpus=CorpusSpec("HuggingFaceFW/fineweb-edu:sample-10BT", vocabulary=32_768, megabytes=24_000.0),
            tokens=5_000_000_000, tokens_per_step=524_288, lengths=(128, 256, 512, 1024, 2048), length=2048,
            learning_rate=6e-4, warmup=0.02, compile=True, short="HuggingFaceFW/fineweb-edu:sample-10BT",
            packing_tokens=30_000_000_000,
        ),
    )
}  # fmt: skip


def budget(name: str) -> Budget:
    """A budget by name; an unknown one is an error that lists them."""
    if name not in BUDGETS:
        raise FirstTokenError(f"There is no budget {name!r}; there are {', '.join(BUDGETS)}.")
    return BUDGETS[name]
