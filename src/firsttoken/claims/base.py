"""What a claim is: the card that the board and the chapters show before anything is measured."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from firsttoken.records import Record, Status, Verdict

# The sign repeats the status for readers who do not see the colour.
SIGNS: Mapping[Status, str] = {"reproduced": "✓", "partly": "◐", "not reproduced": "✗", "inconclusive": "–"}


@dataclass(frozen=True, kw_only=True)
class Claim:
    """One claim; its records are `<store>/<id>/*.json`, and the board shows `values[headline]` of each.

    What the paper says is put together from `results/paper.json`, so that no number is typed twice. A claim whose
    measurement has no record yet stays on the board as "not run".
    """

    id: str  # the name of the claim's folder, its chapter and its folder of records
    statement: str
    paper: str  # what the paper reports; `{key:format}` stands for a number of `results/paper.json`
    headline: str  # a key of the record's values; empty for a chapter that is about no claim of the paper
    headline_name: str  # what the headline number is, in a few words; `{epsilon}` is that parameter of the record
    format: str = ".1%"
    practice: bool = False  # whether someone who serves a model should run it
    unit: str  # what the interval of the headline number is over
    rule: str  # what counts as what, in words; `verdict.py` beside it is the same in code
    fixed: str  # when that rule was written, and whether it changed after a look at the numbers
    shows_not: str = ""  # what a reader might take the result to show, and it does not
    would_change: str = ""  # which measurement would change our mind, while the claim is open
    alternative: str = ""  # what else could make the numbers what they are, and what is done about it
    leads_here: str = ""  # to a reader of the chapter before: why to read this one next
    keywords: tuple[str, ...] = ()  # single words that somebody may search for and the page does not use
    quick: Mapping[str, int] = field(default_factory=dict)  # for a first look, the most that a parameter may be

    @property
    def rule_in_full(self) -> str:
        """The rule with its one technical word explained, as pages print it."""
        said = self.rule.lower()
        explained = "surely" not in said or "surely:" in said
        return self.rule if explained else f"{self.rule} Surely: with the whole 95 % interval."


def of_smoke_run(record: Record) -> Verdict | None:
    """The verdict on models that were trained with the budget `smoke`, whatever they show; None for other records."""
    if record.parameters.get("budget") != "smoke":
        return None
    return Verdict("inconclusive", "A smoke run tests the machinery; it is too short to say anything.")
