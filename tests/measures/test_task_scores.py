"""The small tasks: what they ask can be answered, and answers are counted right."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from fake import fake_lm
from firsttoken import models
from firsttoken.claims.compression import tasks as compression
from firsttoken.claims.removal import measure as removal
from firsttoken.errors import FirstTokenError
from firsttoken.measures import task_scores
from firsttoken.measures.ablations import ordinary_means
from firsttoken.models import LanguageModel
from firsttoken.models.bundled import BUNDLED
from firsttoken.texts.task_items import CHOICES, CLOZE, PLACES, WORDS
from tiny import tiny_model


@pytest.fixture(params=BUNDLED)
def lm(request: pytest.FixtureRequest) -> LanguageModel:
    return models.load(request.param)


def words_of(text: str) -> set[str]:
    return set(re.findall(r"\w+", text.lower()))


def test_items_are_different_and_their_answers_among_the_options() -> None:
    assert len({text for text, _ in CLOZE}) == len(CLOZE)
    assert len(set(WORDS)) == len(WORDS)
    for text, right, wrong in CHOICES:
        assert not {right, *wrong} & words_of(text), "an option stands in the text"
        assert right not in wrong
        assert len(set(wrong)) == 3
        assert text == text.rstrip()


def test_every_question_asks_for_what_the_text_says(lm: LanguageModel) -> None:
    for task in task_scores.standard_tasks(lm, "auto", 512, questions=64):
        assert task.n >= 8
        for item in task.items:
            assert list(item.ids[: len(lm.prefix("auto"))]) == lm.prefix("auto")
            for question in item.questions:
                if question.options:
                    assert question.answer in question.options
                    assert len(question.options) == round(1 / task.chance)
                if question.position + 1 < len(item.ids):
                    assert item.ids[question.position + 1] == question.answer


def test_texts_of_a_task_are_taken_whole_until_they_hold_the_questions() -> None:
    text = task_scores.TaskText(tuple(range(8)), tuple(task_scores.Question(place, place + 1) for place in range(5)))
    task = task_scores.Task("copying", (text,) * 4, 0.25)
    for questions, taken in ((1, 1), (5, 1), (6, 2), (16, 4), (64, 4)):
        short = task.shortened(questions)
        assert short.items == task.items[:taken]
        assert (short.name, short.chance) == (task.name, task.chance)


def test_no_question_is_left_out_unless_one_asks(lm: LanguageModel) -> None:
    """The committed records answer all of them."""
    every = [task.n for task in task_scores.standard_tasks(lm, "auto", 256, questions=10**6)]
    assert sum(every) == 133
    for parameters in (removal.Parameters(), compression.Parameters()):
        asked = parameters.task_questions
        assert [task.n for task in task_scores.standard_tasks(lm, "auto", 256, questions=asked)] == every


def test_retrieval_hides_each_fact_once_before_it_is_asked_for(lm: LanguageModel) -> None:
    for length in (512, 1024):
        (item,) = task_scores.needle(lm, "auto", length, questions=8).items
        assert len(item.ids) == length
        first_question = min(question.position for question in item.questions)
        places = [item.ids.index(question.answer) for question in item.questions]
        assert max(places) < first_question
        assert max(places) - min(places) > length // 3, "the facts lie beside each other"
        for question in item.questions:
            asked = lm.tokenizer.decode(list(item.ids[question.position - 6 : question.position + 1]))
            place = item.ids.index(question.answer)
            fact = lm.tokenizer.decode(list(item.ids[place - 4 : place]))
            assert asked.endswith(fact)
            # Each answer stands twice: hidden in the prose, and after its question.
            assert item.ids.count(question.answer) == 2


def test_an_option_of_retrieval_stands_in_its_fact_and_in_its_answer_alone(lm: LanguageModel) -> None:
    """With as many facts as there are places, whatever is drawn."""
    for seed in range(12):
        (item,) = task_scores.needle(lm, "auto", 512, questions=len(PLACES), seed=seed).items
        (options,) = {question.options for question in item.questions}
        assert [item.ids.count(option) for option in options] == [2] * len(PLACES)


def test_score_against_a_loop_over_plain_logits(lm: LanguageModel) -> None:
    for task in (task_scores.cloze(lm), task_scores.multiple_choice(lm)):
        expected = []
        for item in task.items:
            (question,) = item.questions
            with torch.inference_mode():
                logits = lm.model(torch.tensor([item.ids]), logits_to_keep=1).logits[0, -1].tolist()
            among = question.options or range(len(logits))
            expected.append(max(among, key=logits.__getitem__) == question.answer)
        assert task_scores.score(lm, task).tolist() == expected
        assert sum(expected) / len(expected) > 2 * task.chance, "too hard with BOS to show a loss without it"


def test_scores_do_not_depend_on_the_batch() -> None:
    """Shorter texts are filled up on the right; one by one they must score the same."""
    lm = fake_lm(tiny_model("llama"))
    torch.manual_seed(2)
    items = []
    for length in (5, 9, 12, 7):
        row = (1, *torch.randint(3, 97, (length,)).tolist())
        with torch.no_grad():
            best = int(lm.model(torch.tensor([row])).logits[0, -1].argmax())
        items.append(
            task_scores.TaskText(
                row, (task_scores.Question(length, best), task_scores.Question(length, (best + 1) % 97))
            )
        )
    task = task_scores.Task("any", tuple(items), 0.0)
    expected = [True, False] * 4
    assert task_scores.score(lm, task).tolist() == expected
    assert task_scores.score(lm, task, batch_tokens=1).tolist() == expected
    means = ordinary_means(lm, torch.randint(3, 97, (3, 17)))
    for arm in ("delete", "mask", "mean_value"):
        together, alone = (task_scores.score(lm, task, arm, means, batch).tolist() for batch in (1024, 1))
        assert together == alone


def test_random_first_tokens_depend_on_the_seed_and_not_on_the_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    lm = fake_lm(tiny_model("llama"))
    generator = torch.Generator().manual_seed(4)
    rows = [(1, *torch.randint(3, 97, (length,), generator=generator).tolist()) for length in (5, 9, 30, 7, 12, 30)]
    items = tuple(
        task_scores.TaskText(row, tuple(task_scores.Question(at, 3, (3, 4)) for at in range(1, len(row))))
        for row in rows
    )
    task = task_scores.Task("any", items, 0.5)
    seen: list[list[int]] = []
    plain = task_scores.logits_at

    def watched(lm: LanguageModel, ids: Tensor, positions: Tensor) -> Tensor:
        seen.extend(ids.tolist())
        return plain(lm, ids, positions)

    monkeypatch.setattr(task_scores, "logits_at", watched)

    def measured(batch_tokens: int, seed: int) -> tuple[list[bool], list[int]]:
        seen.clear()
        answers = task_scores.score(lm, task, "replace", batch_tokens=batch_tokens, seed=seed).tolist()
        assert [tuple(row[1 : len(given)]) for row, given in zip(seen, rows, strict=True)] == [row[1:] for row in rows]
        return answers, [row[0] for row in seen]

    of_seed = {seed: measured(1, seed) for seed in range(3)}
    for seed, (answers, first) in of_seed.items():
        for batch_tokens in (40, 10_000):
            assert measured(batch_tokens, seed) == (answers, first)
        assert set(first) <= {token for row in rows for token in row[1:]}
        expected = []
        for token, row in zip(first, rows, strict=True):
            with torch.no_grad():
                logits = lm.model(torch.tensor([(token, *row[1:])])).logits[0, 1:]
            expected += (logits[:, 3] >= logits[:, 4]).tolist()
        assert answers == expected
    assert len({tuple(first) for _, first in of_seed.values()}) == 3
    assert len({tuple(answers) for answers, _ in of_seed.values()}) == 3


def test_a_task_under_every_arm_is_the_same_in_any_batch() -> None:
    """On a real model; its texts differ in length, so that a batch of several is filled up."""
    lm = models.load("smollm2-135m")
    task = task_scores.cloze(lm)
    means = ordinary_means(lm, torch.tensor([[item.ids[i % len(item.ids)] for i in range(24)] for item in task.items]))
    for arm in removal.TASK_ARMS:
        alone, many = (task_scores.score(lm, task, arm, means, batch, seed=1).tolist() for batch in (1, 400))
        assert alone == many, arm
    shares = [task_scores.summary(lm, [task], ["replace"], seed=seed)["cloze"]["arms"]["replace"] for seed in (1, 2)]
    answers = task_scores.score(lm, task, "replace", seed=1).double().mean()
    assert shares[0]["value"] == pytest.approx(float(answers))


def test_options_limit_the_choice() -> None:
    lm = fake_lm(tiny_model("llama"))
    row = (1, 5, 6, 7)
    with torch.no_grad():
        order = lm.model(torch.tensor([row])).logits[0, -1].argsort(descending=True).tolist()
    question = task_scores.Question(3, order[3], (order[3], order[50], order[90]))
    assert task_scores.score(
        lm, task_scores.Task("any", (task_scores.TaskText(row, (question,)),), 1 / 3)
    ).tolist() == [True]
    question = replace(question, options=(order[3], order[0]))
    assert task_scores.score(
        lm, task_scores.Task("any", (task_scores.TaskText(row, (question,)),), 1 / 2)
    ).tolist() == [False]


def test_clear_messages(monkeypatch: pytest.MonkeyPatch) -> None:
    lm = models.load("smollm2-135m")
    with pytest.raises(FirstTokenError, match="too short to hide 8 facts"):
        task_scores.needle(lm, "auto", 100)
    with pytest.raises(FirstTokenError, match="reads at most 8192 tokens"):
        task_scores.needle(lm, "auto", 10000)
    same = ("He has a", "dog", ("dog", "dog", "dog"))
    for few in ([same], [CHOICES[0], same]):
        monkeypatch.setattr(task_scores, "CHOICES", few)
        with pytest.raises(FirstTokenError, match="cannot tell the options of two questions apart"):
            task_scores.multiple_choice(lm)
