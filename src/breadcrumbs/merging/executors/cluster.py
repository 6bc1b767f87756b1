"""Functions called on a cluster of Ray: quietly, what is lost again, and errors as they were.

Only arguments and what comes back travel through it, which are small.
"""

# Ray may be there or not, where types are checked.
# pyright: reportUnnecessaryTypeIgnoreComment=false
from __future__ import annotations

import contextlib
import logging
import os
import socket
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any

from breadcrumbs.errors import BreadcrumbsError, MissingExtraError, OutputError, install
from breadcrumbs.machine import available_cores
from breadcrumbs.merging.executors.attempts import (
    RETRIES,
    Failed,
    R,
    T,
    Tries,
    Unit,
    attempted,
)

#: Threads of a call, unless said: so many keep up with 100 Gbit/s of weights.
THREADS = 16
#: Calls for each that is made at once: so many that one that is slow is no hindrance.
AHEAD = 2
#: Seconds between two looks at the cluster, and how long it may be without a machine.
LOOK, PATIENCE = 2.0, 60.0
#: Seconds between two looks at what calls send.
NEWS = 0.5
#: Seconds in which the head of a cluster must answer.
REACHED = 10.0
#: The constant of Ray that says whether other machines are to reach this one.
LOOPBACK = "ENABLE_RAY_CLUSTER"
#: Bytes of the store of a cluster that is started here, which is given reports alone.
STORE = 100 * 10**6


class Cluster:
    """A cluster that is connected to. name: what messages call it. threads, gpus: of each call.

    retries: how often a call is made again whose worker or machine was lost.
    """

    here = False

    def __init__(
        self,
        ray: Any,
        name: str,
        threads: int | None = None,
        retries: int = RETRIES,
        gpus: int = 0,
    ):
        self.ray, self.name, self.retries, self.gpus = ray, name, retries, gpus
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

    def everywhere(self, work: Callable[[T], R], item: T, unit: Unit) -> list[R]:
        """Return what a call gives on every machine: see `Executor`."""
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
            outcome = self._outcome(reference, unit)
            if isinstance(outcome, Failed):
                raise outcome.error
            found += [] if outcome is None else [outcome]
        return found

    def each(
        self,
        work: Callable[..., R],
        items: Iterable[T],
        unit: Unit,
        tell: Callable[[T, Any], None] | None = None,
    ) -> Generator[tuple[T, R | Failed], None, None]:
        """Yield every item with what came of it: see `Executor`."""
        remote = self.ray.remote(attempted)
        call = remote.options(num_cpus=self.threads, num_gpus=self.gpus, max_retries=0)
        box = None if tell is None else self.ray.remote(_Box).options(num_cpus=0).remote()
        left = enumerate(items)
        told: dict[int, T] = {}
        waiting: dict[Any, tuple[int, T, Tries]] = {}

        def begin(number: int, item: T, tries: Tries) -> None:
            more = () if box is None else (_Sending(box, number),)
            waiting[call.remote(work, item, *more)] = (number, item, tries)

        def look() -> None:
            if box is None or tell is None:
                return
            news = []
            with contextlib.suppress(Exception):  # it was lost with its machine
                news = self.ray.get(box.take.remote(), timeout=REACHED)
            for number, what in news:
                if number in told:
                    tell(told[number], what)

        there = time.monotonic()
        try:
            while True:
                while len(waiting) < AHEAD * self.slots and (one := next(left, None)):
                    number, item = one
                    told[number] = item
                    begin(number, item, Tries(self.name, unit, self.retries))
                if not waiting:
                    return
                pause = LOOK if tell is None else NEWS
                ready, _ = self.ray.wait(list(waiting), num_returns=1, timeout=pause)
                look()
                if not ready:
                    there = self._looked(there, unit)
                for reference in ready:
                    number, item, tries = waiting.pop(reference)
                    outcome = self._outcome(reference, unit)
                    if outcome is not None and not isinstance(outcome, Failed):
                        del told[number]
                        yield item, outcome
                        continue
                    failed = tries.failed(outcome)
                    if failed is None:
                        begin(number, item, tries)
                    else:
                        del told[number]
                        yield item, failed
        finally:
            for reference in waiting:
                with contextlib.suppress(Exception):
                    self.ray.cancel(reference, force=False)
            if box is not None:
                with contextlib.suppress(Exception):
                    self.ray.kill(box)

    def _looked(self, there: float, unit: Unit) -> float:
        """Return when a machine that can do a call was last seen; OutputError if long ago."""
        now = time.monotonic()
        if any(node["Resources"].get("CPU", 0) >= self.threads for node in self.nodes()):
            return now
        if now - there > PATIENCE:
            raise OutputError(f"{self.name}: no machine of it is left. {unit.resume}")
        return there

    def _outcome(self, reference: Any, unit: Unit) -> Any:
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
            raise OutputError(f"{self.name}: was lost. {unit.resume}") from None
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


class _Box:
    """Where what calls send lies until it is taken: an actor of Ray."""

    def __init__(self) -> None:
        self._news: list[tuple[int, Any]] = []

    def put(self, number: int, what: Any) -> None:
        self._news.append((number, what))

    def take(self) -> list[tuple[int, Any]]:
        news, self._news = self._news, []
        return news


class _Sending:
    """Sends news of a call to a box, and waits for nothing."""

    def __init__(self, box: Any, number: int):
        self._box, self._number = box, number

    def __call__(self, news: Any) -> None:
        self._box.put.remote(self._number, news)


@contextmanager
def connected(
    address: str | None = None,
    threads: int | None = None,
    *,
    retries: int = RETRIES,
    gpus: int = 0,
) -> Iterator[Cluster]:
    """Connect to a cluster, or start one of this machine, and give it.

    address: ``ray://HOST:PORT``; without it that of ``RAY_ADDRESS``, and where that is not set,
    this machine is one for as long, which nobody reaches from outside. One that the program is
    connected to is taken as it is. threads: of each call; by default all of the smallest machine,
    at most `THREADS`. retries, gpus: as for `Cluster`.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # it would report to its makers
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    name = reach(address)
    import ray  # pyright: ignore[reportMissingImports]

    if ray.is_initialized():
        with _silenced():
            yield Cluster(ray, name, threads, retries, gpus)
        return
    given: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.CRITICAL}
    if address is not None:
        given["address"] = address
    elif not os.environ.get("RAY_ADDRESS"):
        given |= {"address": "local", "num_cpus": available_cores(), "include_dashboard": False}
        given["object_store_memory"] = STORE
    with _silenced(), _at_home(given.get("address") == "local"):
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
            yield Cluster(ray, name, threads, retries, gpus)
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


@contextmanager
def _at_home(alone: bool) -> Iterator[None]:
    """Have a cluster that is started meanwhile listen on the loopback interface, if it is
    ``alone``.

    Ray does so on macOS and Windows. Elsewhere it takes an address of the machine that others
    reach, also for 127.0.0.1, unless this constant, or the variable that it is made of, says not.
    """
    from ray._private import ray_constants  # pyright: ignore[reportMissingImports]

    before = getattr(ray_constants, LOOPBACK, None)
    if not alone or before is None:
        yield
        return
    setattr(ray_constants, LOOPBACK, False)
    try:
        yield
    finally:
        setattr(ray_constants, LOOPBACK, before)
