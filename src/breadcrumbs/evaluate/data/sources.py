"""Where rows come from: tables, folders of pictures, arrays, hub data sets, Python files.

A source has named splits, or one that is called `REST`; each is read when it is first asked for.
docs/suite.md says what a source may look like.
"""

from __future__ import annotations

import csv
import importlib.util
import json
import os
import runpy
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np

from breadcrumbs.errors import SuiteError, suggestion
from breadcrumbs.evaluate.data import hub
from breadcrumbs.evaluate.data.inputs import Picture
from breadcrumbs.evaluate.data.splits import REST
from breadcrumbs.evaluate.data.table import (
    Columns,
    Table,
    check_columns,
    file_picture,
    given,
    input_of,
    label_of,
)
from breadcrumbs.evaluate.data.task import SPLITS

TABLES = (".csv", ".tsv", ".jsonl", ".json", ".parquet")
PICTURES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm")
HUB, PACKAGE = "hub:", "package:"
Tables = Mapping[str, Callable[[], Table]]


@dataclass(frozen=True)
class Source:
    """What a task says of where its rows are. path: of a file or folder; None for a hub data set.

    shown: how messages call it. config, revision: of a hub data set.
    """

    shown: str
    path: Path | None
    columns: Columns
    config: str | None = None
    revision: str | None = None

    def tables(self) -> Tables:
        """Return the splits by name, each to be read by a call."""
        path, shown = self.path, self.shown
        if path is None:
            return hub.load(shown.removeprefix(HUB), self.config, self.revision, self.columns)
        if os.path.isdir(path):
            return _folder(path, shown)
        if path.suffix.lower() == ".py":
            return _python(path, shown)
        if path.suffix.lower() == ".npz":
            return {REST: lambda: _arrays(path, shown)}
        return _by_split_column(_table(path, shown, self.columns), self.columns)

    @property
    def has_columns(self) -> bool:
        """Whether it is a table, of which a task says which columns hold what."""
        path = self.path
        return path is None or (path.suffix.lower() in TABLES and path.is_file())


def locate(text: str, folder: Path, where: str) -> Path | None:
    """Return the path that ``text`` means, None for a hub data set; SuiteError if nothing is there.

    text: ``hub:org/name``, ``package:NAME/path`` (in an installed package, which is not imported),
    or a path, relative to ``folder`` if something is there, else to the working folder.
    """
    if text.startswith(HUB):
        if not text.removeprefix(HUB).strip("/ "):
            raise SuiteError(f"{where}: {text!r} names no data set. Write hub:org/name.")
        return None
    path = in_package(text, where) if text.startswith(PACKAGE) else beside(folder, text)
    if not os.path.exists(path):
        raise SuiteError(f"{where}: {text}: no such file or folder.{_nearest(path, folder)}")
    if os.path.isfile(path) and path.suffix.lower() not in (*TABLES, ".npz", ".py"):
        raise SuiteError(
            f"{where}: {text}: cannot be read as data. Give a folder of pictures, or one of"
            f" {', '.join((*TABLES, '.npz', '.py'))}."
        )
    return path


def _nearest(path: Path, folder: Path) -> str:
    """Return what else there is with nearly the name of ``path``, or how a hub id is written."""
    parents = [parent for parent in (folder / path.parent, path.parent) if os.path.isdir(parent)]
    near = (suggestion(path.name, os.listdir(parent)) for parent in parents)
    hub = " A hub data set is written hub:org/name." if str(path).count("/") == 1 else ""
    return next((text for text in near if text), "" if parents else hub)


def in_package(text: str, where: str) -> Path:
    """Return the path that ``package:NAME/path`` means, without importing the package."""
    name, _, inside = text.removeprefix(PACKAGE).partition("/")
    try:
        spec = importlib.util.find_spec(name) if name.isidentifier() else None
    except (ImportError, ValueError):
        spec = None
    roots = list(spec.submodule_search_locations or ()) if spec is not None else []
    if not roots:
        raise SuiteError(
            f"{where}: {text}: there is no package {name!r} in this environment. Install it."
        )
    paths = [Path(root, inside) for root in roots]
    return next((path for path in paths if os.path.exists(path)), paths[0])


def beside(folder: Path, text: str) -> Path:
    """Return a path relative to ``folder`` if something is there, else to the working folder."""
    path = Path(os.path.expanduser(text))
    return folder / path if os.path.exists(folder / path) else path


