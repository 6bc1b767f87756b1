"""Run tasks on threads, the follow-up of a task before the next of the list."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence

import numpy as np

#: Does something and returns the tasks that have become possible.
Task = Callable[[], "list[Task]"]


class Stopped(Exception):
    """Raised by a long task that sees that all are to stop."""


def run_tasks(tasks: Sequence[Task], threads: int, stop: threading.Event | None = None) -> None:
    """Run ``tasks`` and all that they return. The first error stops all and is raised.

    Tasks are begun in their order; what they return goes first, so that little is under way at
    once, and a single one at once on the same thread. An interrupt (Ctrl-C) lets running tasks end.
    threads: 0: none, all is done on this one, where an interrupt ends a task, too. stop: set by an
    error or interrupt, for tasks so long that they look.
    """
    if threads < 1:
        with np.errstate(over="ignore", invalid="ignore"):
            at_once(tasks)
        return
    stop = stop or threading.Event()
    waiting = deque(tasks)
    running = 0
    errors: list[BaseException] = []
    changed = threading.Condition()

    def work() -> None:
        nonlocal running
        while True:
            with changed:
                while not waiting and running and not errors:
                    changed.wait()
                if errors or not waiting:
                    changed.notify_all()
                    return
                task = waiting.popleft()
                running += 1
            try:
                with np.errstate(over="ignore", invalid="ignore"):  # what overflows is looked for
                    more = task()
                    while len(more) == 1:  # what it has read is at hand
                        more = more[0]()
            except BaseException as error:  # handed to the caller's thread below
                more = []
                stop.set()
                with changed:
                    errors.append(error)
            with changed:
                running -= 1
                waiting.extendleft(reversed(more))
                changed.notify_all()

    workers = [threading.Thread(target=work, name=f"merge-{i}") for i in range(threads)]
    for worker in workers:
        worker.start()
    try:
        for worker in workers:
            while worker.is_alive():
                worker.join(0.1)
    except BaseException as error:
        stop.set()
        with changed:
            errors.insert(0, error)
            changed.notify_all()
        for worker in workers:
            worker.join()
    if errors:
        raise errors[0]


def at_once(tasks: Sequence[Task]) -> list[Task]:
    """Run small tasks, and all that they return, as one: in their order, on this thread."""
    waiting = deque(tasks)
    while waiting:
        waiting.extendleft(reversed(waiting.popleft()()))
    return []


def after(work: Sequence[Callable[[], object]], then: Callable[[], list[Task]]) -> list[Task]:
    """Return tasks that each do one piece of ``work``; the last one to end returns ``then()``.

    If there is no work, the tasks of ``then()``.
    """
    if not work:
        return then()
    left = [len(work)]
    lock = threading.Lock()

    def task(do: Callable[[], object]) -> Task:
        def run() -> list[Task]:
            do()
            with lock:
                left[0] -= 1
                done = left[0] == 0
            return then() if done else []

        return run

    return [task(do) for do in work]
