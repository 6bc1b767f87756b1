"""Whose turn it is: threads that use a module with one task, or one thread that changes it."""

from __future__ import annotations

import threading
from collections import Counter, deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from breadcrumbs.errors import RecipeError

#: What is in a module while it is changed, and after a change that was interrupted.
MIXED = object()


class Turns:
    """Turns in the order of asking; threads that ask for the task that is in go together.

    change: task, or None for the base -> puts it in. task: what is in. rest: what is to be in when
    nobody uses the module.
    """

    def __init__(self, change: Callable[[str | None], None]):
        self.change = change
        self.task: object = None
        self.rest: str | None = None
        self._free = threading.Condition()
        self._queue: deque[object] = deque()
        self._users: Counter[int] = Counter()

    def put(self, task: str | None) -> None:
        """Put a task in as soon as nobody uses the module, to stay there."""
        with self._turn(lambda: not self._users):
            self.rest = task
            self._to(task)

    @contextmanager
    def using(self, task: str | None) -> Iterator[None]:
        """A context in which the task stays in; afterwards, what was in before comes back."""
        me = threading.get_ident()
        with self._turn(lambda: not self._users or self.task == task, nested=True):
            before = self.task
            if task != before and set(self._users) - {me}:
                raise RecipeError(
                    f"task {task!r}: other threads use {before!r} with this one. Leave that first."
                )
            self._to(task)
            self._users[me] += 1
        try:
            yield
        finally:
            with self._free:
                self._users -= Counter([me])
                if me in self._users and before is not MIXED:
                    self._to(before)
                elif not self._users and not self._queue:  # else whoever is next changes it
                    self._to(self.rest)
                self._free.notify_all()

    @contextmanager
    def _turn(self, may: Callable[[], bool], nested: bool = False) -> Iterator[None]:
        """A context of this thread alone, once it is its turn and it may."""
        with self._free:
            if self._users[threading.get_ident()]:
                if not nested:
                    raise RecipeError("put: this thread uses a task. Leave its context first.")
                yield
                return
            ticket = object()
            self._queue.append(ticket)
            try:
                self._free.wait_for(lambda: self._queue[0] is ticket and may())
                yield
            finally:
                self._queue.remove(ticket)
                if not self._users and not self._queue:
                    self._to(self.rest)  # of one that gave up waiting
                self._free.notify_all()

    def _to(self, task: object) -> None:
        if self.task == task:
            return
        self.task = MIXED
        self.change(task)  # type: ignore[arg-type]
        self.task = task