# --- tables --------------------------------------------------------------------------------------


def _table(path: Path, shown: str, columns: Columns) -> Table:
    suffix = path.suffix.lower()
    if suffix == ".parquet":
        return hub.parquet(path, shown, columns)
    read = {".csv": _csv, ".tsv": _csv, ".jsonl": _jsonl, ".json": _json}[suffix]
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            return _of_records(read(file, path, shown), columns, path.parent, shown)
    except UnicodeDecodeError as error:
        raise SuiteError(f"{shown}: is not UTF-8 ({error.reason}). Save it as UTF-8.") from None
    except OSError as error:
        raise SuiteError(f"{shown}: cannot be read: {error.strerror}.") from None


def _csv(file: Iterable[str], path: Path, shown: str) -> Iterable[tuple[int, dict[str, Any]]]:
    csv.field_size_limit(1 << 30)
    reader = csv.reader(file, delimiter="\t" if path.suffix.lower() == ".tsv" else ",", strict=True)
    try:
        header = next(reader, [])
        twice = [name for name in header if header.count(name) > 1]
        if twice:
            raise SuiteError(f"{shown}: has two columns {twice[0]!r}. Rename one.")
        line = reader.line_num + 1
        for cells in reader:
            if cells and len(cells) != len(header):
                raise SuiteError(
                    f"{shown}, line {line}: has {len(cells)} cells, the header {len(header)}."
                )
            if cells:
                yield line, dict(zip(header, cells, strict=True))
            line = reader.line_num + 1
    except csv.Error as error:
        raise SuiteError(f"{shown}, line {reader.line_num}: {error}.") from None


def _jsonl(file: Iterable[str], path: Path, shown: str) -> Iterable[tuple[int, dict[str, Any]]]:
    for number, line in enumerate(file, 1):
        if line.strip():
            try:
                yield number, _object(json.loads(line), f"{shown}, line {number}")
            except (ValueError, RecursionError) as error:
                raise SuiteError(f"{shown}, line {number}: not JSON: {error}.") from None


def _json(file: Any, path: Path, shown: str) -> Iterable[tuple[int, dict[str, Any]]]:
    try:
        data = json.load(file)
    except (ValueError, RecursionError) as error:
        raise SuiteError(f"{shown}: not JSON: {error}.") from None
    if not isinstance(data, list):
        raise SuiteError(f"{shown}: is not a list of objects, one for each row.")
    for number, entry in enumerate(data, 1):
        yield number, _object(entry, f"{shown}, entry {number}")


