"""Maps of one passage on the bundled models, against eager attention; the passage by its name, and the verdict."""

from __future__ import annotations

import pytest
import torch

from firsttoken import models, records, texts
from firsttoken.claims.phenomenon import measure as phenomenon
from firsttoken.errors import FirstTokenError
from firsttoken.measures import attention_maps
from firsttoken.models import LanguageModel
from firsttoken.models.bundled import BUNDLED
from real_models import eager_maps

pytestmark = pytest.mark.usefixtures("own_store")


@pytest.fixture(params=BUNDLED)
def lm(request: pytest.FixtureRequest) -> LanguageModel:
    return models.load(request.param)


def test_packed_maps_come_back(lm: LanguageModel) -> None:
    parameters = phenomenon.Parameters(text=texts.passages()[0].text, length=20)
    record = phenomenon.MEASUREMENT.record(lm, parameters)
    maps = eager_maps(lm, texts.encode(lm, [texts.passages()[0].text], 20))[1][0]
    for layer, head in ((0, 0), (5, 2), (maps.shape[0] - 1, maps.shape[1] - 1)):
        unpacked = attention_maps.unpack(record.values["maps"][layer][head])
        torch.testing.assert_close(unpacked, maps[layer, head], atol=1 / 510 + 1e-4, rtol=0)


@pytest.mark.parametrize(("mass", "status"), [(0.5, "reproduced"), (0.2, "partly"), (0.12, "not reproduced")])
def test_one_passage_shows_sinks_or_does_not(mass: float, status: str) -> None:
    measured = {"mass": mass, "even": 0.1, "sink_rate": 0.4}
    judged = phenomenon.judge(records.Record("phenomenon", "tiny", {"length": 24, "epsilon": 0.3}, measured, {}))
    assert judged.status == status
    assert f"The first of 24 tokens gets {mass:.1%} of all attention, {mass / 0.1:.1f} times" in judged.sentence


def test_a_passage_is_recorded_in_full_and_found_by_its_name(lm: LanguageModel) -> None:
    passage = texts.passages()[0]
    named = phenomenon.MEASUREMENT.record(lm, phenomenon.Parameters(text=passage.name, length=4))
    assert named.parameters["text"] == passage.text
    assert phenomenon.MEASUREMENT.record(lm, phenomenon.Parameters(text=passage.text, length=4)) == named
    assert phenomenon.MEASUREMENT.record(lm, phenomenon.Parameters(text=passage.name, length=4)) == named
    with pytest.raises(FirstTokenError, match="length must be at least 2, not 1"):
        phenomenon.Parameters(length=1)
