"""Shards made by worker processes and by dask clusters: the same bytes, and no process left behind."""

import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import dask.config
import pytest
from distributed import LocalCluster

from data_specs.read import load_spec
from data_specs.spec import DatasetSpec
from pipeline import cluster as scheduling
from pipeline.cluster import suitable_processes
from pipeline.normalize import NormalizeConfig
from pipeline.preprocess import Job, PreprocessConfig, prepare, run
from pipeline.raw.synthetic import synthesize

CONFIG = PreprocessConfig(NormalizeConfig(frames=12), "both", shard_samples=8)


@pytest.fixture(scope="module")
def spec() -> DatasetSpec:
    return load_spec("ntu60")


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory, spec: DatasetSpec) -> Path:
    """Twenty recordings, half of them odd."""
    folder = tmp_path_factory.mktemp("raw")
    synthesize(spec, folder, 20, oddities=0.5)
    return folder


@pytest.fixture(scope="module")
def cluster() -> Iterator[str]:
    """The address of a dask cluster, whose two workers are threads of this process."""
    with LocalCluster(
        n_workers=2,
        threads_per_worker=1,
        processes=False,
        protocol="tcp",
        host="127.0.0.1",
        dashboard_address="127.0.0.1:0",
    ) as started:
        yield started.scheduler_address


@pytest.fixture
def job(spec: DatasetSpec, raw: Path, tmp_path: Path) -> Job:
    return prepare(spec, [raw], tmp_path / "out", CONFIG, overwrite=False)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_threads_processes_and_clusters_make_the_same_bytes(
    spec: DatasetSpec, raw: Path, tmp_path: Path, cluster: str
) -> None:
    heard: list[int] = []
    for name, scheduler in {
        "threads": {"workers": 2},
        "processes": {"workers": 4, "processes": 2},
        "cluster": {"cluster": cluster},
    }.items():
        job = prepare(spec, [raw], tmp_path / name, CONFIG, overwrite=False)
        heard.clear()
        manifest = run(job, on_recordings=heard.append, **scheduler)  # type: ignore[arg-type]
        assert manifest.rejected > 0
        assert sum(heard) == len(job.recordings)
        assert contents(tmp_path / name) == contents(tmp_path / "threads")
    assert multiprocessing.active_children() == []


