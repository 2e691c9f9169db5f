"""What was measured of a claim, one line a model: used by the board, the tally and the summary of a chapter."""

from __future__ import annotations

import re
from html import escape
from typing import Any

from docutils import nodes

from firsttoken import claims
from firsttoken.book.chapters import listed
from firsttoken.claims.base import SIGNS, Claim
from firsttoken.model_names import ModelName, model_name, own_name
from firsttoken.records import Record, all_records
from firsttoken.records.numbers import NOT_RUN, estimate


def main_records(claim: Claim, model: str = "") -> list[Record]:
    """The records that answer a claim itself, of one model (a slug) or of all."""
    return [r for r in all_records(claim.id) if not r.variant and (not model or r.model == model)]


def name_of(record: Record) -> ModelName:
    """What a record's model is called for readers."""
    return model_name(record.model, own_name(record))


def on_the_board() -> list[Claim]:
    """Every claim with a headline number, in the order of the table of contents."""
    order = {name: number for number, name in enumerate(listed())}
    cards = [claims.claim(name) for name in claims.names()]
    return sorted((card for card in cards if card.headline), key=lambda card: order.get(card.id, len(order)))


def headline_name(claim: Claim, record: Record) -> str:
    """What the headline number is, with the threshold that the record was made with."""
    return re.sub(r"\{(\w+)\}", lambda name: str(record.parameters.get(name[1], "")), claim.headline_name)


def printed(value: Any, form: str) -> list[nodes.Node]:
    """A headline number with its interval and n, for pages that hide nothing behind a pointer."""
    quoted = estimate(value, form)
    parts: list[nodes.Node] = [nodes.strong("", quoted.text)]
    if quoted.bracket:
        count = f"n\N{NO-BREAK SPACE}=\N{NO-BREAK SPACE}{value['n']}"
        bracket = nodes.inline("", "", nodes.Text(quoted.bracket), classes=["interval"])
        parts += [nodes.Text(" "), bracket, nodes.inline("", "", nodes.Text(f", {count}"), classes=["interval"])]
    return parts


def headline(claim: Claim, record: Record) -> list[nodes.Node]:
    """The headline number of a record, printed; a few words for a record of an earlier version that lacks it."""
    if claim.headline not in record.values:
        return [nodes.Text(claims.EARLIER)]
    return printed(record.values[claim.headline], claim.format)


def status(record: Record) -> str:
    """The word for what today's rule says about a record."""
    verdict = claims.verdict(record)
    return verdict.status if verdict else NOT_RUN


def badge(word: str) -> nodes.inline:
    """A status as sign and word; only the word is read out."""
    sign = nodes.raw("", f'<span aria-hidden="true">{escape(SIGNS.get(word, "–"))}</span> ', format="html")
    return nodes.inline("", "", sign, nodes.Text(word), classes=["verdict", f"verdict-{nodes.make_id(word)}"])


def line(claim: Claim, record: Record) -> nodes.paragraph:
    """One record: status, model, headline number."""
    word, what = status(record), nodes.inline("", "", nodes.Text(name_of(record).name), classes=["result-what"])
    if claim.headline:
        what += [nodes.Text(": "), *headline(claim, record)]
        if word == "inconclusive":
            what += nodes.inline("", "", nodes.Text("; decides nothing"), classes=["interval"])
    return nodes.paragraph("", "", badge(word), nodes.Text(" "), what, classes=["result-line"])


def identities(records: list[Record]) -> list[nodes.Node]:
    """Which copies these models are and under which licence or terms, once each; nothing where that is not known."""
    parts: list[nodes.Node] = []
    for name in dict.fromkeys(name_of(record) for record in records):
        if name.full == name.name:
            continue
        parts.append(nodes.Text(f"{'; ' if parts else ''}{name.full}"))
        if name.terms:
            link = nodes.reference("", "", nodes.Text(name.licence), refuri=name.terms, internal=False)
            parts += [nodes.Text(", "), link]
    return parts
