"""An executable book on attention sinks: why language models attend to the first token, measured on any model."""

from importlib.metadata import version

__version__ = version("firsttoken")
