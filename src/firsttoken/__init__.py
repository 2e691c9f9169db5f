"""An executable book on attention sinks: why language models attend to the first token, measured on any model."""

from __future__ import annotations


def __getattr__(name: str) -> str:
    """`__version__`; reading the metadata of packages takes longer than everything else that `--help` does."""
    if name != "__version__":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib.metadata import version

    return version("firsttoken")
