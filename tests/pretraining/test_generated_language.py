"""The generated language: the same bytes everywhere, and the regularities it claims, read off the text again."""

from __future__ import annotations

import hashlib
import itertools
import re
import statistics
from collections import Counter

import numpy as np
import pytest

from firsttoken.pretraining import generated_language
from firsttoken.pretraining.generated_language import Dice, document, documents, lexicon, notes, zipf

CHARACTERS = 100_000
# Of the first characters in UTF-8. Records name a corpus by its hash: a change here is another language, so raise
# VERSION with it.
SHA256 = "bcff948d31a5b3f3f6aa72c26aa6013b6cebc0aba9dd9a5db63d43689daed402"

SHA256_NOTES = "2202143b2fd0b9eaf78f830e3d0e2c324d4ed6ecabb4af4fc4cd4d9eacd1e44c"


@pytest.fixture(scope="module")
def texts() -> list[str]:
    return list(itertools.islice(documents(), 400))


def test_same_bytes_everywhere(texts: list[str]) -> None:
    first = "".join(texts)[:CHARACTERS]
    assert hashlib.sha256(first.encode()).hexdigest() == SHA256
    assert hashlib.sha256("".join(itertools.islice(notes(), 400))[:CHARACTERS].encode()).hexdigest() == SHA256_NOTES
    assert generated_language.VERSION == 1


def test_dice_use_nothing_but_the_raw_stream_that_numpy_promises_to_keep() -> None:
    dice = Dice(3, 1)
    raw = np.random.PCG64([3, 1]).random_raw(3000).tolist()
    limits = [2 + number % 50 for number in range(3000)]
    assert [dice.below(limit) for limit in limits] == [
        (number >> 32) * limit >> 32 for number, limit in zip(raw, limits, strict=True)
    ]


def test_dice_are_even_and_weighted_as_asked() -> None:
    dice = Dice(5)
    counts = Counter(dice.weighted((1, 4, 4, 10)) for _ in range(20_000))
    assert counts[2] == 0
    for index, share in ((0, 0.1), (1, 0.3), (3, 0.6)):
        assert counts[index] / 20_000 == pytest.approx(share, abs=0.015)


def test_weights_are_zipfs() -> None:
    weights = np.diff(zipf(1000), prepend=0)
    assert weights * (np.arange(1, 1001) + 2) == pytest.approx(2**24, rel=1e-3)


def test_a_document_depends_on_its_number_and_seed_alone(texts: list[str]) -> None:
    assert document(17) == texts[17]
    assert document(17, seed=1) != texts[17]
    assert len(set(texts)) == len(texts)
    assert lexicon(0) != lexicon(1)


def test_documents_are_as_long_as_real_ones_and_differ(texts: list[str]) -> None:
    lengths = [len(text.split()) for text in texts]
    assert min(lengths) >= 60
    assert 200 < statistics.median(lengths) < 500
    assert sum(length > 2048 for length in lengths) >= 4
    assert max(lengths) < 4400


def test_notes_are_short_documents_of_the_same_language(texts: list[str]) -> None:
    some = list(itertools.islice(notes(), 400))
    assert len(set(some)) == len(some)
    lengths = [len(text.split()) for text in some]
    assert min(lengths) >= 20
    assert 50 < statistics.median(lengths) < 80
    assert 0.04 < sum(length > 110 for length in lengths) / len(lengths) < 0.12
    known = Counter(re.findall(r"\w+", " ".join(texts).lower()))
    words = re.findall(r"\w+", " ".join(some).lower())
    assert sum(word in known for word in words) > 0.95 * len(words)


def test_words_follow_zipf_and_frequent_ones_are_short(texts: list[str]) -> None:
    counts = Counter(re.findall(r"\w+", " ".join(texts).lower())).most_common()
    ranks = np.arange(20, 1000)
    slope = np.polyfit(np.log(ranks), np.log([counts[rank][1] for rank in ranks]), 1)[0]
    assert -1.4 < slope < -0.7
    assert statistics.mean(len(word) for word, _ in counts[:50]) + 2 < statistics.mean(
        len(word) for word, _ in counts[1000:2000]
    )


