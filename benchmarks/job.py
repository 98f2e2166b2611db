"""One run of `preprocess` in a process of its own: what it takes, and how much memory at most.

Prints one JSON object; `benchmarks.preprocess` starts it, since a process's peak never goes down again.
"""

import json
import resource
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import partial
from itertools import islice
from pathlib import Path

import click

from benchmarks.data import SPEC
from benchmarks.pairs import CPU, WALL
from benchmarks.parts import seconds_of_loop, seconds_of_parts
from pipeline.preprocess import PreprocessConfig, prepare, run

STATUS = Path("/proc/self/status")

# Calls a function in all processes that take part, and returns what it returned.
Everywhere = Callable[[Callable[[], float]], list[float]]


@dataclass(frozen=True)
class Run:
    """One run. Seconds by the wall clock, but for cpu and parts, which are seconds of CPU.

    search: for the recordings, before the work.  tail: after the last recording: sync, records, tables.
    cpu, peak_mb: of all processes, the peaks added up.
    parts: of the work's parts, each on its own; loop: of the same parts, one recording after another. {} and
        0 if they were not asked for. Every file is read once before, and all are measured twice, in the order
        run, parts, loop, loop, parts, run: then cpu, parts and loop are the means of both.
    """

    files: int
    workers: int
    processes: int
    seconds: float
    search: float
    tail: float
    cpu: float
    peak_mb: float
    parts: dict[str, float]
    loop: float


def measure(raw: Path, out: Path, *, workers: int, processes: int, shard_samples: int, parts: bool) -> Run:
    """Preprocess the folder `raw` to the new folder `out`, with kernels loaded and processes running."""
    config = PreprocessConfig(shard_samples=shard_samples)
    with _processes(workers, processes) as (cluster, everywhere):
        run_job = partial(run, workers=workers, cluster=cluster)
        _warm_up(run_job, raw, out.with_name(f"{out.name}-warm-up"), workers)
        if not parts:
            found = _one_run(run_job, raw, out, config, everywhere)
            return replace(found, workers=workers, processes=processes)
        job = prepare(SPEC, [raw], out, config, overwrite=False)
        for recording in job.recordings:
            recording.read()
        runs = [_one_run(run_job, raw, out, config, everywhere)]
        apart = [seconds_of_parts(job, out, CPU)]
        loops = [seconds_of_loop(job, out, CPU) for _ in range(2)]
        apart.append(seconds_of_parts(job, out, CPU))
        shutil.rmtree(out)
        runs.append(_one_run(run_job, raw, out, config, everywhere))
    return replace(
        runs[0],
        workers=workers,
        processes=processes,
        cpu=(runs[0].cpu + runs[1].cpu) / 2,
        parts={part: (apart[0][part] + apart[1][part]) / 2 for part in apart[0]},
        loop=(loops[0] + loops[1]) / 2,
    )


def _one_run(
    run_job: Callable[..., object], raw: Path, out: Path, config: PreprocessConfig, everywhere: Everywhere
) -> Run:
    """From search to manifest; workers and processes are left to be filled in."""
    cpu_before, start = sum(everywhere(CPU.now)), WALL.now()
    job = prepare(SPEC, [raw], out, config, overwrite=False)
    searched = last = WALL.now()

    def hear(_: int) -> None:
        nonlocal last
        last = WALL.now()

    run_job(job, on_recordings=hear)
    end, cpu, peak_mb = WALL.now(), sum(everywhere(CPU.now)) - cpu_before, sum(everywhere(_peak_mb))
    return Run(len(job.recordings), 1, 1, end - start, searched - start, end - last, cpu, peak_mb, {}, 0.0)


@contextmanager
def _processes(workers: int, processes: int) -> Iterator[tuple[str | None, Everywhere]]:
    """The address of a dask cluster of so many processes on this machine; None for 1, which is this one."""
    if processes == 1:
        yield None, lambda function: [function()]
        return
    from distributed import Client, LocalCluster

    with (
        tempfile.TemporaryDirectory(prefix="cpstn-benchmark-") as folder,
        LocalCluster(
            n_workers=processes,
            threads_per_worker=workers // processes,
            dashboard_address="127.0.0.1:0",
            local_directory=folder,
            memory_limit=None,
        ) as cluster,
        Client(cluster) as client,
    ):
        yield cluster.scheduler_address, lambda function: [function(), *client.run(function).values()]


def _warm_up(run_job: Callable[..., object], raw: Path, out: Path, workers: int) -> None:
    """A few recordings for every worker, which loads the kernels."""
    files = list(islice(raw.rglob("*.skeleton"), 4 * workers))
    run_job(prepare(SPEC, files, out, PreprocessConfig(shard_samples=1), overwrite=True))
    shutil.rmtree(out)


def _peak_mb() -> float:
    """Of this program. Linux's ru_maxrss would start from the process that started it."""
    if STATUS.is_file():
        lines = STATUS.read_text().splitlines()
        return next(int(line.split()[1]) / 1e3 for line in lines if line.startswith("VmHWM"))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1e6 if sys.platform == "darwin" else 1e3)


@click.command()
@click.argument("raw", type=click.Path(path_type=Path))
@click.argument("out", type=click.Path(path_type=Path))
@click.option("--workers", type=int, required=True)
@click.option("--processes", type=int, default=1)
@click.option("--shard-samples", type=int, default=512)
@click.option("--parts", is_flag=True)
def main(raw: Path, out: Path, workers: int, processes: int, shard_samples: int, parts: bool) -> None:
    """Preprocess the NTU recordings in RAW to the new folder OUT and say what it took."""
    if out.exists():
        raise click.UsageError(f"{out}: is there already, and what lies there would not be made again")
    found = measure(raw, out, workers=workers, processes=processes, shard_samples=shard_samples, parts=parts)
    click.echo(json.dumps(asdict(found)))


if __name__ == "__main__":
    main()
