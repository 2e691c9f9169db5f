"""Training `Smallest` on the bigram-backcopy task: many seeds at once, each as if it were alone.

>>> runs = train(Setting(length=64, steps=300, enough=None), seeds=range(10))
>>> runs[0].history[-1]["first_away"]   # attention to the first token away from triggers

The weights of all seeds are stacked along a first dimension and run through one vectorised model; the loss is the sum
over seeds, so that no seed's gradient sees another's, and AdamW works element by element. A seed decides its chain,
its initial weights and its texts. One that is done leaves the stack, and the others no longer pay for it.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.func import functional_call, stack_module_state, vmap

from firsttoken.errors import FirstTokenError
from firsttoken.measures import resting
from firsttoken.pretraining import backcopy
from firsttoken.pretraining.backcopy import Backcopy
from firsttoken.pretraining.recipe import Recipe
from firsttoken.pretraining.smallest import Reading, Smallest, Variant, losses

Point = dict[str, float]  # see `look`
_TEXTS, _WEIGHTS = 1 << 20, 2 << 20  # added to a seed, so that chain, texts and weights do not share random bits
PLAIN = Recipe()
HELD_OUT = 8192  # tokens on which a seed is measured, the same at every step


@dataclass(frozen=True, kw_only=True)
class Setting:
    """A model, a task, and how long to train."""

    length: int = 64  # tokens of a text, BOS included
    variant: Variant = "softmax"
    symbols: int = 64
    triggers: int = 3
    bos: bool = True
    width: int = 64
    learning_rate: float = 3e-3
    tokens_per_step: int = 4096
    steps: int = 300  # at most, `settle` not counted
    enough: float | None = None  # loss at triggers below which a seed has learnt the task; None: it takes all steps
    settle: int = 0  # steps that a seed goes on after it has learnt the task
    every: int = 25  # steps between two points of the history

    def __post_init__(self) -> None:
        if self.length < 4 or self.tokens_per_step % self.length or HELD_OUT % self.length:
            raise FirstTokenError(
                f"Texts of {self.length} tokens do not divide a step of {self.tokens_per_step} and the held-out "
                f"{HELD_OUT}; use a power of two of 4 or more."
            )
        if self.steps < 1 or self.every < 1 or self.settle % self.every:
            raise FirstTokenError(
                "Training takes at least one step, points are at least one step apart, and `settle` is a multiple of "
                "`every`."
            )

    def task(self, seed: int) -> Backcopy:
        return Backcopy(symbols=self.symbols, triggers=self.triggers, bos=self.bos, seed=seed)

    def model(self, seed: int) -> Smallest:
        """The model as it begins."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed + _WEIGHTS)
            return Smallest(self.symbols + 1, self.length, self.width, self.variant)


@dataclass(frozen=True, kw_only=True)
class Run:
    """One seed: the trained model in evaluation mode, and what it showed on the way."""

    seed: int
    model: Smallest
    history: list[Point]
    learnt: int | None  # the first step of the history at which the loss at triggers was below `enough`

    @property
    def steps(self) -> int:
        return int(self.history[-1]["step"])


def look(reading: Reading, ids: Tensor, task: Backcopy) -> Point:
    """What one model shows on texts (text, token).

    Attention is a mean over queries but the first of each text:
    `first_`, `itself_`, `previous_` and `row_` (see `resting.places`), each `_at` triggers and `_away` from them;
    `value_norm`: that of the first token over the mean of the others'; the same of a second head under names that end
    in `_1`. `loss_at` and `loss_away` in nats, `depth_at` and `depth_away` where the model has a gate. What there is
    nothing to average over is NaN.
    """
    at = backcopy.is_trigger(ids, task)
    loss = losses(reading.logits, ids)[:, 1:]
    shown: Point = {}
    for where, mask in (("at", at), ("away", ~at)):
        shown[f"loss_{where}"] = float(loss[mask[:, 1:-1]].mean())
        if bool((reading.depth != 1).any()):
            shown[f"depth_{where}"] = float(reading.depth[mask].mean())
    for head in range(reading.attention.shape[1]):
        own = f"_{head}" if head else ""
        sizes = reading.value[:, head].norm(dim=-1)
        shown[f"value_norm{own}"] = float(sizes[:, 0].mean() / sizes[:, 1:].mean())
        for where, mask in (("at", at), ("away", ~at)):
            seen = resting.places(reading.attention[:, head], mask)
            shown |= {f"{place}_{where}{own}": mean for place, mean in seen.items()}
    return shown