def test_hardly_two_words_are_spelt_alike() -> None:
    words = lexicon(0)
    spelt = [
        *(form for _, *forms in words.nouns for form in set(forms)),
        *(form for forms in words.verbs for form in forms),
        *words.prepositions,
        *words.numbers,
    ]
    assert len(set(spelt)) > 0.98 * len(spelt)


def test_articles_adjectives_and_relative_pronouns_agree_with_their_nouns(texts: list[str]) -> None:
    words = lexicon(0)
    nouns: dict[str, set[tuple[int, bool]]] = {}
    for kind, one, many in words.nouns:
        nouns.setdefault(one, set()).add((kind, False))
        nouns.setdefault(many, set()).add((kind, True))
    adjectives = {
        form: (kind, plural)
        for forms in words.adjectives
        for kind, pair in enumerate(forms)
        for plural, form in enumerate(pair)
    }
    articles = {f"l{vowel}{ending}": (kind, bool(ending)) for kind, vowel in enumerate("iaou") for ending in ("", "r")}
    phrases = 0
    for text in texts[:100]:
        tokens = [*re.findall(r"\w+", text.lower()), "end"]
        for place, token in enumerate(tokens):
            if token in articles:
                rest = place + 1
                while tokens[rest] in adjectives and tokens[rest] not in nouns:
                    assert adjectives[tokens[rest]] == articles[token]
                    rest += 1
                assert articles[token] in nouns[tokens[rest]]
                phrases += 1
                # After a prepositional phrase it would be the noun before that phrase which the pronoun agrees with.
                if tokens[rest + 1] in ("kwi", "kwa", "kwo", "kwu") and tokens[place - 1] not in words.prepositions:
                    assert tokens[rest + 1][-1] == token[1]
    assert phrases > 5000


def test_verbs_agree_with_subjects_far_before_them(texts: list[str]) -> None:
    """Sentences of subject, prepositional phrase, verb and object, read by a pattern of their own."""
    words = lexicon(0)
    verbs = {form: plural for pair in words.verbs for plural, form in enumerate(pair)}
    between, agree = 0, 0
    prepositions = set(words.prepositions)
    for text in texts:
        for sentence in re.findall(r"(?:^|\. )(L[iaou]r? [\w ]+)\.", text):
            tokens = sentence.lower().split()
            own = [token for token in tokens if token in verbs]
            if len(own) != 1 or not prepositions & set(tokens[: tokens.index(own[0])]):
                continue
            between += 1
            agree += verbs[own[0]] == (tokens[0] in ("lir", "lar", "lor", "lur"))
    assert between > 1000
    assert agree == between


def test_what_comes_again_comes_word_for_word(texts: list[str]) -> None:
    again = 0
    for text in texts:
        for place in re.finditer(r"Iterum: ([^.]+)\.", text):
            again += 1
            said = place.group(1)
            before = text[: place.start()]
            assert f"«{said}»" in before or f": {said}." in before
    assert again > 200


def test_signs_are_well_formed(texts: list[str]) -> None:
    for text in texts:
        assert text.count("(") == text.count(")")
        assert text.count("«") == text.count("»")
        assert not re.search(r",[.,)»]| [,.:)»]|[(«] |  ", text.replace("\n- ", "\n").replace(" : ", ": "))
        assert text.endswith("\n")


def test_topics_come_back_within_a_document_and_not_in_the_next(texts: list[str]) -> None:
    """The rare words of a document's second half are in its first half more often than in another document's."""
    long = [text.split() for text in texts if len(text.split()) > 400]
    common = {word for word, _ in Counter(word for words in long for word in words).most_common(300)}
    halves = [(set(w[: len(w) // 2]) - common, set(w[len(w) // 2 :]) - common) for w in long]
    own = statistics.mean(len(first & second) / len(second) for first, second in halves)
    other = statistics.mean(len(halves[n - 1][0] & second) / len(second) for n, (_, second) in enumerate(halves))
    assert own > 2 * other
