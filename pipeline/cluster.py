"""Who makes the shards: threads of this process, worker processes of its own, or workers of a dask cluster.

The bytes are the same. A failure or Ctrl-C ends them all, and what is done is kept.
"""

import logging
import pickle
import platform
import signal
import tempfile
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from multiprocessing import resource_tracker
from pathlib import Path
from pkgutil import resolve_name
from typing import TYPE_CHECKING

import dask.config
import numba
import numpy as np
from dask import threaded
from dask.base import compute
from dask.delayed import delayed
from dask.system import CPU_COUNT

from pipeline.code import ALL, code_digest
from pipeline.shard_task import ShardTask, make_pickled_shard, make_shard

if TYPE_CHECKING:
    from distributed import Client, Future

ALL_CORES = int(CPU_COUNT)  # that this process may use: affinity and a container's quota count
RECORDINGS_WORTH_PROCESSES = 20_000
CONNECT_SECONDS = 5
RECORDINGS_TO_COMPILE = 8


class StoppedError(RuntimeError):
    """Ends the tasks that are still running when another one has failed."""


def suitable_processes(recordings: int, workers: int) -> int:
    """Over how many processes to spread so many workers: one each for large jobs by many, 1 for others.

    One thread of a process runs Python at a time, a fifth of what a recording takes, and the others wait for
    it. Two threads hardly do: they are a little faster than two processes, whatever the size of the job. More
    of them would, five times as fast as one at most; but processes take some seconds to start, in which two
    threads make several thousand recordings (docs/performance.md).
    """
    return workers if workers > 2 and recordings >= RECORDINGS_WORTH_PROCESSES else 1


