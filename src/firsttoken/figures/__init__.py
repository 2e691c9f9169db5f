"""What each chapter draws: one module a chapter, functions from records to `plots.Display`."""

from firsttoken.figures import sink_rates

__all__ = ["sink_rates"]
