"""Workers: where the units of a step run. In processes of this machine by default, or on a Ray cluster.

A unit is work and a small description of it, both sent by pickle; results come back the same way. What is large
stays in the object store: units exchange references only. A worker that dies (killed, out of memory) costs the unit
it ran, which comes back as `LOST`; every other unit goes on.
"""

from __future__ import annotations

import importlib
import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing.connection import Connection
from multiprocessing.connection import wait as wait_for
from typing import Any, Final, Literal, Protocol, TypeAlias, TypeVar

import dagster as dg
import polars as pl
from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

U = TypeVar("U")
R = TypeVar("R")

STARTS_MAX: Final = 3
"""Attempts to start a process for a unit: one that dies before it is given the unit says nothing about the unit."""


class Lost:
    """The worker of a unit died before it reported."""

    def __repr__(self) -> str:
        return "LOST"


LOST: Final = Lost()
Reported: TypeAlias = tuple[int, R | Lost]
"""(index of the unit, what came of it)."""


class WorkerSettings(BaseSettings):
    """Where units run, of the environment: `CONTEXT_PLANE_WORKERS`, and so on."""

    model_config = SettingsConfigDict(env_prefix="CONTEXT_PLANE_", frozen=True)

    workers: Literal["processes", "ray"] = "processes"
    worker_processes: int = Field(default=0, ge=0, description="of this machine; 0: as it grants processors")
    ray_address: str = Field(default="", description="auto, host:port or ray://…; empty: a cluster on this machine")


class Workers(Protocol):
    """`slots`: units that run at once. `map` yields each unit once, as they end; what `work` raises, it raises."""

    @property
    def slots(self) -> int: ...

    def map(self, work: Callable[[U], R], units: Sequence[U]) -> Iterator[Reported[R]]: ...

    def close(self) -> None: ...


class Processes:
    """Processes of this machine, started when they are first needed, each with one unit at a time.

    Every process is an executor of its own, for one that dies breaks its executor with all that waits in it.
    """

    def __init__(self, slots: int = 0) -> None:
        self._slots = slots or processors()
        self._executors: dict[int, tuple[ProcessPoolExecutor, Connection]] = {}
        """By slot, each with what its process ends with."""

    @property
    def slots(self) -> int:
        return self._slots

    def map(self, work: Callable[[U], R], units: Sequence[U]) -> Iterator[Reported[R]]:
        waiting = deque(range(len(units)))
        running: dict[Future[R], tuple[int, int]] = {}
        free = list(range(self._slots))
        while waiting or running:
            while free and waiting:
                slot, number = free.pop(), waiting.popleft()
                running[self._submit(slot, work, units[number])] = (number, slot)
            done, _ = wait(running, return_when=FIRST_COMPLETED)
            for future in done:
                number, slot = running.pop(future)
                free.append(slot)
                try:
                    result = future.result()
                except BrokenProcessPool:
                    self._drop(slot)
                    yield number, LOST
                else:
                    yield number, result

    def close(self) -> None:
        """Units under way end with their processes: nobody waits for what comes of them."""
        for slot in list(self._executors):
            self._drop(slot)

    def _submit(self, slot: int, work: Callable[[U], R], unit: U) -> Future[R]:
        for attempt in range(STARTS_MAX):
            if slot not in self._executors:
                context = multiprocessing.get_context("spawn")  # a fork would copy the locks of other threads
                until, life = context.Pipe(duplex=False)
                executor = ProcessPoolExecutor(1, mp_context=context, initializer=_begin, initargs=(until,))
                self._executors[slot] = (executor, life)
            try:
                with _interrupts_held():
                    return self._executors[slot][0].submit(work, unit)
            except BrokenProcessPool:  # it died while it had nothing to do
                self._drop(slot)
                if attempt == STARTS_MAX - 1:
                    raise
        raise AssertionError("the last attempt returns or raises")

    def _drop(self, slot: int) -> None:
        executor, life = self._executors.pop(slot)
        executor.shutdown(wait=False, cancel_futures=True)
        life.close()


class RayCluster:
    """A Ray cluster: one unit a processor. Its nodes have this package installed and the same environment.

    `address` as `ray.init` takes it: `auto`, `host:port`, or `ray://host:port`; empty: a cluster on this machine.
    """

    def __init__(self, address: str = "") -> None:
        try:
            self._ray: Any = importlib.import_module("ray")
        except ImportError as error:
            mend = "in a checkout pip install -e '.[ray]', for an image see With Ray or traces in deploy/README.md"
            detail = f"CONTEXT_PLANE_WORKERS=ray needs an extra that is not installed here; {mend}"
            raise dg.Failure(detail, allow_retries=False) from error
        self._ray.init(address=address or None, ignore_reinit_error=True, log_to_driver=False)

    @property
    def slots(self) -> int:
        return max(1, int(self._ray.cluster_resources().get("CPU", 1)))

    def map(self, work: Callable[[U], R], units: Sequence[U]) -> Iterator[Reported[R]]:
        ray, lost = self._ray, self._ray.exceptions
        remote = ray.remote(num_cpus=1, max_retries=0)(work)
        waiting = deque(range(len(units)))
        running: dict[Any, int] = {}
        at_most = 2 * self.slots
        while waiting or running:
            while waiting and len(running) < at_most:  # the next unit waits at its node
                number = waiting.popleft()
                running[remote.remote(units[number])] = number
            done, _ = ray.wait(list(running), num_returns=1)
            for reference in done:
                number = running.pop(reference)
                try:
                    result: R = ray.get(reference)
                except (lost.WorkerCrashedError, lost.NodeDiedError, lost.OutOfMemoryError, lost.ObjectLostError):
                    yield number, LOST
                else:
                    yield number, result

    def close(self) -> None:
        self._ray.shutdown()


class WorkersResource(dg.ConfigurableResource[Workers]):
    """Where units run. Fields left empty come from the environment (`WorkerSettings`)."""

    kind: Literal["", "processes", "ray"] = Field(default="", description="processes or ray")
    processes: int = Field(default=0, ge=0, description="of this machine")
    ray_address: str = Field(default="", description="auto, host:port or ray://…")

    @contextmanager
    def yield_for_execution(self, context: dg.InitResourceContext) -> Iterator[Workers]:
        named = {"workers": self.kind, "worker_processes": self.processes, "ray_address": self.ray_address}
        given = {name: value for name, value in named.items() if value}
        with open_workers(WorkerSettings().model_copy(update=given)) as workers:
            yield workers


@contextmanager
def open_workers(settings: WorkerSettings | None = None) -> Iterator[Workers]:
    """Workers as the settings say, by default those of the environment. Raises `dagster.Failure` where Ray is not
    installed, `pydantic.ValidationError` for an environment that names no workers."""
    settings = settings or WorkerSettings()
    ray = settings.workers == "ray"
    workers: Workers = RayCluster(settings.ray_address) if ray else Processes(settings.worker_processes)
    try:
        yield workers
    finally:
        workers.close()


def processors() -> int:
    """Processors that the machine grants this process: affinity and quota of the control group respected."""
    return int(pl.thread_pool_size())


@contextmanager
def _interrupts_held() -> Iterator[None]:
    """What is started here is not interrupted before `_begin` says that it shall not be: imports come first."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _begin(until: Connection) -> None:
    """In a new worker: a signal for the terminal's group is its parent's to handle, and it ends when that closes the
    other end of `until`, or dies."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    threading.Thread(target=_end_with, args=(until,), daemon=True).start()


def _end_with(until: Connection) -> None:
    wait_for([until])
    os._exit(1)
