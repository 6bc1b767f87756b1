"""What stores print: what they are, their history, what can be dropped."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from breadcrumbs import machine
from breadcrumbs.cli import console
from breadcrumbs.errors import printable


def info(found: dict[str, Any]) -> None:
    """Print what `breadcrumbs.store.info` returns."""
    table = console.ruled("store", found["store"])
    revision = f" at {found['base_revision']}" if found["base_revision"] else ""
    table.add_row("base", printable(f"{found['base_name']}{revision}"))
    table.add_row("", printable(found["base"]))
    table.add_row("", f"hash {found['base_hash'][:16]}...")
    table.add_row("method", _with(found["method"], found["parameters"]))
    packed = found["packed_as"]
    cut = "all changed weights" if packed["transform"] == "none" else "what is left after "
    told = cut if packed["transform"] == "none" else cut + _with(*packed.values())
    table.add_row("kept of a task", told)
    last = found["last"]
    dropped = f", those before {found['first']} were dropped" if found["first"] > 1 else ""
    table.add_row("revision", f"{found['latest']}{dropped}")
    if last:
        who = f" by {last['author']}" if last["author"] else ""
        table.add_row("", printable(f"{last['time']}{who}: {last['message'] or _change(last)}"))
    table.add_row("tasks", str(len(found["tasks"])))
    for license, number in found["licences"].items():
        table.add_row("", printable(f"{number} {license or 'without a licence'}"))
    sizes = found["bytes"]
    old = sizes["all_tasks"] - sizes["tasks"]
    more = f", and {machine.human(old)} of earlier revisions" if old > 0 else ""
    table.add_row("task files", f"{machine.human(sizes['tasks'])}{more}")
    table.add_row("running sum", machine.human(sizes["sums"]))
    if found["grams"]:
        table.add_row("Grams for wudi", machine.human(sizes["grams"]))
    console.terminal().print(table)


def log(revisions: Sequence[Any]) -> None:
    """Print revisions, the first one first."""
    body = []
    for one in revisions:
        name = one.name if one.target is None else f"to {one.target}"
        weight = f"{one.weight:g}" if one.target is None else ""
        row = (str(one.number), one.time, one.author, one.action, name, weight, one.message)
        body.append((*row, one.task[:12]))
    header = ("revision", "time", "author", "change", "task", "weight", "message", "BLAKE3")
    console.rows(header, body, right=(0, 5))


def collected(found: Any, folder: str) -> None:
    """Print what `breadcrumbs.store.collect` found or did."""
    if found.tasks:
        body = [(name, digest[:12], machine.human(size)) for name, digest, size in found.tasks]
        console.rows(("task file of", "BLAKE3", "size"), body, right=(2,))
    revisions = f"{found.revisions} revision{'s'[: found.revisions != 1]}"
    number = f"{len(found.tasks)} task file{'s'[: len(found.tasks) != 1]}"
    size = machine.human(found.bytes)
    if not (found.revisions or found.tasks):
        text = "nothing to drop"
    elif found.deleted:
        text = f"dropped {revisions} before {found.first} and {number}: {size} are free"
    else:
        text = (
            f"{revisions} before {found.first} and {number} can go: {size}. Nothing was changed;"
            " give --delete to drop them"
        )
    console.terminal().print(printable(f"{folder}: {text}"))


def _with(name: str, values: dict[str, Any]) -> str:
    said = ", ".join(f"{key} {value}" for key, value in values.items())
    return printable(f"{name} ({said})" if said else name)


def _change(last: dict[str, Any]) -> str:
    what = last["name"] if last["target"] is None else f"to {last['target']}"
    return f"{last['action']} {what}"
