"""Small tasks that need no network: cloze, multiple choice, copying, induction, retrieval from a long text.

Each is a list of texts with questions in them. A question is a position, the token that should come next and, where
options are given, the tokens to choose from; so one run over a text answers all its questions, under any arm.
"""

from __future__ import annotations

import itertools
import random
import re
from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace

import torch
from torch import Tensor

from firsttoken import statistics, texts
from firsttoken.errors import FirstTokenError
from firsttoken.estimates import JSON
from firsttoken.execution.shared_pass import together
from firsttoken.measures.ablations import Ablation, Means, drawn_tokens, inputs, intervened
from firsttoken.models import BosPolicy, LanguageModel
from firsttoken.models.out_of_memory import explain_out_of_memory
from firsttoken.probe import probe
from firsttoken.probe.interventions import Hook
from firsttoken.probe.losses import logits_at
from firsttoken.texts.task_items import CHOICES, CLOZE, PLACES, WORDS


@dataclass(frozen=True)
class Question:
    """After the token at `position` should come `answer`; `options` are what may be chosen, the answer among them,
    or empty for the whole vocabulary."""

    position: int
    answer: int
    options: tuple[int, ...] = ()


@dataclass(frozen=True)
class TaskText:
    """One input and the questions it holds."""

    ids: tuple[int, ...]
    questions: tuple[Question, ...]


@dataclass(frozen=True)
class Task:
    """A named set of questions with the share that blind guessing gets right."""

    name: str
    items: tuple[TaskText, ...]
    chance: float

    @property
    def n(self) -> int:
        return sum(len(item.questions) for item in self.items)

    def shortened(self, questions: int) -> Task:
        """Its first texts, whole, until they hold `questions` questions; all of it where it has no more than those."""
        up_to = list(itertools.accumulate(len(item.questions) for item in self.items))
        return replace(self, items=self.items[: bisect_left(up_to, questions) + 1])


def score(
    lm: LanguageModel,
    task: Task,
    arm: Ablation = "intact",
    means: Means | None = None,
    batch_tokens: int = 1024,
    seed: int = 0,
) -> Tensor:
    """Which questions a model answers under an arm: (question,), bool, in the order of the task.

    Args:
        seed: of the first tokens that `replace` draws from the task's own texts.
    """
    if arm == "replace":
        # Here and not in a batch, whose texts are others with other `batch_tokens` and end in what fills them up.
        task, arm = _with_random_first_tokens(task, seed), "intact"

    def read(ids: Tensor, positions: Tensor) -> Tensor:
        given, moved = inputs(lm, ids, arm)
        with intervened(lm, arm, means):
            return logits_at(lm, given, positions + moved)

    return _answered(task, read, batch_tokens)


def _with_random_first_tokens(task: Task, seed: int) -> Task:
    ordinary = torch.tensor([token for item in task.items for token in item.ids[1:]])
    drawn = drawn_tokens(ordinary, len(task.items), seed).tolist()
    return replace(
        task,
        items=tuple(replace(item, ids=(token, *item.ids[1:])) for token, item in zip(drawn, task.items, strict=True)),
    )


def score_under(lm: LanguageModel, task: Task, hook: Hook | None, batch_tokens: int = 1024) -> Tensor:
    """Which questions a model answers with every attention call changed by `hook`: (question,), bool."""

    def read(ids: Tensor, positions: Tensor) -> Tensor:
        with probe(lm.model, hook=hook):
            return logits_at(lm, ids, positions)

    return _answered(task, read, batch_tokens)


def _answered(task: Task, read: Callable[[Tensor, Tensor], Tensor], batch_tokens: int) -> Tensor:
    """Which questions are answered, (question,), bool, where `read` gives the logits (text, position, vocabulary) of
    texts (text, token) at positions (position,)."""
    answers: list[bool] = []
    for group in _batches(task.items, batch_tokens):
        width = max(len(item.ids) for item in group)
        # Attention is causal, so what fills a shorter row on the right changes nothing before it.
        ids = torch.tensor([(*item.ids, *item.ids[-1:] * (width - len(item.ids))) for item in group])
        positions = sorted({question.position for item in group for question in item.questions})
        remedy = f"lower batch_tokens (now {batch_tokens}) or the length of the retrieval task"
        with torch.inference_mode(), explain_out_of_memory(remedy):
            logits = read(ids, torch.tensor(positions))
        for row, item in zip(logits, group, strict=True):
            for question in item.questions:
                answers.append(is_right(question, row[positions.index(question.position)]))
    return torch.tensor(answers)


