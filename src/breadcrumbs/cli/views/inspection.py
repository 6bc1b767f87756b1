"""What is in a file, on the screen."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from breadcrumbs import machine
from breadcrumbs.cli.console import ruled, terminal
from breadcrumbs.cli.views import store
from breadcrumbs.errors import counted, listing, printable


def inspection(found: dict[str, Any], *, tensors: bool) -> None:
    """Print what `breadcrumbs.cli.inspection.inspect` found."""
    console = terminal()
    if found["store"]:
        store.info(found["store"])
        return
    table = ruled("file", "bytes", "BLAKE3", right=(1,))
    for file in found["files"]:
        table.add_row(printable(file["file"]), f"{file['bytes']:,}", file.get("blake3", ""))
    console.print(printable(found["path"]))
    if found["files"]:
        console.print(table)
    dtypes = ", ".join(f"{n:,} {dtype}" for dtype, n in found["entries_by_dtype"].items())
    console.print(
        f"{counted(len(found['tensors']), 'tensor')}, {found['parameters']:,} weights,"
        f" {machine.human(found['bytes'])} ({dtypes})"
    )
    if found["quantised"]:
        console.print(f"{found['quantised']}, read as F32")
    for score in found["scores"]:
        console.print(printable(_score(score)))
    if found["task"]:
        _task(console, found["task"])
    if found.get("adapter"):
        console.print(printable(_adapter(found["adapter"])))
    if found["archive"]:
        _archive(console, found["archive"])
    if tensors:
        more = ("kept",) if found["task"] else ()
        table = ruled("tensor", "dtype", "shape", "bytes", *more, right=(3, 4))
        for tensor in found["tensors"]:
            shape = " x ".join(map(str, tensor["shape"])) or "scalar"
            cells = [printable(tensor["name"]), tensor["dtype"], shape, f"{tensor['bytes']:,}"]
            if more:
                cells.append(f"{tensor['kept'] / max(1, tensor['entries']):.2%}")
            table.add_row(*cells)
        console.print(table)
    if isinstance(found["statistics"], dict):
        said = found["statistics"]
        facts = ", ".join(f"{key} {said[key]}" for key in ("examples", "labels") if key in said)
        console.print(printable(f"statistics of the kind {said.get('kind')}  {facts}".rstrip()))
    merged = found["merged_from"]
    if merged and isinstance(merged.get("choice"), dict):
        _choice(console, merged["choice"])
    if merged:
        recipe = merged.get("recipe", {})
        console.print(
            f"merged by breadcrumbs {merged.get('version')} ({recipe.get('method')}) from"
        )
        tasks = (merged.get("choice") or {}).get("store", {}).get("tasks", [])
        names = {f"{task['blake3']}.safetensors": f"task {task['name']}" for task in tasks}
        for source in merged.get("inputs", []):
            name = printable(source.get("model") or source["statistics"])
            for file in source["files"]:
                name = names.get(file["file"], name)
                console.print(
                    f"  {name}  {printable(file['file'])}  {file['bytes']:,} bytes"
                    f"  {file.get('blake3', file.get('task', ''))[:16]}...",
                )


def _score(said: Mapping[str, Any]) -> str:
    """Return a score of a card in words."""
    error = "" if said["stderr"] is None else f" ± {said['stderr']:.3f}"
    rows = f" on {said['split']} rows" if said["split"] else ""
    return f"{said['task']}: {said['metric']} {said['value']:.3f}{error}{rows}, as its card says"


def _choice(console: Any, choice: dict[str, Any]) -> None:
    """Print what chose the models of a merge: a greedy soup, or a revision of a store."""
    for c in choice.get("candidates", ()):
        console.print(
            f"{choice['by']}: {printable(c['name'])} scores {c['score']:.6g},"
            f" {'in' if c['kept'] else 'not in'} the mean"
        )
    if "store" in choice:
        said = choice["store"]
        console.print(f"revision {said['revision']} of a store, with these tasks:")
        for task in said["tasks"]:
            facts = (f"weight {task['weight']:g}", task["license"], task["author"])
            console.print(printable(f"  {task['name']}: {', '.join(filter(None, facts))}"))


def _archive(console: Any, archive: dict[str, Any]) -> None:
    """Print what an archive of tasks says of itself."""
    base = archive["base"]
    revision = f" (revision {base['revision']})" if base["revision"] else ""
    tasks = ", ".join(archive["tasks"])
    console.print(
        printable(
            f"archive of {counted(len(archive['tasks']), 'task')} by {archive['method']}: {tasks};"
            f" of base {base['name']}{revision}, hash {base['hash'][:16]}..."
        )
    )


def _adapter(said: dict[str, Any]) -> str:
    """Return what an adapter is, in a line."""
    if "trouble" in said:
        return f"adapter that cannot be merged: {said['trouble']}"
    facts = [f"adapter: {said['kind']} of {said['format']}"]
    if said["ranks"]:
        facts.append(f"rank {' and '.join(map(str, said['ranks']))}")
    if said["scales"]:
        facts.append(f"scale {' and '.join(f'{scale:.4g}' for scale in said['scales'])}")
    ends = list(dict.fromkeys(name.rpartition(".")[2] for name in said["modules"]))
    more = f" ({listing(ends)})" if ends else ""
    facts.append(f"{counted(len(said['modules']), 'module')}{more}")
    if said["whole"]:
        facts.append(f"{len(said['whole'])} whole tensors ({listing(said['whole'], 3)})")
    facts += [f"{number} rows of {name}" for name, number in said["rows"].items()]
    if said["base"]:
        facts.append(f"trained on {said['base']}")
    return ", ".join(facts)


def _task(console: Any, task: dict[str, Any]) -> None:
    """Print what a task file says of itself."""
    base, values = task["base"], task["parameters"]
    cut = ", ".join(f"{key} {value}" for key, value in values.items())
    revision = f" at {base['revision']}" if base["revision"] else ""
    who = ", ".join(filter(None, (task["author"], task["license"], task["made_by"])))
    console.print(
        printable(
            f"task {task['name']} of base {base['name']}{revision}, hash {base['hash'][:16]}..."
        )
    )
    console.print(
        printable(
            f"{task['kept']:,} weights kept, {task['density']:.2%} of the base's, by"
            f" {task['transform']}{f' ({cut})' if cut else ''}; values {task['encoding']}"
            f"{lost(task['error'])}; by {who}"
        )
    )


def lost(error: Mapping[str, float] | None) -> str:
    """Return what the encoding of a task file loses, in words that follow its name."""
    if error is None:
        return ""
    share, largest = error["relative"], error["largest"]
    return f", which loses {share:.2%} of the kept task vector, at most {largest:.2g} of a weight"
