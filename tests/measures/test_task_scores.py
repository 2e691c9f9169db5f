"""The small tasks: what they ask can be answered, and answers are counted right."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from fake import fake_lm
from firsttoken import models
from firsttoken.claims.compression import tasks as compression
from firsttoken.claims.removal import measure as removal
from firsttoken.errors import FirstTokenError
from firsttoken.measures import task_scores
from firsttoken.measures.ablations import ordinary_means
from firsttoken.models import LanguageModel
from firsttoken.models.bundled import BUNDLED
from firsttoken.texts.task_items import CHOICES, CLOZE, WORDS
from tiny import tiny_model


@pytest.fixture(params=BUNDLED)
def lm(request: pytest.FixtureRequest) -> LanguageModel:
    return models.load(request.param)


def test_items_are_different_and_their_answers_among_the_options() -> None:
    assert len({text for text, _ in CLOZE}) == len(CLOZE)
    assert len(set(WORDS)) == len(WORDS)
    for text, right, wrong in CHOICES:
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


def test_clear_messages() -> None:
    lm = models.load("smollm2-135m")
    with pytest.raises(FirstTokenError, match="too short to hide 8 facts"):
        task_scores.needle(lm, "auto", 100)
    with pytest.raises(FirstTokenError, match="reads at most 8192 tokens"):
        task_scores.needle(lm, "auto", 10000)