def summary(
    lm: LanguageModel,
    chosen: Sequence[Task],
    arms: Sequence[Ablation],
    means: Means | None = None,
    batch_tokens: int = 1024,
    seed: int = 0,
    execution: str = "resident",
) -> JSON:
    """{task: `chance`, `questions`, `arms` {arm: share of right answers with an interval over questions}}."""

    def scored(task: Task, arm: Ablation) -> Callable[[LanguageModel], Tensor]:
        return lambda lm: score(lm, task, arm, means, batch_tokens, seed)

    right = together(lm, {(task.name, arm): scored(task, arm) for task in chosen for arm in arms}, execution)
    return {
        task.name: {
            "chance": task.chance,
            "questions": task.n,
            "arms": {arm: asdict(statistics.bootstrap(right[task.name, arm].double(), seed=seed)) for arm in arms},
        }
        for task in chosen
    }


def is_right(question: Question, logits: Tensor) -> bool:
    """Whether the likeliest token, among the options where there are any, is the answer; logits (vocabulary,)."""
    if question.options:
        options = torch.tensor(question.options)
        return int(options[logits.cpu()[options].argmax()]) == question.answer
    return int(logits.argmax()) == question.answer


def _batches(items: Sequence[TaskText], batch_tokens: int) -> list[list[TaskText]]:
    """Texts of similar length together, in order, no more than `batch_tokens` tokens in a batch."""
    groups: list[list[TaskText]] = []
    for item in items:
        width = max(len(other.ids) for other in [item, *(groups[-1] if groups else [])])
        if groups and width * (len(groups[-1]) + 1) <= batch_tokens:
            groups[-1].append(item)
        else:
            groups.append([item])
    return groups


# -- the tasks ----------------------------------------------------------------------------------------------


def standard_tasks(lm: LanguageModel, bos: BosPolicy, needle_length: int, questions: int, seed: int = 0) -> list[Task]:
    """The five tasks of the chapter `removal`, of each the texts that hold its first `questions` questions."""
    tasks = (
        cloze(lm, bos),
        multiple_choice(lm, bos),
        copying(lm, bos, seed=seed),
        induction(lm, bos, seed=seed),
        needle(lm, bos, needle_length, count=3, seed=seed),
    )
    return [task.shortened(questions) for task in tasks]


def cloze(lm: LanguageModel, bos: BosPolicy = "auto") -> Task:
    """The last word of a sentence, out of the whole vocabulary."""
    items = []
    for text, answer in CLOZE:
        ids = (*lm.prefix(bos), *_tokens(lm, text))
        items.append(TaskText(ids, (Question(len(ids) - 1, _tokens(lm, " " + answer)[0]),)))
    return Task("cloze", tuple(items), 1 / lm.config.get_text_config().vocab_size)


def multiple_choice(lm: LanguageModel, bos: BosPolicy = "auto") -> Task:
    """The likeliest of four words. A question whose words begin with the same token is left out."""
    items = []
    for text, right, wrong in CHOICES:
        ids = (*lm.prefix(bos), *_tokens(lm, text))
        options = tuple(_tokens(lm, " " + word)[0] for word in (right, *wrong))
        if len(set(options)) == len(options):
            items.append(TaskText(ids, (Question(len(ids) - 1, options[0], options),)))
    if len(items) < 2:  # of which there is no interval
        raise FirstTokenError(f"The tokenizer of {lm.name} cannot tell the options of two questions apart.")
    return Task("multiple choice", tuple(items), 1 / 4)


def copying(lm: LanguageModel, bos: BosPolicy = "auto", length: int = 16, count: int = 3, seed: int = 0) -> Task:
    """Random words, then the same words again: every word of the second half but the first, out of the vocabulary.

    The chance given is that of someone who knows the words and guesses among them.
    """
    draw = random.Random(seed)
    items = []
    for _ in range(count):
        words = [token for _, token in draw.sample(_single_words(lm, length), length)]
        ids = (*lm.prefix(bos), *words, *words)
        start = len(ids) - length
        questions = [Question(position, ids[position + 1]) for position in range(start, len(ids) - 1)]
        items.append(TaskText(ids, tuple(questions)))
    return Task("copying", tuple(items), 1 / length)


