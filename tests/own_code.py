"""A small model that comes with Python code of its own."""

from __future__ import annotations

import json
from pathlib import Path

from tiny import tiny_model


def with_own_code(folder: Path, **more: str) -> str:
    """A small model whose configuration names classes in a file beside it."""
    tiny_model("llama").save_pretrained(folder)
    told = json.loads((folder / "config.json").read_text())
    told |= {"auto_map": {"AutoConfig": "my.MyConfig", "AutoModelForCausalLM": "my.MyModel"}, **more}
    (folder / "config.json").write_text(json.dumps(told))
    (folder / "my.py").write_text(
        "from transformers import LlamaConfig, LlamaForCausalLM\n"
        f"class MyConfig(LlamaConfig):\n    model_type = {told['model_type']!r}\n"
        "class MyModel(LlamaForCausalLM):\n    config_class = MyConfig\n"
    )
    return str(folder)
