"""Raw recordings -> shards: plan, one dask task per shard, finalise. Safe to stop and to run again.

A shard is made by a thread of this process, by a worker process of its own, or by a worker of a dask cluster
that runs elsewhere. The bytes are the same.
"""

import hashlib
import logging
import pickle
import platform
import shutil
import signal
import tempfile
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field, replace
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

from data_specs.spec import DatasetSpec
from pipeline.normalize import NormalizeConfig
from pipeline.raw.sources import Recording, Scan, scan
from pipeline.shard_task import ShardTask, make_pickled_shard, make_shard
from pipeline.store import manifest as store
from pipeline.store.manifest import Manifest, Plan
from pipeline.store.publish import file_facts, publish_bytes
from pipeline.store.zarr_shard import array_metadata

if TYPE_CHECKING:
    from distributed import Client, Future

ALL_CORES = int(CPU_COUNT)  # that this process may use: affinity and a container's quota count
RECORDINGS_WORTH_PROCESSES = 20_000
CONNECT_SECONDS = 5
RECORDINGS_TO_COMPILE = 8
LEFTOVERS = ".*.tmp"  # what `published` was writing when a run was killed


@dataclass(frozen=True)
class PreprocessConfig:
    """Which samples are written, and how.

    min_frames: recordings with fewer captured frames are left out (7 gives the paper's 1,018/462 on NW-UCLA).
    keep_missing: also write samples on the data set's official list of missing skeletons.
    """

    normalize: NormalizeConfig = field(default_factory=NormalizeConfig)
    format: str = "zarr"
    min_frames: int = 1
    keep_missing: bool = False
    shard_samples: int = 512

    def __post_init__(self) -> None:
        if self.format not in store.FORMATS:
            raise ValueError(f"format is {self.format!r}; expected one of {', '.join(store.FORMATS)}")
        if self.shard_samples < 1:
            raise ValueError(f"shard_samples is {self.shard_samples}; it must be at least 1")


class UnreadableError(RuntimeError):
    """Recordings could not be read, and that was not to be tolerated."""


class StoppedError(RuntimeError):
    """Ends the tasks that are still running when another one has failed."""


@dataclass(frozen=True)
class Job:
    """A whole run, decided before the first recording is opened."""

    spec: DatasetSpec
    plan: Plan
    recordings: tuple[Recording, ...]
    left_out: dict[str, int]
    config: PreprocessConfig
    out: Path

    def tasks(self) -> list[ShardTask]:
        """One task a shard, in order."""
        size = self.plan.shard_samples
        whole = ShardTask(
            out=self.out.absolute(),
            plan=self.plan.digest,
            shard=0,
            shard_samples=size,
            recordings=self.recordings,
            spec=self.spec,
            normalize=self.config.normalize,
            min_frames=self.config.min_frames,
            format=self.config.format,
        )
        return [
            replace(whole, shard=shard, recordings=self.recordings[shard * size : (shard + 1) * size])
            for shard in range(self.plan.num_shards)
        ]


def prepare(
    spec: DatasetSpec, raw: list[Path], out: Path, config: PreprocessConfig, *, overwrite: bool
) -> Job:
    """Search the raw data and claim the output folder.

    Raises ValueError where the user has to decide: nothing fits the data set, the output cannot be written,
    holds something else, or holds shards of other settings and `overwrite` is not set.
    """
    found = scan(raw, spec, skip=out)
    keys = [key for key in found.recordings if config.keep_missing or key not in spec.missing]
    if not keys:
        raise ValueError(
            f"all {len(found.recordings)} recordings are on the official list of missing skeletons; "
            f"--keep-missing writes them all the same"
        )
    order = store.row_order(keys)
    if config.format != "zarr" and any("." in key for key in order):
        raise ValueError("webdataset allows no dots in a sample's name; use --format zarr")
    plan = Plan(
        dataset=spec.name,
        spec=spec.text,
        keys=order,
        shape=(len(order), config.normalize.max_bodies, 3, config.normalize.frames, spec.skeleton.num_joints),
        shard_samples=config.shard_samples,
        format=config.format,
        settings=asdict(config.normalize)
        | {"min_frames": config.min_frames, "keep_missing": config.keep_missing},
    )
    _claim(out, plan, overwrite)
    recordings = tuple(found.recordings[key] for key in order)
    return Job(spec, plan, recordings, _left_out(found, len(order)), config, out)