def check_spread(workers: int | None, processes: int | None) -> None:
    """Raises ValueError if so many workers cannot be spread over so many processes, as threads, evenly.

    Unevenly, some of them would have no process to run in, or more would run than were asked for.
    """
    if workers and processes and workers % processes:
        fitting = max(workers // processes, 1) * processes
        raise ValueError(
            f"--workers {workers} cannot be spread evenly over --processes {processes}; "
            f"--workers {fitting} --processes {processes} can"
        )


def make_shards(
    tasks: list[ShardTask],
    *,
    workers: int | None,
    processes: int | None,
    cluster: str | None,
    on_begin: Callable[[], None],
    on_recordings: Callable[[int], None],
) -> None:
    """Make these shards of one job, all that are still to be made. `on_begin` is called when there are
    workers who can, before the first of them does. The rest as in `preprocess.run`."""
    if not tasks:
        return
    if workers is None:
        workers = max(ALL_CORES // (processes or 1), 1) * (processes or 1)
    if processes is None:
        processes = suitable_processes(sum(len(task.recordings) for task in tasks), workers)
    workers_each = workers // processes
    processes = min(processes, len(tasks))  # of which no more than one works on a shard
    if cluster is not None:
        with _running_cluster(cluster) as client:
            _make_shards_on_cluster(tasks, client, on_begin, on_recordings)
    elif processes > 1:
        with _own_cluster(processes, min(workers_each, len(tasks))) as client:
            _make_shards_on_cluster(tasks, client, on_begin, on_recordings)
    else:
        on_begin()
        _make_shards_on_threads(tasks, min(workers, len(tasks)), on_recordings)


def _make_shards_on_threads(
    tasks: list[ShardTask], workers: int, on_recordings: Callable[[int], None]
) -> None:
    stopped = threading.Event()

    def hear(count: int) -> None:
        if stopped.is_set():
            raise StoppedError
        on_recordings(count)

    # Bound beforehand: dask would search an argument, recording by recording, for tasks of its own.
    calls = [partial(make_shard, task, hear) for task in tasks]
    shards = [delayed(call, pure=False, traverse=False)() for call in calls]
    try:
        # Not "threads": by a name, dask looks for clusters first, and imports distributed for it.
        compute(*shards, scheduler=threaded.get, num_workers=workers, optimize_graph=False)
    finally:
        stopped.set()  # after a failure or Ctrl-C, the other threads end with the recording in hand


def _make_shards_on_cluster(
    tasks: list[ShardTask],
    client: "Client",
    on_begin: Callable[[], None],
    on_recordings: Callable[[int], None],
) -> None:
    """After a failure or Ctrl-C, no other shard is begun."""
    from distributed import KilledWorker, as_completed

    _check_workers(tasks[0], client)
    on_begin()
    again = "the shards that are done are kept; run the same command again to go on"
    shards: list[Future[int]] = []
    try:
        _compile_on_every_host(tasks[0], client)
        shards += [client.submit(make_pickled_shard, pickle.dumps(task), pure=False) for task in tasks]
        for shard in as_completed(shards):
            on_recordings(shard.result())
    except KilledWorker as error:
        raise RuntimeError(
            f"{error.allowed_failures + 1} worker processes in a row were killed over the same shard, as the "
            f"system does where memory runs out: try fewer workers; {again}"
        ) from None
    except CancelledError:
        raise RuntimeError(f"the dask cluster was closed or lost; {again}") from None
    finally:
        client.cancel(shards, force=True)


@contextmanager
def _own_cluster(processes: int, threads: int) -> "Iterator[Client]":
    """A client of worker processes on this machine, reachable from it alone; they end with the block."""
    from distributed import Client, LocalCluster

    # Dask makes the C library give memory back at once: a third more CPU time, as every array is mapped anew.
    environment = dict(dask.config.get("distributed.nanny.pre-spawn-environ"))
    environment.pop("MALLOC_TRIM_THRESHOLD_", None)
    settings = {
        "distributed.nanny.pre-spawn-environ": environment,
        "distributed.worker.multiprocessing-method": "spawn",
    }
    with (
        tempfile.TemporaryDirectory(prefix="cpstn-") as scratch,
        dask.config.set(settings),
        ExitStack() as started,
    ):
        with _interrupts_kept_back():
            cluster = LocalCluster(
                n_workers=processes,
                threads_per_worker=threads,
                host="127.0.0.1",
                dashboard_address="127.0.0.1:0",
                local_directory=scratch,
                memory_limit=None,
                silence_logs=logging.CRITICAL,
            )
            client = started.enter_context(Client(started.enter_context(cluster)))
        yield client


@contextmanager
def _interrupts_kept_back() -> Iterator[None]:
    """Ctrl-C waits for the end of the block, and what is started in it never hears one.

    A terminal sends it to every process; but only this one knows how to end the others.
    """
    resource_tracker.ensure_running()  # multiprocessing would start it later, and let interrupts in again
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def _running_cluster(address: str) -> "Iterator[Client]":
    """A client of a cluster that others run. Raises ValueError if there is none, or it has no workers."""
    with dask.config.set({"logging": {"distributed": "critical", "distributed.client": "critical"}}):
        from distributed import Client

    try:
        client = Client(address, timeout=CONNECT_SECONDS)
    except (OSError, ValueError) as error:
        raise ValueError(
            f"--cluster {address}: no dask scheduler answers there ({error}); "
            f"start one by `dask scheduler`, and workers by `dask worker {address}`"
        ) from None
    except (TypeError, ImportError):  # of a protocol that needs more than an address
        raise ValueError(
            f"--cluster {address}: dask cannot speak to it from here; expected tcp://HOST:8786, or, for tls, "
            f"certificates in dask's configuration (distributed.comm.tls)"
        ) from None
    with client:
        try:
            client.wait_for_workers(1, timeout=CONNECT_SECONDS)
        except TimeoutError:
            raise ValueError(
                f"--cluster {address}: has no workers; start some by `dask worker {address}`"
            ) from None
        yield client


def _check_workers(task: ShardTask, client: "Client") -> None:
    """Raises ValueError if a worker lacks this project or its files, or would make other bytes."""
    places = [str(task.out / "plan.json"), task.recordings[0].archive or task.recordings[0].files[0]]
    way_out = "install the same on all machines of the cluster, and share the folders under the same paths"
    try:
        # Named by text, for what a worker cannot unpickle it cannot explain.
        client.run_on_scheduler(resolve_name, f"{__name__}:CONNECT_SECONDS")
        client.run(resolve_name, f"{__name__}:CONNECT_SECONDS")
    except ImportError as error:
        raise ValueError(f"the cluster's workers cannot import this project: {error}; {way_out}") from None
    ours = _worker_facts(places)
    for worker, facts in client.run(_worker_facts, places).items():
        for name, value in facts.items():
            if value != ours[name]:
                raise ValueError(f"worker {worker}: {name}: {value} there, {ours[name]} here; {way_out}")


def _worker_facts(places: list[str]) -> dict[str, str]:
    """What must be equal wherever shards of one job are made, by name."""
    return {
        "Python": ".".join(platform.python_version_tuple()[:2]),
        "numpy": np.__version__,
        "numba": numba.__version__,
        "this project's code": code_digest(ALL),
    } | {place: "found" if Path(place).exists() else "missing" for place in places}


def _compile_on_every_host(task: ShardTask, client: "Client") -> None:
    """One process of each machine fills numba's cache before the others begin.

    Otherwise all would compile the same; and numba, finding an entry of its cache half written, can take the
    kernel of an older version of this project for the new one.
    """
    first_workers = {host: worker for worker, host in client.run(platform.node).items()}.values()
    few = replace(task, recordings=task.recordings[:RECORDINGS_TO_COMPILE])
    client.gather([client.submit(_compile, few, workers=[worker], pure=False) for worker in first_workers])


def _compile(task: ShardTask) -> None:
    """Make a shard to be thrown away: that calls every kernel, if any of its recordings can be read."""
    with tempfile.TemporaryDirectory(prefix="cpstn-") as folder:
        make_shard(replace(task, out=Path(folder)))
