"""Functions called on a cluster of Ray: quietly, what is lost again, and errors as they were.

Only arguments and what comes back travel through it, which are small. A worker hands errors back as
values (`Failed`), so that they arrive as they were raised and say whether to try again.
"""

# Ray may be there or not, where types are checked.
# pyright: reportUnnecessaryTypeIgnoreComment=false
from __future__ import annotations

import contextlib
import errno
import logging
import os
import socket
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any, TypeVar

from breadcrumbs.errors import BreadcrumbsError, MissingExtraError, OutputError, counted, install
from breadcrumbs.machine import available_cores

T = TypeVar("T", bound=Any)
R = TypeVar("R", bound=Any)
#: How often a call is made again whose worker or machine was lost.
RETRIES = 4
#: Threads of a call, unless said: so many keep up with 100 Gbit/s of weights.
THREADS = 16
#: Seconds between two looks at the cluster, and how long it may be without a machine.
LOOK, PATIENCE = 2.0, 60.0
#: Seconds in which the head of a cluster must answer.
REACHED = 10.0
#: Bytes of the store of a cluster that is started here, which is given reports alone.
STORE = 100 * 10**6
#: What may be over when it is tried again: a full or failing disk, a server that is away.
PASSING = {errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.ENOTCONN}
ADVICE = "Give --resume to go on."


@dataclass(frozen=True)
class Failed:
    """What a call raised. passing: whether it may go well the next time; full: no memory."""

    error: BreadcrumbsError
    passing: bool = False
    full: bool = False


def attempted(work: Callable[[Any], Any], item: Any) -> Any:
    """Return what a call gives, or `Failed`. Called on a worker."""
    try:
        return work(item)
    except BreadcrumbsError as error:
        return Failed(error, passing=_is_passing(error))
    except OSError as error:
        if not _is_passing(error):
            raise
        return Failed(OutputError(f"{error.filename or 'a file'}: {error.strerror}."), passing=True)
    except MemoryError:
        return Failed(OutputError("a worker has no memory left"), full=True)


