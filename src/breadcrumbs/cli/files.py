"""Files of text that commands write."""

from __future__ import annotations

import os
from pathlib import Path


def write(output: str, text: str, *, force: bool) -> None:
    """Write a file; OutputError if it exists and may not be replaced, or cannot be written."""
    from breadcrumbs.checkpoint import whole
    from breadcrumbs.errors import OutputError

    try:
        if not force and os.path.lexists(output):
            raise OutputError(f"{output}: exists. Give --force to replace it.")
        whole.write_text(Path(output), text, force=force)
    except OSError as error:
        raise OutputError(f"{output}: cannot be written: {error.strerror}.") from None
