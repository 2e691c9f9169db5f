"""What went wrong when a model could not be loaded, in one sentence that says what to do."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from firsttoken.errors import FirstTokenError
from firsttoken.models.out_of_memory import is_out_of_memory


@contextmanager
def explain_loading(name: str) -> Iterator[None]:
    """Turn the many ways in which loading fails into a `FirstTokenError` that says what to do."""
    try:
        yield
    except FirstTokenError:
        raise
    except Exception as error:
        chain: list[BaseException] = []
        link: BaseException | None = error
        while link is not None and link not in chain:
            chain.append(link)
            link = link.__cause__ or link.__context__
        if any(is_out_of_memory(link) for link in chain):
            raise
        names = {type(link).__name__ for link in chain}
        raise FirstTokenError(f"{name}: {_explain(names, ' '.join(map(str, chain)), error)}") from error


def _explain(names: set[str], text: str, error: Exception) -> str:
    if "GatedRepoError" in names or "You are trying to access a gated repo" in text:
        return (
            "this model is gated; accept its licence on its hub page, then run `hf auth login` or set HF_TOKEN "
            "to a token of that account."
        )
    if "RepositoryNotFoundError" in names or "is not a local folder and is not a valid model identifier" in text:
        return "there is no such model on the hub, and no such bundled name, folder or .gguf file; check the spelling."
    if names & {"HFValidationError"}:
        return "this is neither a bundled name, a folder, a .gguf file nor a hub id such as org/model."
    if names & {
        "LocalEntryNotFoundError",
        "ConnectError",
        "ConnectionError",
        "OfflineModeIsEnabled",
        "gaierror",
    }:
        return (
            "the hub cannot be reached and the model is not in the local cache; connect to the network, or use a "
            "bundled model (see `firsttoken models`) or a local folder."
        )
    if "instantiate the backend tokenizer" in text:
        return (
            "there are no tokenizer files; copy tokenizer.json and tokenizer_config.json from where the weights are."
        )
    if "trust_remote_code" in text:
        return (
            "this model needs the Python code that came with it, which may do all that you may; read it, then set "
            "trust_remote_code (`-p trust_remote_code true` for a chapter)."
        )
    if "safetensors" in text.lower() and ("no file named" in text or "does not appear to have" in text):
        return "this model has no safetensors weights; pickled weights are not loaded, convert them first."
    if isinstance(error, FileNotFoundError) and error.filename:
        return f"{Path(error.filename).name} is not there any more; put it back, and run it again."
    if isinstance(error, KeyError):
        return f"its files say nothing of {error.args[0]!r}, which is needed; download them again."
    first = next((line.strip().rstrip(".:") for line in str(error).splitlines() if line.strip()), type(error).__name__)
    return f"it could not be loaded ({first})."
