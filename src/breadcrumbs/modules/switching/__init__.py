"""Tasks in and out of a live Torch module, in place.

import breadcrumbs

tasks = breadcrumbs.switch(module, "tasks.safetensors")  # module holds the base
tasks.put("cats")
with tasks.using("dogs"):
    module(batch)
tasks.put(None)  # the base again, bit for bit
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

from breadcrumbs.checkpoint import notebook
from breadcrumbs.errors import RecipeError, suggestion
from breadcrumbs.merging import opening as merging_opening
from breadcrumbs.modules.devices import require_torch
from breadcrumbs.modules.switching import opening
from breadcrumbs.modules.switching.opening import Tasks
from breadcrumbs.modules.switching.places import Place, Read, kernels
from breadcrumbs.modules.switching.turns import Turns
from breadcrumbs.threads import Task, run_tasks

if TYPE_CHECKING:
    import torch


class Behind(Protocol):
    """What was learned behind the weights that the module holds, and changes none of them."""

    @property
    def tasks(self) -> tuple[str, ...]:
        """Those that it changes the features or the head of."""
        ...

    def features(self, task: str, features: Any) -> Any:
        """Return the features (rows, width) of a task."""
        ...

    def head(self, task: str, head: Any) -> Any:
        """Return the head of a task: tensors by name."""
        ...

    def route(self, features: Any) -> list[str]:
        """Return the task of each row of features (rows, width) of the module as it is."""
        ...


def switch(
    module: torch.nn.Module,
    tasks: Tasks,
    *,
    base: merging_opening.Source | None = None,
    ignore: str | Sequence[str] = (),
) -> Switch:
    """Return a `Switch` of the tasks that files hold, for a module that holds the base's weights.

    tasks: an archive that `breadcrumbs compress` wrote; or task files, one or a list, or a mapping
        of names to them. base: what the module was loaded from: a path, hub id or mapping of
        arrays; unless told, where it was when the file was written.
    ignore: globs of tensors that the module has no place for.

    The module may be of another float dtype than the base, and on any device. MismatchError where
    the module does not hold the base, bit for bit in its dtype, where the base is not the one of
    the file, or where the module has no place for what a task changes.
    """
    require_torch()
    return Switch(module, tasks, base, merging_opening.globs(ignore))


class Switch:
    """Puts tasks into a module, in place, and takes them out again. A context manager.

    Threads may call all of it at once. A thread that reads the module while
    another one puts a task in may see weights of both: let each reader use `using`.
    """

    def __init__(
        self,
        module: torch.nn.Module,
        tasks: Tasks | None,
        base: merging_opening.Source | None,
        ignore: Sequence[str],
        behind: Behind | None = None,
    ):
        self.module, self._behind = module, behind
        self._stack = ExitStack()
        self._turns = Turns(self._change)
        with self._stack:
            self._opened = opening.opened(
                module, tasks, base, ignore, self._stack, behind.tasks if behind else ()
            )
            self._stack = self._stack.pop_all()
        if any(not isinstance(place, Read) for place in self._opened.places):
            kernels()  # loaded here rather than in the first switch

    @property
    def tasks(self) -> tuple[str, ...]:
        """The names of the tasks."""
        return self._opened.tasks

    @property
    def task(self) -> str | None:
        """The task that is in when nobody uses another one, None for the base."""
        return self._turns.rest

    def __repr__(self) -> str:
        tasks = ", ".join(self.tasks)
        return f"<Switch of {type(self.module).__name__}: {self.task or 'base'} is in, of {tasks}>"

    def _repr_html_(self) -> str:
        rows = [{"task": task or "(base)", "in": task == self.task} for task in (None, *self.tasks)]
        return notebook.table(f"Switch of {type(self.module).__name__}", rows)

    def put(self, task: str | None) -> None:
        """Put a task in, or the base for None, as soon as nobody is using the module."""
        self._turns.put(self._known(task))

    @contextmanager
    def using(self, task: str | None) -> Iterator[torch.nn.Module]:
        """A context in which the module is that of a task, whatever other threads do.

        Threads that use the same task go together, others wait for their turn, in order. What was
        in before comes back at the end.
        """
        with self._turns.using(self._known(task)):
            yield self.module

    def features(self, features: Any) -> Any:
        """Return features of rows (rows, width) as the task that is in has them corrected.

        The same where nothing was learned behind the module for it.
        """
        behind, task = self._behind, self._turns.task
        if behind is None or not isinstance(task, str) or task not in behind.tasks:
            return features
        return behind.features(task, features)

    def head(self, head: Any) -> Any:
        """Return the head of the task that is in: tensors by name, tuned if it was."""
        behind, task = self._behind, self._turns.task
        if behind is None or not isinstance(task, str) or task not in behind.tasks:
            return head
        return behind.head(task, head)

    def route(self, features: Any) -> list[str]:
        """Return the task that each row is of, as far as a router can tell.

        features: (rows, width), that the module gave with no task in. A row's task depends on no
        other row. RecipeError where there is no router.
        """
        if self._behind is None:
            raise RecipeError("route: there is no router. Give switch(..., router=FILE).")
        return self._behind.route(features)

    def close(self) -> None:
        """Put the base back, and close the files."""
        self.put(None)
        self._stack.close()

    def __enter__(self) -> Switch:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _known(self, task: str | None) -> str | None:
        if task is not None and task not in self.tasks:
            near = suggestion(str(task), self.tasks)
            known = ", ".join(self.tasks)
            raise RecipeError(
                f"{self._opened.label}: has no task {task!r}.{near} There are {known}."
            )
        return task

    def _change(self, task: str | None) -> None:
        """Make all weights those of a task; also of what an interrupted change left."""
        import torch

        def change(place: Place) -> list[Task]:
            place.to(task)
            return []

        run_tasks(
            [partial(change, place) for place in self._opened.places], torch.get_num_threads()
        )
        for weight in self._opened.weights:
            if not weight.is_inference():
                torch.autograd.graph.increment_version(weight)
