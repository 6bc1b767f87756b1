"""Rows of hub data sets and parquet files, through `datasets`; pictures stay encoded."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from breadcrumbs.errors import SuiteError
from breadcrumbs.evaluate.data.inputs import Picture, optional
from breadcrumbs.evaluate.data.table import (
    Columns,
    Table,
    check_columns,
    file_picture,
    input_of,
    label_of,
)


def load(
    repo: str, config: str | None, revision: str | None, columns: Columns
) -> Mapping[str, Callable[[], Table]]:
    """Return the splits of a hub data set, downloaded to the cache of `datasets` or found there."""
    datasets = optional("datasets", "hub data sets are read")
    shown = f"hub:{repo}"
    try:
        found = datasets.load_dataset(repo, config, revision=revision)
    except Exception as error:  # of several libraries, by version
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        raise SuiteError(
            f"{shown}: could not be loaded ({reason}). Check its name, `config`, `revision` and the"
            " connection."
        ) from None
    return {
        str(name): lambda name=name: _table(found[name], columns, f"{shown}, {name}", Path())
        for name in found
    }


def parquet(path: Path, shown: str, columns: Columns) -> Table:
    """Return the rows of a parquet file, with the names of its labels if it holds them."""
    datasets = optional("datasets", "parquet files are read")
    reader = optional("pyarrow.parquet", "parquet files are read")
    try:
        data = datasets.Dataset(reader.read_table(path, memory_map=True))
    except Exception as error:  # of pyarrow and datasets, by version
        reason = " ".join(str(error).split())[:300]
        raise SuiteError(f"{shown}: cannot be read as parquet: {reason}") from None
    return _table(data, columns, shown, path.parent)


def _table(data: Any, columns: Columns, shown: str, folder: Path) -> Table:
    datasets = optional("datasets", "hub data sets are read")
    check_columns(columns, data.column_names, shown)

    def where(row: int) -> str:
        return f"{shown}, row {row}"

    def column(name: str) -> list[Any]:
        return list(data.select_columns([name])[:][name])

    if columns.image is not None and isinstance(data.features[columns.image], datasets.Image):
        inputs = _pictures(data, columns.image, where)
    else:
        names = (columns.image,) if columns.image is not None else columns.text
        cells = zip(*(column(name) for name in names), strict=True)
        inputs = [
            input_of(dict(zip(names, row, strict=True)), columns, folder, where(i))
            for i, row in enumerate(cells)
        ]
    labels = [label_of(x, where(i), columns.label) for i, x in enumerate(column(columns.label))]
    names = getattr(data.features[columns.label], "names", None)
    splits = column(columns.split) if columns.split in data.column_names else None
    return Table(inputs, labels, where, None if names is None else tuple(names), splits)


def _pictures(data: Any, name: str, where: Callable[[int], str]) -> list[Picture]:
    datasets = optional("datasets", "hub data sets are read")
    encoded = data.select_columns([name]).cast_column(name, datasets.Image(decode=False))

    def stored(row: int) -> bytes:
        cell = encoded[row][name]
        if cell is None:
            raise SuiteError(f"{where(row)}: column {name!r} holds no picture.")
        if cell["bytes"] is not None:
            return cell["bytes"]
        return file_picture(Path(cell["path"]), where(row)).stored()

    return [Picture(where(row), lambda row=row: stored(row)) for row in range(len(encoded))]