def _is_passing(error: BaseException | None) -> bool:
    """Return whether an error comes of one of the system's that may pass."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in PASSING:
            return True
        error = error.__cause__ or error.__context__
    return False


class Cluster:
    """A cluster that is connected to. name: what messages call it. threads: of each call."""

    def __init__(self, ray: Any, name: str, threads: int | None = None):
        self.ray, self.name = ray, name
        cores = [int(node["Resources"].get("CPU", 0)) for node in self.nodes()]
        self.threads = threads or min(THREADS, min(cores, default=1))
        self.slots = sum(it // self.threads for it in cores)
        if not self.slots:
            most = max(cores, default=0)
            raise OutputError(
                f"{name}: no machine of it has {self.threads} processors (the largest has {most})."
                " Give fewer --threads, or more machines."
            )

    def nodes(self) -> list[dict[str, Any]]:
        """Return the machines that are up and do work."""
        return [
            node
            for node in self.ray.nodes()
            if node["Alive"] and node["Resources"].get("CPU", 0) >= 1
        ]

    def everywhere(self, work: Callable[[T], R], item: T) -> list[R]:
        """Return what a call gives on every machine; its error is raised. One that is lost
        meanwhile gives nothing."""
        from ray.util.scheduling_strategies import (  # pyright: ignore[reportMissingImports]
            NodeAffinitySchedulingStrategy,
        )

        call = self.ray.remote(attempted)
        strategies = [NodeAffinitySchedulingStrategy(it["NodeID"], False) for it in self.nodes()]
        references = [
            call.options(num_cpus=0, max_retries=0, scheduling_strategy=it).remote(work, item)
            for it in strategies
        ]
        found = []
        for reference in references:
            outcome = self._outcome(reference)
            if isinstance(outcome, Failed):
                raise outcome.error
            found += [] if outcome is None else [outcome]
        return found

    def map(
        self, work: Callable[[T], R], items: Iterable[T], retries: int = RETRIES
    ) -> Iterator[R]:
        """Yield what a call gives for every item, as they come; the first error ends all.

        A call whose worker or machine is lost, or whose disk is full, is made again so many times;
        one without memory once.
        """
        remote = self.ray.remote(attempted)
        call = remote.options(num_cpus=self.threads, max_retries=0)
        waiting = {call.remote(work, item): (item, Counter[str]()) for item in items}
        there = time.monotonic()
        try:
            while waiting:
                ready, _ = self.ray.wait(list(waiting), num_returns=1, timeout=LOOK)
                if not ready:
                    there = self._looked(there)
                for reference in ready:
                    item, lost = waiting.pop(reference)
                    outcome = self._outcome(reference)
                    if outcome is not None and not isinstance(outcome, Failed):
                        yield outcome
                        continue
                    self._check(outcome, lost, retries)
                    waiting[call.remote(work, item)] = (item, lost)
        finally:
            for reference in waiting:
                with contextlib.suppress(Exception):
                    self.ray.cancel(reference, force=False)

    def _looked(self, there: float) -> float:
        """Return when a machine that can do a call was last seen; OutputError if long ago."""
        now = time.monotonic()
        if any(node["Resources"].get("CPU", 0) >= self.threads for node in self.nodes()):
            return now
        if now - there > PATIENCE:
            raise OutputError(f"{self.name}: no machine of it is left. {ADVICE}")
        return there

    def _outcome(self, reference: Any) -> Any:
        """Return what a call gave; None where its worker or machine was lost."""
        from ray import exceptions as of  # pyright: ignore[reportMissingImports]

        try:
            return self.ray.get(reference)
        except of.OutOfMemoryError:
            return Failed(OutputError("a worker was out of memory"), full=True)
        except (of.WorkerCrashedError, of.NodeDiedError, of.ObjectLostError):
            return None
        except of.TaskUnschedulableError:  # its machine went away
            return None
        except (of.LocalRayletDiedError, of.RpcError, ConnectionError):
            raise OutputError(f"{self.name}: was lost. {ADVICE}") from None
        except of.RayTaskError as error:
            if isinstance(error.cause, BreadcrumbsError):
                raise error.cause from None
            if "breadcrumbs" in str(error) and "ModuleNotFoundError" in str(error):
                raise self._without() from None
            raise
        except of.RaySystemError as error:
            if "No module named 'breadcrumbs" in str(error):
                raise self._without() from None
            raise

    def _without(self) -> OutputError:
        return OutputError(
            f"{self.name}: Breadcrumbs is not installed on a machine of it, or another version."
            " Install the same on all."
        )

    def _check(self, failed: Failed | None, lost: Counter[str], retries: int) -> None:
        """Count what went wrong with a call; raise where it is not to be made again."""
        if failed is None:
            lost["lost"] += 1
            if lost["lost"] > retries:
                times = counted(retries + 1, "time")
                raise OutputError(
                    f"{self.name}: a worker was lost {times} at the same part, perhaps for want of"
                    " memory. Give fewer --threads, or --max-memory, and --resume."
                )
        elif failed.full:
            lost["full"] += 1
            if lost["full"] > 1:
                raise OutputError(
                    f"{self.name}: a worker was out of memory twice at the same part. Give fewer"
                    " --threads, or --max-memory, and --resume."
                )
        else:
            lost["failed"] += 1
            if not failed.passing or lost["failed"] > retries:
                raise failed.error


@contextmanager
def connected(address: str | None = None, threads: int | None = None) -> Iterator[Cluster]:
    """Connect to a cluster, or start one of this machine, and give it.

    address: ``ray://HOST:PORT``; without it that of ``RAY_ADDRESS``, and where that is not set,
    this machine is one for as long. One that the program is connected to is taken as it is.
    threads: of each call; by default all of the smallest machine, at most `THREADS`.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # it would report to its makers
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    name = reach(address)
    import ray  # pyright: ignore[reportMissingImports]

    if ray.is_initialized():
        with _silenced():
            yield Cluster(ray, name, threads)
        return
    given: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.CRITICAL}
    if address is not None:
        given["address"] = address
    elif not os.environ.get("RAY_ADDRESS"):
        given |= {"address": "local", "num_cpus": available_cores(), "include_dashboard": False}
        given["object_store_memory"] = STORE
    with _silenced():
        try:
            ray.init(**given)
        except (ConnectionError, RuntimeError, ValueError, AssertionError) as error:
            lines = [line.strip() for line in str(error).splitlines() if line.strip()]
            said = lines[0].rstrip(".") if lines else type(error).__name__
            raise OutputError(
                f"--on {name}: cannot connect to Ray: {said}. If the cluster asks for a token, set"
                " RAY_AUTH_MODE=token."
            ) from None
        try:
            yield Cluster(ray, name, threads)
        finally:
            ray.shutdown()


def reach(address: str | None) -> str:
    """Return what a cluster is called; MissingExtraError without Ray, and OutputError where nobody
    answers at its host and port, which Ray would try for minutes."""
    if find_spec("ray") is None:
        raise MissingExtraError(f"--on ray: Ray is not installed. {install('ray')}")
    name = address or os.environ.get("RAY_ADDRESS") or "ray"
    if address is not None and find_spec("grpc") is None:
        raise MissingExtraError(f"--on {name}: grpcio is not installed. {install('ray')}")
    host, colon, port = name.removeprefix("ray://").rpartition(":")
    if not colon or not port.isdecimal():
        return name
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=REACHED).close()
    except (OSError, OverflowError) as error:
        said = getattr(error, "strerror", None) or "no answer"
        raise OutputError(
            f"--on {name}: no cluster answers there ({said}). `ray status` on its head says whether"
            " it runs."
        ) from None
    return name


@contextmanager
def _silenced() -> Iterator[None]:
    """Keep Ray from printing into the result: it says to stdout what it retries, as we do.

    There is no setting for that, but the one that its own debugger uses.
    """
    from ray._private import worker  # pyright: ignore[reportMissingImports]

    logger, before = logging.getLogger("ray"), getattr(worker, "_worker_logs_enabled", True)
    level = logger.level
    setattr(worker, "_worker_logs_enabled", False)  # noqa: B010
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        setattr(worker, "_worker_logs_enabled", before)  # noqa: B010
        logger.setLevel(level)
