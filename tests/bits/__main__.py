"""Write down the digests: ``python -m tests.bits FILE [--every]``, from the repository's root.

Without ``--every`` those of the tests, into ``tests/bits/digests.json``.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

from . import algebra
from .jobs import jobs

every = "--every" in sys.argv
files = [arg for arg in sys.argv[1:] if not arg.startswith("-")]
path = Path(files[0]) if files else Path(__file__).with_name("digests.json")
found: dict[str, str] = {}
for name, job in jobs(every):
    with tempfile.TemporaryDirectory() as folder:
        try:
            found[name] = job(Path(folder))
        except Exception as error:
            found[name] = f"{type(error).__name__}: {error}".replace(folder, "")[:120]
path.write_text(json.dumps({"algebra": algebra(), "digests": found}, indent=1) + "\n")
errors = {name: text for name, text in found.items() if ": " in text}
print(f"{path}: {len(found)} digests, {len(errors)} errors", *list(errors.items())[:20], sep="\n")