def induction(lm: LanguageModel, bos: BosPolicy = "auto", pairs: int = 8, count: int = 3, seed: int = 0) -> Task:
    """A made-up dictionary of word pairs, then its keys in another order: which of the values belongs to the key?"""
    draw = random.Random(seed + 1)
    arrow, end = _tokens(lm, " ="), _tokens(lm, "\n")
    items = []
    for _ in range(count):
        chosen = [token for _, token in draw.sample(_single_words(lm, 2 * pairs), 2 * pairs)]
        book = list(zip(chosen[:pairs], chosen[pairs:], strict=True))
        ids = list(lm.prefix(bos))
        for key, value in book:
            ids += [key, *arrow, value, *end]
        questions = []
        for key, value in draw.sample(book, pairs):
            ids += [key, *arrow]
            questions.append(Question(len(ids) - 1, value, tuple(chosen[pairs:])))
            ids += [value, *end]
        items.append(TaskText(tuple(ids), tuple(questions)))
    return Task("induction", tuple(items), 1 / pairs)


def needle(lm: LanguageModel, bos: BosPolicy, length: int, questions: int = 8, count: int = 1, seed: int = 0) -> Task:
    """Facts hidden at even distances in running prose, asked for at the end: which of the words belongs to the place?

    The answers given so far stay in the text, so the form of an answer is known from the second question on.

    Args:
        length: tokens of each text, BOS included.
        questions: facts in each text.
        count: texts, with different prose.

    Raises:
        FirstTokenError: the text is too short to hold the facts, or longer than the model can read.
    """
    config = lm.config.get_text_config()
    longest = getattr(config, "max_position_embeddings", None)
    if longest is not None and length > longest:
        raise FirstTokenError(f"{lm.name} reads at most {longest} tokens; lower the length {length}.")
    items = tuple(_hidden_facts(lm, bos, length, questions, number, seed) for number in range(count))
    return Task(f"retrieval, {length} tokens", items, 1 / questions)


def _hidden_facts(lm: LanguageModel, bos: BosPolicy, length: int, questions: int, number: int, seed: int) -> TaskText:
    draw = random.Random(seed + 2 + number)
    begins = [_tokens(lm, f" The secret word of the {place} is") for place in draw.sample(PLACES, questions)]
    stop, newline = _tokens(lm, "."), _tokens(lm, "\n")
    head = list(lm.prefix(bos))
    # Every fact stands once in the prose and once, after a new line, at the end; both with a word and a full stop.
    facts_length = sum(2 * (len(begin) + 1 + len(stop)) + len(newline) for begin in begins)
    room = length - len(head) - facts_length
    if room < 4 * questions:
        raise FirstTokenError(f"A text of {length} tokens is too short to hide {questions} facts; raise the length.")
    prose = _prose(lm, room, start=64 + 24 * number)
    unused = [token for _, token in _single_words(lm, questions) if token not in prose]
    in_facts = {token for begin in begins for token in begin}
    if sum(token not in in_facts for token in unused) < questions:
        raise FirstTokenError(f"The prose of {length} tokens uses too many of the words to hide; lower the length.")
    # Drawn among all, so that texts without such a place are those of older records.
    drawn = draw.sample(unused, questions)
    spare = (token for token in unused if token not in in_facts and token not in drawn)
    options = tuple(next(spare) if token in in_facts else token for token in drawn)
    facts = [(*begin, token) for begin, token in zip(begins, options, strict=True)]
    asked = [((*newline, *facts[i][:-1]), facts[i][-1]) for i in draw.sample(range(questions), questions)]
    ids = head
    step = room // questions
    for i, fact in enumerate(facts):
        ids += [*prose[i * step : (i + 1) * step], *fact, *stop]
    ids += prose[questions * step :]
    asks = []
    for ask, answer in asked:
        ids += ask
        asks.append(Question(len(ids) - 1, answer, options))
        ids += [answer, *stop]
    return TaskText(tuple(ids), tuple(asks))


def _tokens(lm: LanguageModel, text: str) -> tuple[int, ...]:
    return tuple(lm.tokenizer(text, add_special_tokens=False).input_ids)


def _single_words(lm: LanguageModel, least: int) -> list[tuple[str, int]]:
    """Words that are one token after a space, with that token."""
    words = [(word, ids[0]) for word in WORDS if len(ids := _tokens(lm, " " + word)) == 1]
    if len(words) < least:
        raise FirstTokenError(
            f"The tokenizer of {lm.name} has {len(words)} of this task's words as single tokens; {least} are needed."
        )
    return words


def _prose(lm: LanguageModel, length: int, start: int) -> list[int]:
    """`length` tokens of the project's passages from number `start` on, sentence by sentence."""
    ids: list[int] = []
    for passage in itertools.cycle(texts.passages()[start:]):
        for sentence in re.split(r"(?<=[.!?])\s+", passage.text):
            ids += _tokens(lm, " " + sentence.strip())
        if len(ids) >= length:
            return ids[:length]
    return ids
