"""What the inputs of a merge are called in its output: nothing that tells of the user's disk.

A model of a hub is ``org/name@commit``, also where it was given as its folder in the cache. A path
is relative to the folder of the output, and begins with ``./`` or ``../``. Where that would go up
to the root of the disk or past the user's home, the last part of the path alone is left: whoever
merges again says where it is (``reproduce --input``).
"""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path, PurePath

from breadcrumbs.checkpoint import origin, stack, wrapped
from breadcrumbs.errors import printable
from breadcrumbs.merging import chat
from breadcrumbs.plan import Plan, token_rows
from breadcrumbs.plan.recipe import Recipe


class Names:
    """The names of a plan's inputs. output: the folder or file to be written; None: as given."""

    def __init__(self, plan: Plan, output: Path | None):
        self._known = {
            found.label: found.repo or found.label
            for found in plan.inputs
            if found.repo or not found.files  # arrays in memory
        }
        pairs = zip(
            (plan.recipe.base, *(m.path for m in plan.recipe.models)), plan.sources, strict=False
        )
        self._known |= {path: found.repo for path, found in pairs if found.repo}
        self._taken: dict[str, str] = {}
        self._start: str | None = None
        if output is not None:
            real = os.path.realpath(output)
            is_file = output.suffix == ".safetensors" and not os.path.isdir(real)
            self._start = os.path.dirname(real) if is_file else real
        paths = [
            str(path)
            for found in plan.inputs
            for path in (found.label, found.folder, *found.files)
            if path is not None
        ]
        hidden = {}
        for path in dict.fromkeys(paths):
            for form in (path, os.path.abspath(path), os.path.realpath(path)):
                if os.path.isabs(form) and os.path.exists(form):
                    hidden[form] = hidden[printable(form)] = hidden[repr(form)[1:-1]] = path
        self._hidden = sorted(hidden.items(), key=lambda pair: -len(pair[0]))

    def of(self, path: str) -> str:
        """Return what a path of the recipe is called, of a stack or ``BASE+ADAPTER`` too."""
        return stack.renamed(path, self._one)

    def clean(self, text: str) -> str:
        """Return a text for people without the absolute path of any input."""
        for form, path in self._hidden:
            if form in text:
                text = text.replace(form, self.of(path))
        return text

    def _one(self, path: str) -> str:
        if path in self._known:
            # Of a model of a hub with an adapter of this machine, the path of that is left.
            return "+".join(map(self._piece, self._known[path].split("+")))
        if self._start is None or os.path.lexists(os.path.expanduser(path)):
            return path if self._start is None else self._place(path, self._start)
        head, found, keys = path.partition(wrapped.PICK)
        if found and os.path.exists(os.path.expanduser(head)):
            return f"{self._one(head)}{found}{keys}"
        pieces = path.split("+")
        for n in range(len(pieces) - 1, 0, -1):
            both = "+".join(pieces[:n]), "+".join(pieces[n:])
            if any(os.path.exists(os.path.expanduser(one)) for one in both):
                return "+".join(map(self._one, both))
        return path

    def _piece(self, name: str) -> str:
        is_path = self._start is not None and os.path.isabs(os.path.expanduser(name))
        return self._place(name, self._start or "") if is_path else name

    def _place(self, path: str, start: str) -> str:
        """Return the name of a file or folder."""
        whole = os.path.abspath(os.path.expanduser(path))
        if hub := origin.cached(whole):
            return hub
        real = os.path.join(os.path.realpath(os.path.dirname(whole)), os.path.basename(whole))
        name = relative(real, start)
        if name is None:
            name = os.path.basename(real) or "root"
            number, stem = 1, name
            while self._taken.setdefault(name, real) != real:
                number += 1
                name = f"{stem}-{number}"
        return name


def relative(path: str, start: str) -> str | None:
    """Return an absolute path from a folder on; None where that tells too much of the disk."""
    try:
        common = PurePath(os.path.commonpath([path, start]))
    except ValueError:  # on another drive
        return None
    home = PurePath(os.path.realpath(os.path.expanduser("~")))
    if common == PurePath(common.anchor) or common in home.parents:
        return None
    found = PurePath(os.path.relpath(path, start)).as_posix()
    return found if found == ".." or found.startswith("../") else f"./{found}"


def resolved(plan: Plan, names: Names | None = None) -> Recipe:
    """Return the recipe as an output has it: with the names of its inputs, hub ids at the commits
    that they meant, so that it stays the same. names: None: paths as they were given."""
    names = names or Names(plan, None)

    def of(path: str | None) -> str | None:
        return None if path is None else names.of(path)

    recipe, words = plan.recipe, plan.recipe.vocabulary
    return replace(
        recipe,
        base=names.of(recipe.base),
        onto=of(recipe.onto),
        tokenizer=of(recipe.tokenizer),
        vocabulary=words if words in (None, "base", "union") else names.of(words),
        tokens=token_rows.renamed(recipe.tokens, names.of),
        chat_template=of(chat.recorded(plan)),
        models=tuple(
            replace(m, path=names.of(m.path), statistics=of(m.statistics)) for m in recipe.models
        ),
        inputs=(),
        made_by="",
    )
