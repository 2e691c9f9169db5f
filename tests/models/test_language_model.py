"""A model that was found: what a record says of it, whose code it runs, and files that change after it was found."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel

from firsttoken import models, records
from firsttoken.errors import FirstTokenError
from own_code import with_own_code
from small_gguf import small_llama, write_gguf
from tiny import tiny_model


def test_code_in_a_folder_runs_only_where_it_is_trusted(tmp_path: Path) -> None:
    folder = with_own_code(tmp_path, model_type="mine")
    lm = models.load(folder, device="cpu", trust_remote_code=True)
    assert type(lm.model).__name__ == "MyModel"
    assert lm.provenance()["weights"] == {"checked": True}
    assert lm.provenance()["code"] == "its own"
    with pytest.raises(FirstTokenError, match="which may do all that you may; read it, then set trust_remote_code"):
        _ = models.load(folder, device="cpu").model


def test_a_record_made_with_a_models_own_code_is_not_that_of_the_model_without(tmp_path: Path) -> None:
    folder = with_own_code(tmp_path)
    store = tmp_path / "store"
    measured: list[bool] = []
    for trusted in (False, True, False, True):
        lm = models.load(folder, device="cpu", trust_remote_code=trusted)
        records.reuse_or_measure(
            "claim", model=lm, parameters={}, texts_hash="t", store=store,
            measure=lambda trusted=trusted: measured.append(trusted) or {"trusted": trusted},
        )  # fmt: skip
    assert measured[:2] == [False, True], "neither answers for the other"
    assert "code" not in models.load(folder).provenance()
    assert models.load(folder).provenance()["code_left_aside"] == "true"
    assert "code_left_aside" not in models.load(folder, trust_remote_code=True).provenance()


def rewrite(folder: Path) -> None:
    tiny_model("llama", seed=1).save_pretrained(folder)


@pytest.mark.parametrize("part", ["config", "tokenizer", "model"])
def test_files_that_are_replaced_after_load_are_not_read_under_the_old_name(tmp_path: Path, part: str) -> None:
    tiny_model("llama").save_pretrained(tmp_path)
    Tokenizer(WordLevel({"a": 0}, unk_token="a")).save(str(tmp_path / "tokenizer.json"))
    lm = models.load(tmp_path, device="cpu")
    rewrite(tmp_path)
    with pytest.raises(FirstTokenError, match="were changed while they were in use, so a record could not say"):
        getattr(lm, part)


def test_a_gguf_file_that_is_replaced_after_load(tmp_path: Path) -> None:
    file = write_gguf(tmp_path / "a.gguf", small_llama())
    lm = models.load(file)
    other = small_llama()
    with torch.no_grad():
        other.lm_head.weight.mul_(2)
    write_gguf(file, other)
    with pytest.raises(FirstTokenError, match="was changed while it was read"):
        _ = lm.model
    again = models.load(file)
    torch.testing.assert_close(again.model.lm_head.weight, other.lm_head.weight)


def test_more_layers_than_tensors_are_refused_at_once(tmp_path: Path) -> None:
    tiny_model("llama").save_pretrained(tmp_path)
    told = json.loads((tmp_path / "config.json").read_text()) | {"num_hidden_layers": 9999}
    told.pop("layer_types", None)
    (tmp_path / "config.json").write_text(json.dumps(told))
    start = time.process_time()
    with pytest.raises(FirstTokenError, match="tensors, too few for the 9999 layers of its configuration"):
        _ = models.load(tmp_path).model
    assert time.process_time() - start < 5


def test_code_of_the_tokenizer_alone_is_code_too(tmp_path: Path) -> None:
    tiny_model("llama").save_pretrained(tmp_path)
    Tokenizer(WordLevel({"a": 0, "b": 1}, unk_token="a")).save(str(tmp_path / "tokenizer.json"))
    told = {"auto_map": {"AutoTokenizer": [None, "mytok.Mine"]}, "tokenizer_class": "Mine"}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(told))
    (tmp_path / "mytok.py").write_text(
        "from transformers import PreTrainedTokenizerFast\nclass Mine(PreTrainedTokenizerFast):\n    pass\n"
    )
    assert models.load(tmp_path, trust_remote_code=True).provenance()["code"] == "its own"
    assert "code" not in models.load(tmp_path).provenance()


def test_a_model_with_own_code_may_use_a_layer_many_times(tmp_path: Path) -> None:
    folder = Path(with_own_code(tmp_path, model_type="mine"))
    (folder / "my.py").write_text(
        "import torch\nfrom transformers import LlamaConfig, LlamaForCausalLM\n"
        "class MyConfig(LlamaConfig):\n    model_type = 'mine'\n"
        "class MyModel(LlamaForCausalLM):\n    config_class = MyConfig\n"
        "    def __init__(self, config):\n        layers, config.num_hidden_layers = config.num_hidden_layers, 4\n"
        "        super().__init__(config)\n        config.num_hidden_layers = layers\n"
    )
    told = json.loads((folder / "config.json").read_text()) | {"num_hidden_layers": 400}
    told.pop("layer_types", None)
    (folder / "config.json").write_text(json.dumps(told))
    assert models.load(folder, trust_remote_code=True).weights.told() == {"checked": True}


def test_a_gguf_file_that_is_gone(tmp_path: Path) -> None:
    file = write_gguf(tmp_path / "a.gguf", small_llama())
    lm = models.load(file)
    file.unlink()
    with pytest.raises(FirstTokenError, match=r"a\.gguf is not there any more; put it back"):
        lm.provenance()
