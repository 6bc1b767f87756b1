"""Functions called in processes of this machine: what one that dies was at is done by another."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass
from multiprocessing import connection, get_context, parent_process
from multiprocessing.connection import Connection
from typing import Any

from breadcrumbs.merging.executors.attempts import (
    RETRIES,
    Failed,
    R,
    T,
    Tries,
    Unit,
    attempted,
    sendable,
)


class Processes:
    """So many processes, which start when there is something to do, and stay. A context manager.

    needed: modules that all of them import, where that takes long: one process does it for all.
    retries: how often a call is made again whose process died.
    """

    here = True

    def __init__(self, number: int, needed: Sequence[str] = (), retries: int = RETRIES):
        self.name, self.slots = f"processes:{number}", number
        self.needed, self.retries = needed, retries
        self._all: list[_Process] = []

    def __enter__(self) -> Processes:
        return self

    def __exit__(self, *exc: object) -> None:
        """End them; what they have not handed back is lost."""
        while self._all:
            self._all[-1].process.terminate()
            self._lost(self._all[-1])

    def everywhere(self, work: Callable[[T], R], item: T, unit: Unit) -> list[R]:
        """Return nothing: there is no other machine."""
        return []

    def each(
        self,
        work: Callable[..., R],
        items: Iterable[T],
        unit: Unit,
        tell: Callable[[T, Any], None] | None = None,
    ) -> Generator[tuple[T, R | Failed], None, None]:
        """Yield every item with what came of it: see `Executor`."""
        fresh = ((item, Tries(self.name, unit, self.retries)) for item in items)
        again: deque[tuple[T, Tries]] = deque()
        idle = list(self._all)
        busy: dict[Connection, tuple[_Process, T, Tries]] = {}
        try:
            while True:
                while len(busy) < self.slots:
                    one = again.popleft() if again else next(fresh, None)
                    if one is None:
                        break
                    process = self._given(idle, (work, one[0], tell is not None))
                    busy[process.ours] = (process, *one)
                if not busy:
                    return
                for ready in connection.wait(list(busy)):
                    assert isinstance(ready, Connection)
                    process, item, tries = busy[ready]
                    found: Any = None
                    try:
                        kind, found = ready.recv()  # what `_serve` sends
                    except (EOFError, OSError):
                        kind = _ENDED
                        self._lost(process)
                    if kind == _NEWS:
                        assert tell is not None
                        tell(item, found)
                        continue
                    del busy[ready]
                    if kind == _VALUE:
                        idle.append(process)
                        if not isinstance(found, Failed):
                            yield item, found
                            continue
                    # A full disk is as full for another process of this machine.
                    failed = found if found and found.passing else tries.failed(found)
                    if failed is None:
                        again.append((item, tries))
                    else:
                        yield item, failed
        finally:
            for process, *_ in busy.values():  # nobody waits for it any more
                process.process.terminate()
                self._lost(process)

    def _given(self, idle: list[_Process], what: tuple[Any, ...]) -> _Process:
        """Return a process that was given something to do, started if none waits."""
        while True:
            process = idle.pop() if idle else self._started()
            try:
                process.ours.send(what)
                return process
            except OSError:  # it died meanwhile
                self._lost(process)

    def _started(self) -> _Process:
        context = _context(self.needed)
        ours, theirs = context.Pipe()
        process = context.Process(target=_serve, args=(theirs, dict(os.environ)), daemon=True)
        process.start()
        theirs.close()
        self._all.append(_Process(process, ours))
        return self._all[-1]

    def _lost(self, process: _Process) -> None:
        """Forget a process, which has ended or is about to."""
        process.ours.close()
        process.process.join()
        if process in self._all:
            self._all.remove(process)


#: What a process sends: news of what it does, and what came of it; or nothing more.
_NEWS, _VALUE, _ENDED = "news", "value", "ended"


@dataclass(eq=False)
class _Process:
    process: Any
    ours: Connection


def _context(needed: Sequence[str]) -> Any:
    """Return how processes are started: forked from one that has imported what they need, which
    takes seconds, and does nothing else; where that is not safe, each from nothing."""
    if sys.platform != "linux" or not needed:
        return get_context("spawn")
    found = get_context("forkserver")
    found.set_forkserver_preload([__name__, *needed])
    return found


# --- in the processes -------------------------------------------------------------------------


def _serve(pipe: Connection, environment: Mapping[str, str]) -> None:
    """Do what comes through a pipe, until it is closed."""
    begin(environment)
    while True:
        try:
            work, item, tells = pipe.recv()
        except EOFError:
            return
        except Exception as error:  # what is to be done is no process's but the other one's
            pipe.send((_VALUE, Failed(sendable(error))))
            continue
        more = (lambda news: pipe.send((_NEWS, news)),) if tells else ()
        found = attempted(work, item, *more)
        try:
            pipe.send((_VALUE, found))
        except BrokenPipeError:
            return
        except Exception as error:  # it cannot be sent
            pipe.send((_VALUE, Failed(sendable(error))))


def begin(environment: Mapping[str, str]) -> None:
    """Set this process up: one thread, no Ctrl-C of its own, and an end with its parent's.

    environment: the parent's, which may have changed since the process was forked from another.
    """
    os.environ.clear()
    os.environ.update(environment)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ[name] = "1"
    os.environ["TOKENIZERS_PARALLELISM"] = "false"


def _end_with_parent() -> None:
    parent = parent_process()
    assert parent is not None
    connection.wait([parent.sentinel])
    os._exit(1)