def test_relative_paths_reach_workers_that_run_elsewhere(
    spec: DatasetSpec, raw: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(raw.parent)
    job = prepare(spec, [Path(raw.name)], Path(os.path.relpath(tmp_path / "out")), CONFIG, overwrite=False)
    for task in job.tasks():
        assert task.out.is_absolute()
        assert task.out.resolve() == tmp_path / "out"
        assert all(Path(recording.files[0]).is_absolute() for recording in task.recordings)


def test_what_a_worker_raises_keeps_its_type(job: Job, cluster: str) -> None:
    """Only so does a full disk end with its own message and exit code."""
    (job.out / "skeletons.zarr").write_text("in the way")
    with pytest.raises(NotADirectoryError) as caught:
        run(job, cluster=cluster)
    assert "skeletons.zarr" in caught.value.filename


def test_ctrl_c_keeps_what_is_done(job: Job, cluster: str) -> None:
    def interrupt(_: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(job, cluster=cluster, on_recordings=interrupt)
    assert any((job.out / "records").iterdir())
    assert not (job.out / "manifest.json").exists()
    assert run(job, cluster=cluster).samples > 0


def test_shards_that_are_made_again_are_unfinished_until_they_are(job: Job, cluster: str) -> None:
    """The manifest would vouch for a folder in which some shards are the old ones and some are missing."""

    def interrupt(_: int) -> None:
        raise KeyboardInterrupt

    for address in (None, cluster):
        run(job)
        shutil.rmtree(job.out / "records")
        with pytest.raises(KeyboardInterrupt):
            run(job, on_recordings=interrupt, cluster=address)
        assert not (job.out / "manifest.json").exists()


@pytest.fixture
def ctrl_c_heard() -> Iterator[None]:
    """A process that a shell starts in the background ignores Ctrl-C; the tests may be one."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("ctrl_c_heard")
def test_a_terminals_ctrl_c_reaches_this_process_alone() -> None:
    """Every worker would end with a page of its own, and what is being started would be left behind."""
    mask = "import signal; print(signal.SIGINT in signal.pthread_sigmask(signal.SIG_BLOCK, ()))"
    answers = []

    def start_a_process_and_type_ctrl_c() -> None:
        with scheduling._interrupts_kept_back():
            signal.raise_signal(signal.SIGINT)
            answers.append(subprocess.check_output([sys.executable, "-c", mask], text=True))

    with pytest.raises(KeyboardInterrupt):
        start_a_process_and_type_ctrl_c()
    assert answers == ["True\n"]


def test_a_worker_that_is_killed_is_told(job: Job) -> None:
    """A machine out of memory ends with a sentence, and nothing waits for ever."""
    victim = Path(job.recordings[-1].files[0])
    whole = victim.read_bytes()
    victim.unlink()
    os.mkfifo(victim)  # whoever reads it waits

    def kill_the_workers() -> None:
        while len(list((job.out / "records").glob("*.json"))) < job.plan.num_shards - 1:
            time.sleep(0.01)
        for worker in multiprocessing.active_children():
            worker.kill()

    killer = threading.Thread(target=kill_the_workers)
    killer.start()
    try:
        with (
            dask.config.set({"distributed.scheduler.allowed-failures": 0}),
            pytest.raises(RuntimeError, match=r"were killed over the same shard.*run the same command again"),
        ):
            run(job, workers=2, processes=2)
    finally:
        killer.join()
        victim.unlink()
        victim.write_bytes(whole)
    assert multiprocessing.active_children() == []
    assert run(job).samples > 0


def test_a_cluster_that_is_not_there_is_told(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    """Dask alone would keep silent for half a minute."""
    monkeypatch.setattr(scheduling, "CONNECT_SECONDS", 0.3)
    for address in ("tcp://127.0.0.1:9", "nonsense://here"):
        with pytest.raises(ValueError, match=r"no dask scheduler answers there .*dask worker"):
            run(job, cluster=address)
    with (
        LocalCluster(n_workers=0, processes=False, protocol="tcp", dashboard_address="127.0.0.1:0") as idle,
        pytest.raises(ValueError, match="has no workers; start some"),
    ):
        run(job, cluster=idle.scheduler_address)


def test_a_protocol_that_needs_more_than_an_address_is_told(raw: Path, tmp_path: Path) -> None:
    """In a process of its own: the half of a client that dask leaves would end in the middle of another's
    start."""
    command = [
        "preprocess",
        "ntu60",
        str(raw),
        "--out",
        str(tmp_path / "out"),
        "--cluster",
        "tls://127.0.0.1:9",
    ]
    done = subprocess.run(
        [sys.executable, str(Path(__file__).parents[2] / "cli.py"), *command],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "dask cannot speak to it from here; expected tcp://HOST:8786" in done.stderr
    assert "Traceback" not in done.stderr


def test_workers_that_would_make_other_bytes_are_refused(
    job: Job, cluster: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A machine with another version of the project, or without the data, shows before the first shard."""
    here = scheduling._worker_facts([])
    answers = iter([here, here | {"numba": "0.0"}])
    monkeypatch.setattr(scheduling, "_worker_facts", lambda _: next(answers, here))
    with pytest.raises(ValueError, match=r"worker tcp://.*: numba: 0\.0 there, .* here; install the same"):
        run(job, cluster=cluster)
    assert not (job.out / "records").exists()


def test_a_worker_tells_all_that_the_bytes_depend_on(tmp_path: Path) -> None:
    """Shards of two versions, or of folders that only one machine has, would be mixed into one data set."""
    there, elsewhere = str(tmp_path), str(tmp_path / "elsewhere")
    facts = scheduling._worker_facts([there, elsewhere])
    assert set(facts) == {"Python", "numpy", "numba", "this project's code", there, elsewhere}
    assert (facts[there], facts[elsewhere]) == ("found", "missing")


@pytest.mark.parametrize(
    ("workers", "processes", "fitting"), [(3, 2, "2 --processes 2"), (7, 3, "6"), (1, 2, "2")]
)
def test_no_more_shards_are_made_at_once_than_asked_for(
    job: Job, workers: int, processes: int, fitting: str
) -> None:
    """Three workers may be all that the memory holds; two processes of two threads would be four."""
    message = f"--workers {workers} cannot be spread evenly over --processes {processes}; --workers {fitting}"
    with pytest.raises(ValueError, match=message):
        run(job, workers=workers, processes=processes)
    assert not (job.out / "records").exists()


def test_cores_are_spread_evenly_where_no_workers_are_asked_for(
    job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else `--processes 2` alone would be refused on a machine of three cores."""
    monkeypatch.setattr(scheduling, "ALL_CORES", 3)
    spread: list[tuple[int, int]] = []

    def hear(processes: int, threads: int) -> None:
        spread.append((processes, threads))
        raise InterruptedError

    monkeypatch.setattr(scheduling, "_own_cluster", hear)
    for processes in (2, 3):
        with pytest.raises(InterruptedError):
            run(job, processes=processes)
    assert spread == [(2, 1), (3, 1)]


def test_no_process_or_thread_is_started_that_has_no_shard(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each takes seconds to start, and so many as somebody may type for "all" take all of the memory."""
    shards = len(job.tasks())
    started: list[tuple[int, int]] = []

    def hear(*counts: int) -> None:
        started.append((counts[0], counts[1]))
        raise InterruptedError

    monkeypatch.setattr(scheduling, "_own_cluster", hear)
    for workers, processes in ((10**26, 10**26), (10**6, 2)):
        with pytest.raises(InterruptedError):
            run(job, workers=workers, processes=processes)
    assert started == [(shards, 1), (2, shards)]
    assert run(job, workers=10**26).samples > 0


def test_processes_are_for_large_jobs() -> None:
    """A small job would wait longer for the processes than for the work; a large one leave cores idle."""
    assert suitable_processes(1_000, 32) == 1
    assert suitable_processes(113_945, 2) == 1
    assert suitable_processes(113_945, 32) == 32


def test_shards_that_were_to_be_replaced_stay_where_nobody_can_make_others(
    spec: DatasetSpec, raw: Path, job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Hours of work would be gone for a mistyped address."""
    run(job)
    before = contents(job.out)
    monkeypatch.setattr(scheduling, "CONNECT_SECONDS", 0.3)
    other = prepare(spec, [raw], job.out, replace(CONFIG, min_frames=3), overwrite=True)
    with pytest.raises(ValueError, match="no dask scheduler answers there"):
        run(other, cluster="tcp://127.0.0.1:9")
    assert contents(job.out) == before
    assert run(other).settings["min_frames"] == 3
