"""A language that was never spoken: text without end, without a network, with the same bytes on every machine.

>>> document(0)[:60]        # any document on its own
>>> for text in documents(): ...   # all of them, no end
>>> for text in notes(): ...       # short ones of 60 words in the median, of which several fit into a window

What it has of real text, so that a small model has something to learn at every distance: Zipfian words spelt from
syllables, frequent ones shorter; four noun classes and two numbers with which articles, adjectives, verbs and pronouns
agree, across prepositional phrases and relative clauses, and across sentences for the hero of a document; words that
come back within a document, since each has its own topic; quotations and lists that are repeated word for word later;
numbers that count on; brackets that close; headings; documents of 64 to 4096 words.

Only the raw 64-bit output of PCG64 is used, whose stream numpy promises to keep (NEP 19), and only integer arithmetic,
so that neither rounding nor a new version of a distribution can change a byte. A document depends on the seed and on
its own number alone.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import accumulate, count

import numpy as np

VERSION = 1  # of the language: a change of any byte is another version
CLASSES = 4  # of nouns
_ONSETS = ["p", "t", "k", "b", "d", "g", "m", "n", "s", "l", "r", "v", "f", "h", "z", "sh", "st", "tr", "kl", "br"]
_VOWELS = ["a", "e", "i", "o", "u", "ai", "ou"]
_CODAS = ["", "", "", "n", "r", "s", "l"]
# How many stems of each kind, before inflection.
_STEMS = {"noun": 1600, "verb": 500, "adjective": 400, "adverb": 120, "name": 300, "preposition": 24}
_NUMBER_WORDS = 20
_NOUN_ENDINGS = (("", "i"), ("a", "ar"), ("o", "os"), ("en", "un"))  # (class, number)
_ADJECTIVE_ENDINGS = (("ik", "iki"), ("ak", "aki"), ("ok", "oki"), ("uk", "uki"))
_VERB_ENDINGS = ("et", "ont")  # by number
_ARTICLES = (("li", "lir"), ("la", "lar"), ("lo", "lor"), ("lu", "lur"))
_PRONOUNS = (("hi", "hir"), ("ha", "har"), ("ho", "hor"), ("hu", "hur"))
_WHICH = ("kwi", "kwa", "kwo", "kwu")
# Of a hundred documents: those of 64 to 128 words, of 128 to 256, and so on up to 4096.
_LENGTHS = (16, 24, 26, 19, 10, 5)
_TOPIC = 14  # nouns that a document has for its own
_OPENING, _CLOSING = ("(", "«"), (",", ":", ")", "»")
_AT_ONCE = 1024  # random numbers fetched from numpy together, for speed only


class Dice:
    """Integers drawn from the raw stream of a bit generator, one after the other."""

    def __init__(self, *seed: int) -> None:
        self._source = np.random.PCG64(list(seed))
        self._left: list[int] = []

    def below(self, limit: int) -> int:
        """A number from 0 to `limit` - 1; uneven by less than `limit` / 2^32."""
        if not self._left:
            self._left = (self._source.random_raw(_AT_ONCE) >> np.uint64(32)).tolist()[::-1]
        return self._left.pop() * limit >> 32

    def percent(self, share: int) -> bool:
        """True `share` times in a hundred."""
        return self.below(100) < share

    def weighted(self, cumulative: Sequence[int]) -> int:
        """An index, from running sums of integer weights."""
        return bisect_right(cumulative, self.below(cumulative[-1]))


@cache
def zipf(size: int) -> tuple[int, ...]:
    """Running sums of weights in proportion to 1 / (rank + 2), as integers below 2^32."""
    return tuple(accumulate((1 << 24) // (rank + 2) for rank in range(1, size + 1)))


@dataclass(frozen=True, kw_only=True)
class Lexicon:
    """The words of a language, the frequent ones first."""

    nouns: tuple[tuple[int, str, str], ...]  # class, singular, plural
    verbs: tuple[tuple[str, str], ...]  # singular, plural
    adjectives: tuple[tuple[tuple[str, str], ...], ...]  # by class: singular, plural
    adverbs: tuple[str, ...]
    prepositions: tuple[str, ...]
    names: tuple[tuple[int, str], ...]  # class and name
    numbers: tuple[str, ...]  # one, two, three ...


@cache
def lexicon(seed: int) -> Lexicon:
    """The words of the language of a seed."""
    dice = Dice(VERSION, seed, 0)
    taken: set[str] = set()

    def stem(rank: int) -> str:
        least = 1 if rank < 60 else 2 if rank < 700 else 3  # frequent words are short
        while True:
            syllables = least + dice.percent(30)
            word = "".join(
                _ONSETS[dice.below(len(_ONSETS))] + _VOWELS[dice.below(len(_VOWELS))] for _ in range(syllables)
            )
            word += _CODAS[dice.below(len(_CODAS))]
            if word not in taken:
                taken.add(word)
                return word

    stems = {kind: [stem(rank) for rank in range(size)] for kind, size in _STEMS.items()}
    numbers = tuple(stem(0) for _ in range(_NUMBER_WORDS))
    classes = [dice.below(CLASSES) for _ in stems["noun"]]
    return Lexicon(
        nouns=tuple(
            (kind, word + _NOUN_ENDINGS[kind][0], word + _NOUN_ENDINGS[kind][1])
            for kind, word in zip(classes, stems["noun"], strict=True)
        ),
        verbs=tuple((word + _VERB_ENDINGS[0], word + _VERB_ENDINGS[1]) for word in stems["verb"]),
        adjectives=tuple(
            tuple((word + one, word + many) for one, many in _ADJECTIVE_ENDINGS) for word in stems["adjective"]
        ),
        adverbs=tuple(word + "esh" for word in stems["adverb"]),
        prepositions=tuple(stems["preposition"]),
        names=tuple((dice.below(CLASSES), word.capitalize()) for word in stems["name"]),
        numbers=numbers,
    )


class Writer:
    """Writes one document, sentence by sentence; every method returns words without a full stop."""

    def __init__(self, seed: int, number: int) -> None:
        self.words = lexicon(seed)
        self.dice = Dice(VERSION, seed, 1, number)
        self.topic = [self.dice.weighted(zipf(len(self.words.nouns))) for _ in range(_TOPIC)]
        self.cast = [self.dice.weighted(zipf(len(self.words.names))) for _ in range(3)]
        self.kept: list[list[str]] = []  # what may be repeated word for word

    def document(self) -> str:
        octave = self.dice.weighted(tuple(accumulate(_LENGTHS)))
        length = 64 << octave
        length += self.dice.below(length)
        heading = self.noun_phrase(self.dice.percent(40), relative=False)
        paragraphs, written = [_joined(heading).capitalize()], len(heading)
        while written < length:
            sentences = []
            for _ in range(2 + self.dice.below(6)):
                sentence = self.sentence(heading)
                sentences.append(_finished(sentence))
                written += len(sentence)
            paragraphs.append(" ".join(sentences))
            if self.dice.percent(12):
                paragraphs.append(self.counted())
        return "\n\n".join(paragraphs) + "\n"

    def note(self) -> str:
        """One paragraph under its heading; one in twelve is three times as long."""
        length = (40 + self.dice.below(56)) * (3 if self.dice.percent(8) else 1)
        heading = self.noun_phrase(self.dice.percent(40), relative=False)
        sentences, written = [], len(heading)
        while written < length:
            sentence = self.sentence(heading)
            sentences.append(_finished(sentence))
            written += len(sentence)
        return f"{_joined(heading).capitalize()}\n\n{' '.join(sentences)}\n"

    def sentence(self, heading: list[str]) -> list[str]:
        kind = self.dice.below(100)
        if kind < 52:
            return self.plain()
        if kind < 68:
            return self.of_the_hero()
        if kind < 76:
            return [*self.plain(), ",", "sed", *self.plain()]
        if kind < 84:
            return self.quoted()
        if kind < 91:
            return self.listed()
        if kind < 96 and self.kept:
            return ["iterum", ":", *self.kept[self.dice.below(len(self.kept))]]
        return ["de", *heading, ":", *self.plain()]

    def plain(self) -> list[str]:
        """Subject, verb, object; the verb agrees with a subject that may stand far before it."""
        plural = self.dice.percent(35)
        words = [
            *self.noun_phrase(plural),
            self.verb(plural),
            *self.noun_phrase(self.dice.percent(35), relative=False),
        ]
        if self.dice.percent(25):
            words.append(self.words.adverbs[self.dice.weighted(zipf(len(self.words.adverbs)))])
        if self.dice.percent(12):
            words += ["(", *self.noun_phrase(self.dice.percent(35), relative=False), ")"]
        return words

    def of_the_hero(self) -> list[str]:
        """The hero by name or by a pronoun of the name's class."""
        kind, name = self.words.names[self.cast[0]]
        who = name if self.dice.percent(35) else _PRONOUNS[kind][0]
        return [who, self.verb(False), *self.noun_phrase(self.dice.percent(35))]

    def quoted(self) -> list[str]:
        """Someone says something that may be said again later, word for word."""
        said = self.plain()
        self.kept.append(said)
        _, name = self.words.names[self.cast[self.dice.below(len(self.cast))]]
        return [name, "dit", ":", "«", *said, "»"]

    def listed(self) -> list[str]:
        """A list of nouns, which may come again later in the same order."""
        items = [self.noun()[1] for _ in range(3 + self.dice.below(5))]
        words = [word for item in items[:-1] for word in (item, ",")][:-1]
        words += ["et", items[-1]]
        self.kept.append(words)
        _, name = self.words.names[self.cast[self.dice.below(len(self.cast))]]
        return [name, "hat", ":", *words]

    def counted(self) -> str:
        """Lines that count on from somewhere."""
        start = self.dice.below(_NUMBER_WORDS - 4)
        numbers = self.words.numbers[start : start + 3 + self.dice.below(3)]
        lines = [f"- {number} : {_joined(self.noun_phrase(False, relative=False))}" for number in numbers]
        return "\n".join(lines)

    def noun_phrase(self, plural: bool, relative: bool = True) -> list[str]:
        """Article, adjectives, noun, and what hangs on it."""
        kind, *forms = self.noun()
        words = [_ARTICLES[kind][plural]]
        while self.dice.percent(28):
            which = self.dice.weighted(zipf(len(self.words.adjectives)))
            words.append(self.words.adjectives[which][kind][plural])
        words.append(forms[plural])
        if self.dice.percent(18):
            preposition = self.words.prepositions[self.dice.weighted(zipf(len(self.words.prepositions)))]
            words += [preposition, *self.noun_phrase(self.dice.percent(35), relative=False)]
        if relative and self.dice.percent(14):
            # The pronoun and the verb agree with the noun before, over whatever stands between.
            words += [_WHICH[kind], self.verb(plural), *self.noun_phrase(self.dice.percent(35), relative=False), ","]
        return words

    def noun(self) -> tuple[int, str, str]:
        """One of the document's own nouns, or any."""
        if self.dice.percent(65):
            return self.words.nouns[self.topic[self.dice.weighted(zipf(_TOPIC))]]
        return self.words.nouns[self.dice.weighted(zipf(len(self.words.nouns)))]

    def verb(self, plural: bool) -> str:
        return self.words.verbs[self.dice.weighted(zipf(len(self.words.verbs)))][plural]


def _joined(words: list[str]) -> str:
    """Words with spaces between them, but none on the inner side of brackets and quotes or before other signs."""
    text = " ".join(words)
    for sign in _CLOSING:
        text = text.replace(f" {sign}", sign)
    for sign in _OPENING:
        text = text.replace(f"{sign} ", sign)
    return text.replace(",)", ")").replace(",»", "»").replace(",,", ",")


def _finished(words: list[str]) -> str:
    text = _joined(words).removesuffix(",")
    return f"{text[0].upper()}{text[1:]}."


def document(number: int, seed: int = 0) -> str:
    """One document of the language of a seed; two of different numbers share nothing but the language."""
    return Writer(seed, number).document()


def documents(seed: int = 0) -> Iterator[str]:
    """All documents in order, without end."""
    return (document(number, seed) for number in count())


def notes(seed: int = 0) -> Iterator[str]:
    """Short documents of the same language, without end."""
    return (Writer(seed, number).note() for number in count())
