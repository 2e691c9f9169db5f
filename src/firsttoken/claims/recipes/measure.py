"""Five ways of training that say something about the first token, on the smallest model that has a sink."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from firsttoken import statistics
from firsttoken.claims.recipes import on_text
from firsttoken.claims.recipes.outcomes import outcomes
from firsttoken.claims.recipes.verdict import PLAIN, PROMISES, judge, pairs
from firsttoken.errors import FirstTokenError
from firsttoken.estimates import JSON
from firsttoken.pretraining.one_head import OneLayer, alone, of_parts
from firsttoken.pretraining.recipe import Recipe
from firsttoken.pretraining.smallest_training import Setting, train
from firsttoken.pretraining.trained import TrainedMeasurement
from firsttoken.ranges import at_least, in_range

CLAIM = "recipes"
VERSION = 1


@dataclass(frozen=True, kw_only=True)
class Parameters:
    """What is asked."""

    seeds: int = 10  # models of each recipe
    length: int = 64  # tokens of a text, BOS included
    steps: int = 1000  # of training, for every recipe
    enough: float = 0.2  # loss at triggers, in nats, below which a seed has learnt the task
    penalty: float = 0.03  # nats of loss for attention to the first token, and the reward for it
    replaced: float = 0.05  # share of the tokens that one recipe replaces
    without_bos: float = 0.5  # share of the texts without BOS in another

    def __post_init__(self) -> None:
        in_range(self)
        at_least(1, seeds=self.seeds)
        at_least(4, steps=self.steps)
        at_least(16, length=self.length)
        for name, value in (("enough", self.enough), ("penalty", self.penalty)):
            if not 0 < value < 1000:
                raise FirstTokenError(f"`{name}` is a number of nats above 0, not {value}.")

    @property
    def setting(self) -> Setting:
        return Setting(length=self.length, steps=self.steps)

    @property
    def recipes(self) -> dict[str, Recipe]:
        """By name, plain training first."""
        stages = [(0, self.length // 4), (self.steps // 4, self.length // 2), (self.steps // 2, self.length)]
        return {
            PLAIN: Recipe(),
            "growing_context": Recipe(lengths=tuple(stages)),
            "sink_penalised": Recipe(first_penalty=self.penalty),
            "sink_rewarded": Recipe(first_penalty=-self.penalty),
            "tokens_replaced": Recipe(replaced=self.replaced),
            "bos_in_half": Recipe(without_bos=self.without_bos),
        }


@dataclass(frozen=True, kw_only=True)
class OfRecipe(Parameters):
    """What is asked of one recipe."""

    recipe: str


def parts(parameters: Parameters) -> list[OfRecipe]:
    """What is asked of each recipe."""
    return [OfRecipe(**asdict(parameters), recipe=recipe) for recipe in parameters.recipes]


def run_part(asked: OfRecipe, models: OneLayer) -> JSON:
    """`each`: the `outcomes` of every seed of one recipe."""
    runs = train(asked.setting, range(asked.seeds), recipe=asked.recipes[asked.recipe])
    return {"each": [outcomes(run, asked.setting, asked.enough) for run in runs]}


def run(parameters: Parameters, models: OneLayer) -> JSON:
    """The values of `recipes/one-head.json`.

    `by_recipe` {recipe: for each seed its `outcomes`}, `kept`, the share of pairs (recipe, seed) in which the recipe's
    promise holds, among seeds that learn the task by plain training.
    """
    return summary({asked.recipe: part["each"] for asked, part in models.parts.items()})


def summary(by_recipe: dict[str, list[JSON]]) -> JSON:
    """All recipes side by side, and how often promises hold."""
    values: JSON = {"by_recipe": by_recipe}
    holds = [[promise.holds(*pair) for pair in pairs(values, name)] for name, promise in PROMISES.items()]
    return values | {"kept": statistics.share_of_pairs(holds)}


PART = TrainedMeasurement(
    claim=CLAIM,
    parameters=OfRecipe,
    models=alone,
    run=run_part,
    version=VERSION,
    variant=lambda asked: asked.recipe.replace("_", "-"),
)
MEASUREMENT = TrainedMeasurement(
    claim=CLAIM,
    parameters=Parameters,
    models=lambda asked, *how: of_parts(PART, parts(asked), *how),
    run=run,
    judge=judge,
    version=VERSION,
)
TRAINED = (MEASUREMENT, on_text.MEASUREMENT)
