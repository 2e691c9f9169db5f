"""The small tasks: what they ask can be answered, and answers are counted right."""

from __future__ import annotations

import pytest
import torch

from firsttoken import models, tasks
from firsttoken.bundled import BUNDLED
from firsttoken.errors import FirstTokenError
from firsttoken.models import LanguageModel
from firsttoken.task_items import CHOICES, CLOZE, WORDS
from small_lm import small_lm


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
    for task in tasks.standard_tasks(lm, "auto", 512):
        assert task.n >= 8
        for item in task.items:
            assert list(item.ids[: len(lm.prefix("auto"))]) == lm.prefix("auto")
            for question in item.questions:
                if question.options:
                    assert question.answer in question.options
                    assert len(question.options) == round(1 / task.chance)
                if question.position + 1 < len(item.ids):
                    assert item.ids[question.position + 1] == question.answer


def test_retrieval_hides_each_fact_once_before_it_is_asked_for(lm: LanguageModel) -> None:
    for length in (512, 1024):
        (item,) = tasks.needle(lm, "auto", length, questions=8).items
        assert len(item.ids) == length
        first_question = min(question.position for question in item.questions)
        places = [item.ids.index(question.answer) for question in item.questions]
        assert max(places) < first_question
        assert max(places) - min(places) > length // 3, "the facts lie beside each other"
        for question in item.questions:
            asked = lm.tokenizer.decode(list(item.ids[question.position - 6 : question.position + 1]))
            fact = lm.tokenizer.decode(list(item.ids[item.ids.index(question.answer) - 4 :])[:4])
            assert asked.endswith(fact), (asked, fact)


def test_score_against_a_loop_over_plain_logits(lm: LanguageModel) -> None:
    for task in (tasks.cloze(lm), tasks.multiple_choice(lm)):
        expected = []
        for item in task.items:
            (question,) = item.questions
            with torch.inference_mode():
                logits = lm.model(torch.tensor([item.ids])).logits[0, -1]
            among = question.options or range(len(logits))
            expected.append(max(among, key=lambda token, logits=logits: logits[token].item()) == question.answer)
        assert tasks.score(lm, task).tolist() == expected
        assert sum(expected) / len(expected) > 2 * task.chance, "too hard with BOS to show a loss without it"


def test_a_shift_of_the_input_does_not_shift_the_answers() -> None:
    """Deleting the first token moves all positions by one; masking does the same to the model without moving any."""
    lm = small_lm("llama")
    item = tuple(torch.randint(3, 97, (20,), generator=torch.Generator().manual_seed(0)).tolist())
    questions = tuple(tasks.Question(q, item[q + 1], tuple(range(3, 97, 7)) + (item[q + 1],)) for q in (4, 9, 18))
    task = tasks.Task("made up", (tasks.TaskText(item, questions), tasks.TaskText(item[:12], questions[:2])), 0.07)
    scores = [tasks.score(lm, task, arm, batch_tokens=tokens) for arm in ("delete", "mask") for tokens in (20, 99)]
    assert all(torch.equal(found, scores[0]) for found in scores)


def test_clear_messages() -> None:
    lm = models.load("smollm2-135m")
    with pytest.raises(FirstTokenError, match="too short to hide 8 facts"):
        tasks.needle(lm, "auto", 100)
    with pytest.raises(FirstTokenError, match="reads at most 8192 tokens"):
        tasks.needle(lm, "auto", 10000)
