"""What `-q` means: errors alone are said, by us and by the libraries that we use."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

#: For libraries that are not imported yet, and for the processes that are started.
_ENVIRONMENT = {
    "PYTHONWARNINGS": "ignore",
    "TRANSFORMERS_VERBOSITY": "error",
    "DATASETS_VERBOSITY": "error",
    "DIFFUSERS_VERBOSITY": "error",
    "HF_HUB_VERBOSITY": "error",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
    "TQDM_DISABLE": "1",
}
_on = False


def is_on() -> bool:
    """Return whether notes and warnings are to be left out."""
    return _on


@contextmanager
def silent(wanted: bool) -> Iterator[None]:
    """Leave out notes, warnings and progress, ours and those of libraries, until the end."""
    if not wanted:
        yield
        return
    import logging

    global _on
    outer, before, disabled = _on, dict(os.environ), logging.root.manager.disable
    os.environ.update(_ENVIRONMENT)
    logging.disable(logging.WARNING)
    _on = True
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        _on = outer
        logging.disable(disabled)
        for name in _ENVIRONMENT:
            os.environ.pop(name, None)
            if name in before:
                os.environ[name] = before[name]