def _object(value: Any, where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise SuiteError(f'{where}: is not an object with columns, such as {{"text": ...}}.')
    return value


def _of_records(
    records: Iterable[tuple[int, dict[str, Any]]], columns: Columns, folder: Path, shown: str
) -> Table:
    unit = "entry" if shown.endswith(".json") else "line"
    inputs, labels, lines, splits = [], [], [], []
    for line, record in records:
        where = f"{shown}, {unit} {line}"
        check_columns(columns, record, where)
        inputs.append(input_of(record, columns, folder, where))
        labels.append(label_of(record[columns.label], where, columns.label))
        splits.append(record.get(columns.split))
        lines.append(line)
    named = any(split is not None for split in splits)
    return Table(
        inputs, labels, lambda row: f"{shown}, {unit} {lines[row]}", None, splits if named else None
    )


def _by_split_column(table: Table, columns: Columns) -> Tables:
    """Return a table for each value of the column ``split``, if there is one."""
    if table.splits is None:
        return {REST: lambda: table}
    rows: dict[str, list[int]] = {}
    for row, name in enumerate(table.splits):
        if not isinstance(name, str) or not name:
            raise SuiteError(
                f"{table.where(row)}: column {columns.split!r} holds {name!r}, which is not a"
                f" split's"
                " name."
            )
        rows.setdefault(name, []).append(row)
    return {name: (lambda own=own: table.only(own)) for name, own in rows.items()}


# --- pictures ------------------------------------------------------------------------------------


def _folder(path: Path, shown: str) -> Tables:
    """Return the splits of ``split/class/file``, or the one of ``class/file``."""
    tops = _folders(path)
    if not tops:
        raise SuiteError(
            f"{shown}: has no folders. Put pictures into one folder for each class, or split/class."
        )
    if any(_folders(top) for top in tops):
        return {top.name: (lambda top=top: _classes(top, f"{shown}/{top.name}")) for top in tops}
    return {REST: lambda: _classes(path, shown)}


def _folders(path: Path) -> list[Path]:
    return [p for p in _entries(path) if p.is_dir() and not p.name.startswith(".")]


def _entries(path: Path) -> list[Path]:
    try:
        return sorted(path.iterdir())
    except OSError as error:
        raise SuiteError(f"{path}: cannot be listed: {error.strerror}.") from None


def _classes(path: Path, shown: str) -> Table:
    files, labels = [], []
    for folder in _folders(path):
        found = [file for file in _entries(folder) if file.suffix.lower() in PICTURES]
        files += found
        labels += [folder.name] * len(found)
    names = [f"{shown}/{file.parent.name}/{file.name}" for file in files]
    pictures = [file_picture(file, name) for name, file in zip(names, files, strict=True)]
    return Table(pictures, labels, lambda row: names[row])


def _arrays(path: Path, shown: str) -> Table:
    """Return the rows of an ``.npz`` with ``images`` and ``labels``."""
    try:
        with np.load(path, allow_pickle=False) as file:
            found = {name: file[name] for name in ("images", "labels") if name in file}
            held = ", ".join(file.files)
    except (OSError, ValueError, KeyError, EOFError, BadZipFile, TypeError) as error:
        # A TypeError: what was read is the one array of an .npy.
        raise SuiteError(f"{shown}: cannot be read as .npz: {error}") from None
    for name in ("images", "labels"):
        if name not in found:
            raise SuiteError(f"{shown}: has no array {name!r}; it has {held or 'none'}.")
    images, labels = found["images"], found["labels"]
    gray, color = images.ndim == 3, images.ndim == 4 and images.shape[-1] == 3
    if images.dtype != np.uint8 or not (gray or color):
        raise SuiteError(
            f"{shown}: images are {images.dtype} of shape {images.shape}. Give uint8 of shape"
            " (n, height, width) or (n, height, width, 3)."
        )
    if labels.shape != (len(images),) or labels.dtype.kind not in "iub" + "U":
        raise SuiteError(
            f"{shown}: labels are {labels.dtype} of shape {labels.shape}. Give {len(images)} whole"
            " numbers or texts."
        )
    pictures = [
        Picture(f"{shown}, row {row}", lambda row=row: images[row]) for row in range(len(images))
    ]
    return Table(pictures, labels.tolist(), lambda row: f"{shown}, row {row}")


# --- Python files --------------------------------------------------------------------------------


def _python(path: Path, shown: str) -> Tables:
    """Return what a Python file's ``rows(split)`` gives. ``LABELS``: names of numbers. ``SPLITS``:
    which there are; train, validation and test unless it says so."""
    try:
        found = runpy.run_path(str(path))
    except Exception as error:  # whatever the user's code raises
        raise _raised(shown, error) from error
    rows, names = found.get("rows"), found.get("LABELS")
    if not callable(rows):
        raise SuiteError(f"{shown}: has no function rows(split) that returns inputs and labels.")
    names = None if names is None else tuple(str(name) for name in names)
    splits = [str(name) for name in found.get("SPLITS", SPLITS)]
    return {split: (lambda split=split: _returned(rows, split, names, shown)) for split in splits}


def _returned(rows: Any, split: str, names: tuple[str, ...] | None, shown: str) -> Table:
    where = f"{shown}, {split}"
    try:
        inputs, labels = rows(split)
        inputs, labels = list(inputs), np.asarray(labels).tolist()
    except Exception as error:  # whatever the user's code raises
        raise _raised(where, error) from error
    if not isinstance(labels, list) or len(inputs) != len(labels):
        raise SuiteError(f"{where}: rows() returned {len(inputs)} inputs and other labels.")

    def place(row: int) -> str:
        return f"{where}, row {row}"

    return Table(
        [given(value, place(row)) for row, value in enumerate(inputs)],
        [label_of(label, place(row)) for row, label in enumerate(labels)],
        place,
        names,
    )


def _raised(where: str, error: Exception) -> SuiteError:
    reason = " ".join(str(error).split())
    return SuiteError(f"{where}: this Python file failed: {type(error).__name__}: {reason}")
