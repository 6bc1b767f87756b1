"""Many tasks in one file beside their base: TALL-masks, EMR and TSV-C. docs/compression.md.

from breadcrumbs import compression

compression.compress("base", ["cats", "dogs"], "tasks.safetensors")
compression.extract("tasks.safetensors", "cats", "cats-again")
with compression.model("tasks.safetensors", "cats", "base") as cats:  # a mapping
    ...
"""

from __future__ import annotations

from breadcrumbs.compression.archive import Archive, open_archive
from breadcrumbs.compression.extracting import extract, model
from breadcrumbs.compression.writing import compress

__all__ = ["Archive", "compress", "extract", "model", "open_archive"]
