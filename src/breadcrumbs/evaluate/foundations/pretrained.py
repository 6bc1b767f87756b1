"""Models and what goes with them, as transformers loads them, without its noise."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from breadcrumbs import checkpoint
from breadcrumbs.checkpoint import mirrors
from breadcrumbs.errors import BreadcrumbsError, MissingExtraError, SuiteError, install, listing


def transformers_or_error() -> Any:
    """Return the module transformers; MissingExtraError where it or Torch is not installed."""
    try:
        import torch  # noqa: F401
        import transformers
    except ImportError as error:
        raise MissingExtraError(
            f"foundations need {error.name}, which is not installed. {install('evaluate')}"
        ) from None
    return transformers


def folder(base: str) -> str:
    """Return the folder of a base, downloaded if it is a hub id; SuiteError if it has no config."""
    with checkpoint.open(base) as it:
        found = it.folder
        mirrors.whole(it.files)
    if found is None or not os.path.isfile(os.path.join(found, "config.json")):
        raise SuiteError(
            f"{base}: has no config.json beside the weights, so the kind of model is not known."
            " Give the folder, with the config and tokenizer of the model."
        )
    return str(found)


def model(kind: Any, base: str, spare: Sequence[str] = (), *, widen: bool = True) -> Any:
    """Return the model of a base in float32 (unless not to be widened), not training.

    kind: a class of transformers. spare: beginnings of names of weights that the base may lack,
    because nothing depends on them. SuiteError lists others that it lacks, or that have another
    shape than the config says.
    """
    with _errors(base, kind), _quietly():
        module, info = kind.from_pretrained(
            folder(base), output_loading_info=True, ignore_mismatched_sizes=True
        )
    odd = sorted(one for one in info["mismatched_keys"] if not one[0].startswith(tuple(spare)))
    if odd:
        (name, found, wanted), more = odd[0], len(odd) - 1
        also = f" ({more} more are of another shape too)" if more else ""
        raise SuiteError(
            f"{base}: tensor {name!r} has shape {tuple(found)}, but config.json says"
            f" {tuple(wanted)}{also}. Give the config that belongs to the weights."
        )
    missing = [name for name in info["missing_keys"] if not name.startswith(tuple(spare))]
    if missing:
        unused = info["unexpected_keys"]
        also = f" It has {listing(sorted(unused))} instead." if unused else ""
        raise SuiteError(
            f"{base}: is not of the class {kind.__name__}: it has no"
            f" {listing(sorted(missing))}.{also} Give a base of the foundation's kind."
        )
    return (module.float() if widen else module).eval()


def beside(kind: Any, base: str, **settings: Any) -> Any:
    """Return the tokenizer or image processor that lies beside the weights of a base."""
    with _errors(base, kind), _quietly():
        return kind.from_pretrained(folder(base), **settings)


@contextmanager
def _errors(base: str, kind: Any) -> Iterator[None]:
    """Raise what transformers raises, of whatever type, as one line."""
    try:
        yield
    except BreadcrumbsError:
        raise
    except Exception as error:  # of many kinds, by version
        reason = " ".join(str(error).split())
        reason = reason if len(reason) < 300 else reason[:300] + "..."
        raise SuiteError(
            f"{base}: transformers cannot load it as {kind.__name__}: {reason}"
        ) from error


@contextmanager
def _quietly() -> Iterator[None]:
    """Keep transformers from reporting and from drawing bars; what matters is checked here."""
    from transformers.utils import logging

    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()