def suitable_processes(recordings: int, workers: int) -> int:
    """Over how many processes to spread so many workers: one each for large jobs, 1 for small ones.

    One thread of a process runs Python at a time, and the others wait for it at every file: on two cores, two
    threads make a quarter more shards than one, two processes twice as many. But processes take some four
    seconds to start, in which two threads make several thousand recordings.
    """
    return workers if recordings >= RECORDINGS_WORTH_PROCESSES else 1


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


def run(
    job: Job,
    *,
    workers: int | None = None,
    processes: int | None = 1,
    cluster: str | None = None,
    strict: bool = False,
    on_recordings: Callable[[int], None] = lambda _: None,
) -> Manifest:
    """Write what is not yet there, then commit. `on_recordings` hears how many more recordings are done.

    workers: shards made at the same time, one a core if None; a multiple of `processes`.
    processes: over how many worker processes the workers are spread as threads; 1: they are threads of this
        process; None: as `suitable_processes` says. A script needs `if __name__ == "__main__":` for them.
    cluster: address of a running dask scheduler, such as tcp://host:8786, whose workers do it instead. They
        must see the same files under the same absolute paths, and run the same version of this project.
    `on_recordings` is called from worker threads after every recording, or from this thread after every shard
    that another process made; an exception that it raises stops the run.
    Raises UnreadableError if no recording could be used or, with `strict`, if any could not; ValueError as
    `check_spread`, or if the cluster is not there or not fit; RuntimeError if its workers die; what a task
    raises.
    """
    check_spread(workers, processes)
    todo = []
    for task in job.tasks():
        if task.is_done():
            on_recordings(len(task.recordings))
        else:
            todo.append(task)
    if workers is None:
        workers = max(ALL_CORES // (processes or 1), 1) * (processes or 1)
    processes = processes or suitable_processes(sum(len(task.recordings) for task in todo), workers)
    if todo and cluster is not None:
        with _running_cluster(cluster) as client:
            _make_shards_on_cluster(todo, client, on_recordings)
    elif todo and processes > 1:
        with _own_cluster(processes, workers // processes) as client:
            _make_shards_on_cluster(todo, client, on_recordings)
    elif todo:
        _make_shards_on_threads(todo, workers, on_recordings)
    return _finalise(job, strict)


def _make_shards_on_threads(
    tasks: list[ShardTask], workers: int, on_recordings: Callable[[int], None]
) -> None:
    _begin(tasks)
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
    tasks: list[ShardTask], client: "Client", on_recordings: Callable[[int], None]
) -> None:
    """After a failure or Ctrl-C, no other shard is begun."""
    from distributed import KilledWorker, as_completed

    _check_workers(tasks[0], client)
    _begin(tasks)
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
    code = hashlib.sha256()
    root = Path(__file__).parents[1]
    for path in sorted(path for part in ("data_specs", "pipeline") for path in (root / part).rglob("*.py")):
        code.update(path.read_bytes())
    return {
        "Python": ".".join(platform.python_version_tuple()[:2]),
        "numpy": np.__version__,
        "numba": numba.__version__,
        "this project's code": code.hexdigest()[:12],
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
    """Make a shard to be thrown away: that calls every kernel."""
    with tempfile.TemporaryDirectory(prefix="cpstn-") as folder:
        make_shard(replace(task, out=Path(folder)))


def _begin(tasks: list[ShardTask]) -> None:
    """From now on, and until the end, the folder counts as unfinished."""
    (tasks[0].out / "manifest.json").unlink(missing_ok=True)


def _finalise(job: Job, strict: bool) -> Manifest:
    """Tables and, last, the manifest."""
    plan = job.plan
    records = store.load_records(job.out, plan.num_shards)
    store.write_tables(job.out, plan.shard_samples, records)
    samples = sum(len(record.samples) for record in records)
    rejects = [reject for record in records for reject in record.rejects]
    if samples == 0:
        first = f"; the first: {rejects[0]['file']}: {rejects[0]['reason']}" if rejects else ""
        raise UnreadableError(
            f"none of {len(plan.keys)} recordings could be used: {len(plan.keys) - len(rejects)} have fewer "
            f"than {job.config.min_frames} frames (--min-frames), {len(rejects)} cannot be read{first}"
        )
    if strict and rejects:
        raise UnreadableError(
            f"{len(rejects)} recordings could not be read, listed in {job.out / 'rejects.csv'}; "
            f"without --strict they are left out"
        )
    files = {name: facts for record in records for name, facts in record.files.items()}
    small = ["samples.csv", "rejects.csv"]
    if plan.format != "webdataset":
        attributes = {"axes": ["sample", "body", "channel", "frame", "joint"], "dataset": plan.dataset}
        metadata = f"{store.ZARR_FOLDER}/zarr.json"
        publish_bytes(job.out / metadata, array_metadata(plan.shape, plan.shard_samples, attributes))
        small.append(metadata)
    files |= {name: file_facts(job.out / name) for name in small}
    manifest = Manifest(
        dataset=plan.dataset,
        spec=plan.spec,
        format=plan.format,
        settings=dict(plan.settings),
        shape=plan.shape,
        shard_samples=plan.shard_samples,
        planned=len(plan.keys),
        samples=samples,
        rejected=len(rejects),
        left_out=job.left_out | {"too_short": sum(len(record.too_short) for record in records)},
        files=dict(sorted(files.items())),
        plan=plan.digest,
    )
    for leftover in job.out.rglob(LEFTOVERS):
        leftover.unlink(missing_ok=True)
    manifest.write(job.out)
    return manifest


def _left_out(found: Scan, planned: int) -> dict[str, int]:
    return {
        "missing": len(found.recordings) - planned,
        "foreign": len(found.foreign),
        "duplicate": len(found.duplicates),
    }


def _claim(out: Path, plan: Plan, overwrite: bool) -> None:
    """Make the folder ours for this plan, or say why not."""
    try:
        differences = store.differing_settings(out, plan)
    except (FileNotFoundError, NotADirectoryError):
        if out.is_dir() and not all(path.match(LEFTOVERS) for path in out.iterdir()):
            raise ValueError(
                f"{out}: holds other files and no shards; choose an empty folder by --out"
            ) from None
        differences = []
    except (OSError, ValueError):
        differences = ["plan.json cannot be read"]
    if differences and not overwrite:
        raise ValueError(
            f"{out}: holds shards of other settings ({'; '.join(differences)}); "
            f"--overwrite replaces them, --out writes elsewhere"
        )
    try:
        if differences:
            _clear(out)
        store.write_plan(out, plan)
    except OSError as error:
        raise ValueError(
            f"{out}: cannot be written: {error.strerror or error}; choose another folder by --out"
        ) from None


def _clear(out: Path) -> None:
    """Remove what an earlier run wrote, and nothing else: the commit point first; last the plan, which says
    that the folder is ours. Raises OSError."""
    for name in ("manifest.json", "samples.csv", "rejects.csv"):
        (out / name).unlink(missing_ok=True)
    for name in ("records", store.ZARR_FOLDER, store.TAR_FOLDER):
        if (out / name).exists():
            shutil.rmtree(out / name)
    (out / "plan.json").unlink(missing_ok=True)
