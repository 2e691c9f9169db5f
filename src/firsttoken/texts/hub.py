"""Texts of a data set on the Hugging Face hub, one by one as they arrive."""

from __future__ import annotations

from collections.abc import Iterator

from firsttoken.errors import FirstTokenError
from firsttoken.files import begins_as_path


def is_id(source: str) -> bool:
    """Whether a name looks like `org/name` or `org/name:configuration`, and not like a path."""
    return "/" in source and not begins_as_path(source)


def stream(source: str) -> tuple[str, Iterator[str]]:
    """The column `text` of a data set's part `train`.

    Args:
        source: `org/name` or `org/name:configuration`.

    Returns:
        the commit of the data set, and its texts

    Raises:
        FirstTokenError: the optional package `datasets` is missing, or the data set cannot be reached or has no such
            column.
    """
    try:
        from datasets import load_dataset
    except ImportError:
        raise FirstTokenError(
            "Texts from the hub need one more package: pip install 'firsttoken[datasets]'."
        ) from None
    from huggingface_hub import HfApi

    name, _, configuration = source.partition(":")

    def unreadable(error: Exception) -> FirstTokenError:
        return FirstTokenError(
            f"The data set {source} could not be read ({type(error).__name__}); check its id "
            "(org/name or org/name:configuration) and the network, or give a local file or folder."
        )

    try:
        commit = HfApi().dataset_info(name).sha or ""
        rows = load_dataset(name, configuration or None, split="train", streaming=True, revision=commit or None)
    except Exception as error:
        raise unreadable(error) from error

    def texts() -> Iterator[str]:
        try:
            for row in rows:
                yield row["text"]
        except KeyError:
            raise FirstTokenError(f"The data set {source} has no column 'text'.") from None
        except OSError as error:  # the network, in the middle
            raise unreadable(error) from error

    return commit, texts()
