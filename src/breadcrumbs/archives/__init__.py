"""Many tasks in one file beside their base: TALL-masks, EMR and TSV-C. docs/compression.md.

from breadcrumbs import archives

archives.compress("base", ["cats", "dogs"], "tasks.safetensors")
archives.extract("tasks.safetensors", "cats", "cats-again")
with archives.model("tasks.safetensors", "cats", "base") as cats:  # a mapping
    ...
"""

from __future__ import annotations

from breadcrumbs.archives.archive import Archive, open_archive
from breadcrumbs.archives.extracting import extract, model
from breadcrumbs.archives.writing import compress

__all__ = ["Archive", "compress", "extract", "model", "open_archive"]
