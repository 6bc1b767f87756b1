"""What calls of others' processes give: values, or errors as they were, and which are made again.

A worker hands errors back as values (`Failed`), so that they arrive as they were raised and say
whether to try again.
"""

from __future__ import annotations

import contextlib
import errno
import pickle
import traceback
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

from breadcrumbs.errors import BreadcrumbsError, OutputError, counted

T = TypeVar("T", bound=Any)
R = TypeVar("R", bound=Any)
#: How often a call is made again whose worker or machine was lost.
RETRIES = 4
#: What may be over when it is tried again: a full or failing disk, a server that is away.
PASSING = {errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.ENOTCONN}
#: Called in a worker with news of what it does.
Send = Callable[[Any], None]


@dataclass(frozen=True)
class Failed:
    """What a call raised. passing: whether it may go well the next time; full: no memory."""

    error: Exception
    passing: bool = False
    full: bool = False


@dataclass(frozen=True)
class Unit:
    """What a call does, for messages. name: such as a part. advice: where workers are lost again
    and again. resume: how to go on where all of them are. error: that is then raised."""

    name: str
    advice: str
    resume: str = "Run it again to go on."
    error: type[BreadcrumbsError] = OutputError


class Executor(Protocol):
    """Calls functions elsewhere: `Processes` of this machine, or a `Cluster`.

    name: what messages call it. here: whether all calls are made on this machine.
    """

    name: str
    here: bool

    @property
    def slots(self) -> int:
        """How many calls are made at once."""
        ...

    def everywhere(self, work: Callable[[T], R], item: T, unit: Unit) -> list[R]:
        """Return what a call gives on every other machine; its error is raised. One that is lost
        meanwhile gives nothing."""
        ...

    def each(
        self,
        work: Callable[..., R],
        items: Iterable[T],
        unit: Unit,
        tell: Callable[[T, Any], None] | None = None,
    ) -> Generator[tuple[T, R | Failed], None, None]:
        """Yield every item with what ``work`` gives for it, as they come; `Failed` where it failed
        for good. Items are taken when there is room.

        tell: is given what a call sends meanwhile, and its item; ``work`` then gets a `Send` after
        the item. What is sent may be lost with a worker, or come twice.
        """
        ...


def values(found: Generator[tuple[T, R | Failed], None, None]) -> Iterator[tuple[T, R]]:
    """Yield items with what came of them; the first error is raised and ends all."""
    with contextlib.closing(found):
        for item, outcome in found:
            if isinstance(outcome, Failed):
                raise outcome.error
            yield item, outcome


def attempted(work: Callable[..., Any], *given: Any) -> Any:
    """Return what a call gives, or `Failed`. Called on a worker."""
    try:
        return work(*given)
    except BreadcrumbsError as error:
        return Failed(error, passing=_is_passing(error))
    except MemoryError:
        return Failed(OutputError("a worker has no memory left"), full=True)
    except OSError as error:
        if _is_passing(error):
            said = f"{error.filename or 'a file'}: {error.strerror}."
            return Failed(OutputError(said), passing=True)
        return Failed(sendable(error))
    except Exception as error:  # of a file of the user's, or a fault of ours
        return Failed(sendable(error))


def sendable(error: Exception) -> Exception:
    """Return an error that says where it was raised, also where its class is no other process's."""
    where = traceback.format_exc()
    try:
        found = pickle.loads(pickle.dumps(error))
    except Exception:
        found = RuntimeError(f"{type(error).__name__}: {error}")
    found.add_note(where)
    return found


def _is_passing(error: BaseException | None) -> bool:
    """Return whether an error comes of one of the system's that may pass."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in PASSING:
            return True
        error = error.__cause__ or error.__context__
    return False


@dataclass
class Tries:
    """How often what went wrong with one call. where: who makes it."""

    where: str
    unit: Unit
    retries: int = RETRIES
    lost: Counter[str] = field(default_factory=Counter)

    def failed(self, outcome: Failed | None) -> Failed | None:
        """Return None if the call is to be made again, else its error. None: it was lost."""
        unit = self.unit
        if outcome is None:
            self.lost["lost"] += 1
            if self.lost["lost"] <= self.retries:
                return None
            times = counted(self.retries + 1, "time")
            said = f"a worker was lost {times} at the same {unit.name}, perhaps for want of memory."
            return Failed(unit.error(f"{self.where}: {said} {unit.advice}"))
        if outcome.full:
            self.lost["full"] += 1
            if self.lost["full"] == 1:
                return None
            said = f"a worker was out of memory twice at the same {unit.name}."
            return Failed(unit.error(f"{self.where}: {said} {unit.advice}"))
        self.lost["failed"] += 1
        again = outcome.passing and self.lost["failed"] <= self.retries
        return None if again else outcome