def train(
    setting: Setting,
    seeds: Sequence[int],
    say: Callable[[str], None] = lambda line: None,
    dtype: torch.dtype = torch.float32,
    recipe: Recipe = PLAIN,
) -> list[Run]:
    """Train one model for each seed, all at once; the history has a point at step 0 and every few steps.

    Points are taken on plain texts of the setting's length, whatever the recipe trains on.

    Raises:
        FirstTokenError: no seeds, or one twice; a recipe whose lengths do not divide a step or exceed the setting's.
    """
    for _, length in recipe.lengths:
        if length > setting.length or setting.tokens_per_step % length:
            raise FirstTokenError(
                f"Texts of {length} tokens are no stage of a model for {setting.length}: a stage is no longer than "
                f"the model's texts and divides a step of {setting.tokens_per_step} tokens."
            )
    if not seeds or len(set(seeds)) != len(seeds):
        raise FirstTokenError("Name at least one seed, and none twice.")
    begun = time.perf_counter()
    stack = _Stack(setting, list(seeds), dtype, recipe)
    histories: dict[int, list[Point]] = {seed: [] for seed in seeds}
    learnt: dict[int, int] = {}
    done: dict[int, Run] = {}
    for step in itertools.count():
        if step % setting.every == 0 or step == setting.steps:
            for seed, point in zip(stack.seeds, stack.look(), strict=True):
                histories[seed].append({"step": step, **point})
                if setting.enough is not None and point["loss_at"] < setting.enough and step <= setting.steps:
                    learnt.setdefault(seed, step)
            ended = [step >= (learnt[s] + setting.settle if s in learnt else setting.steps) for s in stack.seeds]
            for place, seed in enumerate(stack.seeds):
                if ended[place]:
                    model = stack.unstacked(place)
                    done[seed] = Run(seed=seed, model=model, history=histories[seed], learnt=learnt.get(seed))
            say(f"step {step}: {len(done)} of {len(seeds)} seeds done, {time.perf_counter() - begun:.0f} s")
            if all(ended):
                break
            if any(ended):
                stack.keep([place for place, has_ended in enumerate(ended) if not has_ended])
        stack.step(step)
    return [done[seed] for seed in seeds]


class _Stack:
    """The seeds in training: stacked weights, optimiser, random numbers."""

    def __init__(self, setting: Setting, seeds: list[int], dtype: torch.dtype, recipe: Recipe) -> None:
        self.setting, self.seeds, self.recipe = setting, seeds, recipe
        models = [setting.model(seed).to(dtype) for seed in seeds]
        self.one = models[0]
        stacked, _ = stack_module_state(models)
        self.weights: dict[str, Tensor] = dict(stacked)
        self.optimiser = torch.optim.AdamW(self.weights.values(), lr=setting.learning_rate, fused=True)
        self.random = [torch.Generator().manual_seed(seed + _TEXTS) for seed in seeds]
        self.chains = torch.stack([setting.task(seed).cumulative() for seed in seeds])
        shape = HELD_OUT // setting.length, setting.length
        self.held_out = PLAIN.draw(self.chains, self.random, *shape, setting.task(0))

    def _read(self, ids: Tensor) -> Reading:
        return vmap(lambda weights, own: functional_call(self.one, weights, (own,)))(self.weights, ids)

    def step(self, number: int) -> None:
        task, recipe = self.setting.task(0), self.recipe
        length = recipe.length(number, self.setting.length)
        ids = recipe.draw(self.chains, self.random, self.setting.tokens_per_step // length, length, task)
        read = self._read(recipe.inputs(ids, self.random, task))
        loss = losses(read.logits.flatten(0, 1), ids.flatten(0, 1)).view(len(self.seeds), -1).mean(1)
        loss = loss + recipe.penalty(read.attention) if recipe.first_penalty else loss
        self.optimiser.zero_grad()
        loss.sum().backward()
        self.optimiser.step()

    def look(self) -> list[Point]:
        with torch.no_grad():
            seen = self._read(self.held_out)
        task = self.setting.task(0)
        each = zip(*seen, self.held_out, strict=True)
        return [look(Reading(*parts), ids, task) for *parts, ids in each]

    def unstacked(self, place: int) -> Smallest:
        model = self.setting.model(self.seeds[place]).to(self.weights["token.weight"].dtype)
        model.load_state_dict({name: weight[place].detach() for name, weight in self.weights.items()})
        return model.eval().requires_grad_(False)

    def keep(self, places: list[int]) -> None:
        """Go on with these seeds only; the optimiser's moments go with them."""
        before = self.optimiser.state
        moments = {name: before[weight] for name, weight in self.weights.items()}
        self.weights = {
            name: weight.detach()[places].clone().requires_grad_() for name, weight in self.weights.items()
        }
        self.optimiser = torch.optim.AdamW(self.weights.values(), lr=self.setting.learning_rate, fused=True)
        for name, weight in self.weights.items():
            self.optimiser.state[weight] = {
                kind: moment if kind == "step" else moment[places].clone() for kind, moment in moments[name].items()
            }
        self.seeds = [self.seeds[place] for place in places]
        self.random = [self.random[place] for place in places]
        self.chains, self.held_out = self.chains[places], self.held_out[places]
