"""The models behind a chapter on pretraining: trained where that is asked, else those that have a record."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from firsttoken import records
from firsttoken.errors import FirstTokenError
from firsttoken.estimates import JSON
from firsttoken.measures.sinks import even_share
from firsttoken.pretraining.budgets import BUDGETS, budget
from firsttoken.pretraining.checkpoint_probe import Input
from firsttoken.pretraining.packing import BosInTraining
from firsttoken.pretraining.run_spec import CLAIM, SHORT, Training, find
from firsttoken.records import Record

SUFFIX = "-budget"  # a record of a chapter is about the models of a budget, and so is its name


@dataclass(frozen=True)
class Group:
    """The runs that a chapter's record is computed from; takes the place of a model in it.

    Attributes:
        trainings: all that the chapter asks for.
        runs: of those that were trained, one at least.
        fresh: whether what is computed from earlier runs counts no more.
    """

    trainings: Sequence[Training]
    runs: Mapping[Training, Record]
    fresh: bool = False

    ready = True

    @property
    def slug(self) -> str:
        return self.trainings[0].budget + SUFFIX

    @property
    def told(self) -> JSON:
        settings = self.trainings[0].settings().told().items()
        common = {name: value for name, value in settings if name not in ("name", "lengths", "length")}
        return {"budget": self.trainings[0].budget, **common}

    @property
    def texts_hash(self) -> str:
        return " ".join(sorted({run.provenance["texts_hash"] for run in self.runs.values()}))

    @property
    def names(self) -> list[str]:
        """What the records of the runs are called."""
        return [run.model for run in self.runs.values()]

    def provenance(self) -> JSON:
        facts = ("texts_hash", "commit", "time", "seconds")
        runs = list(self.runs.values())
        told = json.dumps([[run.filename, *(run.provenance.get(fact) for fact in facts)] for run in runs])
        first = runs[0].provenance["model"]
        return {
            "name": f"{len(runs)} models trained here, budget {self.trainings[0].budget}",
            "source": "pretrained",
            "fingerprint": hashlib.sha256(told.encode()).hexdigest()[:16],
            "quantisation": "",
            "dtype": first["dtype"],
            "device": first["device"],
        }


def seeds_from(count: int) -> range:
    """The seeds of `count` runs that differ in nothing else; fewer than one is an error."""
    if count < 1:
        raise FirstTokenError(f"At least one seed is needed, not {count}.")
    return range(count)


def runs_of(trainings: Sequence[Training], train: bool, fresh: bool = False) -> dict[Training, Record]:
    """The record of each training that has one; with `train`, those that are missing are trained now, one by one.

    A run that fails leaves the others; what is finished has its record.
    """
    if train:
        from firsttoken.pretraining.train import measure
    trained: dict[Training, Record] = {}
    failures = []
    for number, training in enumerate(trainings, 1):
        try:
            if train:
                print(f"{number} of {len(trainings)}: {training.slug}", flush=True)
            record = measure(training, fresh) if train else find(training)
        except FirstTokenError as error:
            failures.append(f"{training.slug}: {error}")
            continue
        if record is not None:
            trained[training] = record
    if failures:
        raise FirstTokenError("\n".join(failures))
    return trained


def group(trainings: Sequence[Training], train: bool, fresh: bool) -> Group | None:
    """The runs of these trainings, see `runs_of`; None where there are none."""
    runs = runs_of(trainings, train, fresh)
    return Group(trainings, runs, fresh) if runs else None


def shown(claim: str, only: str = "") -> list[Record]:
    """The records of a chapter, the largest budget first; of one budget if `only` is given."""
    if only:
        budget(only)
    order = [name + SUFFIX for name in reversed(BUDGETS) if only in ("", name)]
    by_name = {record.model: record for record in records.all_records(claim)}
    # A smoke run is shown only to the person who asks for it.
    return [by_name[name] for name in order if name in by_name and (only or name != "smoke" + SUFFIX)]


def behind(chapter: Iterable[Record]) -> list[Record]:
    """The records of the single runs that chapter records name in their `runs`."""
    names = {name for record in chapter for name in record.values["runs"]}
    stored = (records.find(CLAIM, name) for name in sorted(names))
    return [record for record in stored if record is not None]


def combined(estimates: Sequence[Mapping[str, float]]) -> JSON:
    """One estimate for several seeds: the mean, from the lowest low to the highest high, and all texts counted."""
    return {
        "value": sum(e["value"] for e in estimates) / len(estimates),
        "low": min(e["low"] for e in estimates),
        "high": max(e["high"] for e in estimates),
        "n": sum(int(e["n"]) for e in estimates),
    }


def end_of(run: Record, length: int) -> JSON:
    """What a trained model shows at its end, from the record of its run.

    At 64 tokens: `excess`, attention to the first token beyond an even share; `sink_rate` at 0.3; `value_norm`, of the
    first token over the mean of the others; `missing`, nats that leaving BOS out costs; `row_sum`, `spread_over_own`
    and `largest_activation`, see `design_outcomes`. `loss`, in nats, at the length of the training. All but
    `largest_activation` are estimates, with intervals over held-out texts.
    """
    short, own = (run.values["final"][str(tokens)] for tokens in (SHORT, length))
    mass, beside = short["BOS+text"]["mass"], run.values["design"]
    return {
        # An even share is the same for every text, so the whole interval moves by it.
        "excess": {**mass, **{name: mass[name] - even_share(SHORT) for name in ("value", "low", "high")}},
        "sink_rate": short["BOS+text"]["sink_rate_0.3"],
        "value_norm": short["BOS+text"]["value_norm_ratio"],
        "missing": short["missing_bos"]["loss"],
        "loss": own["BOS+text"]["loss"],
        "row_sum": beside["row_sum"],
        "spread_over_own": beside["spread_over_own"],
        "largest_activation": beside["largest_activation"],
    }


def ends_of(
    trained: Mapping[Training, Record],
    training: Callable[[str, int], Training],
    names: Iterable[str],
    seeds: Iterable[int],
    length: int,
) -> JSON:
    """{name: `end_of` its run for each seed}, None for those that were not trained.

    Args:
        training: the run of a name and a seed.
    """
    runs = {name: [training(name, seed) for seed in seeds] for name in names}
    return {
        name: [end_of(trained[one], length) if one in trained else None for one in of] for name, of in runs.items()
    }


NUMBERS = ("sink_rate_0.3", "sink_rate_0.8", "mass", "value_norm_ratio", "loss")


def row(runs: Sequence[Record], arm: Input, tokens: int) -> JSON | None:
    """What models of one kind (seeds) show on texts of so many tokens in one arm; None where none was trained.

    `missing_bos` is what leaving BOS out changes in them, whatever the arm; `each` has the main numbers of every seed
    (`excess`: mass on the first token beyond an even share),
    and `head` is the share of one head, below which a difference between single models means nothing.
    """
    ends = [run.values["final"][str(tokens)] for run in runs]
    if not ends:
        return None
    return {
        **{name: combined([end[arm][name] for end in ends]) for name in NUMBERS},
        "missing_bos": {
            name: combined([end["missing_bos"][name] for end in ends]) for name in ("sink_rate_0.3", "mass", "loss")
        },
        "seeds": len(ends),
        "each": [
            {
                **{name: end[arm][name]["value"] for name in ("sink_rate_0.3", "loss")},
                "excess": end[arm]["mass"]["value"] - even_share(tokens),
                "missing_bos_loss": end["missing_bos"]["loss"]["value"],
            }
            for end in ends
        ],
        "head": 1 / sum(map(len, ends[0][arm]["alpha"])),
    }


def own_arm(bos: BosInTraining) -> Input:
    """How a model reads at inference what it read in training."""
    return "text" if bos == "never" else "BOS+text"
