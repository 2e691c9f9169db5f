"""`python -m firsttoken.records FOLDER ...` brings the records below each folder to today's schema."""

from __future__ import annotations

import sys
from pathlib import Path

from firsttoken.records.schema import rewrite

for folder in sys.argv[1:]:
    for path in rewrite(Path(folder)):
        print(path)
