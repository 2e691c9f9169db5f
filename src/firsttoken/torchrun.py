"""The sink rates of one model that several processes share.

    torchrun --nproc-per-node 8 -m firsttoken.torchrun meta-llama/Llama-3.1-405B --dtype bfloat16

writes the record that `firsttoken run sink_rates --model ...` then shows.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import get_type_hints

import torch.distributed as dist

from firsttoken import models
from firsttoken.claims.sink_rates import measure as sink_rates
from firsttoken.errors import FirstTokenError
from firsttoken.measures.first_token_summary import Parameters
from firsttoken.parameters import FORMER, from_text, renamed


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure the sink rates of one model in all processes; the first writes the record."""
    parser = argparse.ArgumentParser(prog="torchrun ... -m firsttoken.torchrun", description=main.__doc__)
    parser.add_argument("model", metavar="MODEL")
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--trust-remote-code", action="store_true", help="run Python code that came with the model")
    hints = get_type_hints(Parameters)
    for field in dataclasses.fields(Parameters):
        if field.name != "execution":
            former = [old for old, new in FORMER.items() if new == field.name and old not in hints]
            for option in (field.name, *former):
                parser.add_argument(f"--{option}", default=argparse.SUPPRESS)
    given = vars(parser.parse_args(arguments))
    name = given.pop("model")
    loading = {key: given.pop(key) for key in ("dtype", "device", "trust_remote_code")}
    first = os.environ.get("RANK", "0") == "0"
    with contextlib.redirect_stdout(sys.stdout if first else None):
        given = renamed(given, hints)
    with tempfile.TemporaryDirectory() as scratch:
        try:
            lm = models.load(name, **loading)
            chosen = {key: from_text(key, hints[key], text) for key, text in given.items()}
            settings = Parameters(**chosen, execution="tensor_parallel")
            # Whether an old record exists may differ between machines, and then some processes would wait for ever.
            record = sink_rates.MEASUREMENT.record(lm, settings, fresh=True, store=None if first else Path(scratch))
        except FirstTokenError as error:
            print(error, file=sys.stderr)
            return 2
    if first and record.verdict:
        print(f"sink_rates/{record.filename}: {record.verdict.sentence}")
    if dist.is_initialized():
        dist.destroy_process_group()
    return 0


if __name__ == "__main__":
    sys.exit(main())
