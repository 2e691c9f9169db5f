"""What the planner predicts as rows of a table: in the chapter, and in a terminal where nothing draws."""

from __future__ import annotations

from firsttoken.execution.cost import Plan

COLUMNS = ("model", "way", "read", "peak memory", "time", "fits")


def row(name: str, plan: Plan) -> tuple[str, ...]:
    """One prediction under the headings `COLUMNS`; the time of what does not fit is in brackets."""
    time = f"{plan.seconds / 60:.1f} min" if plan.seconds >= 60 else f"{plan.seconds:.1f} s"
    read, memory = f"{plan.bytes_read / 1e9:.1f} GB", f"{plan.memory / 1e9:.1f} GB"
    return (name, plan.way, read, memory, time if plan.fits else f"({time})", "yes" if plan.fits else "no")
