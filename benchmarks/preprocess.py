"""What does the whole job cost, beside a CTR-GCN-style chain and beside its own parts?

`python -m benchmarks.preprocess`, and with `--scale 1000,5000,20000` whether that grows with the data.

Axes: N sample, B body, C coordinate, T frame, V joint.
"""

import json
import os
import shutil
import subprocess
import sys
import zipfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import click
import numpy as np

from benchmarks.command import benchmark
from benchmarks.data import SPEC, WHOLE_NTU_120, Recordings, find_recordings, scratch_folder
from benchmarks.job import Run
from benchmarks.pairs import CPU, WALL, Comparison, Pair, Work, compare
from benchmarks.parts import seconds_of_loop, seconds_of_parts
from benchmarks.references.ctrgcn_chain import FRAMES, JOINTS, run_chain
from benchmarks.report import Report
from benchmarks.threads import machine_itself
from pipeline.normalize import NormalizeConfig, normalize
from pipeline.preprocess import Job, PreprocessConfig, prepare, run
from pipeline.raw.archive import list_members, read_member
from pipeline.raw.sources import read_sequence
from pipeline.raw.synthetic import synthesize

CHAIN, PARTS = "CTR-GCN-style chain", "its parts, one after another"
TWO_WORKERS, ZIP = "two workers", "zip, beside folder + inflating"
BARS = {CHAIN: 20.0, ZIP: 1.0}
MOST_OVERHEAD = 25  # percent
AGREEING, SAME_PLACE = 0.95, 1e-3  # share of main actors that ours and the chain must put there, in metres
CORES = (2, 32)
QUESTION = """What does the whole job cost, beside a CTR-GCN-style chain and beside its own parts?

The chain needs some 20 seconds for the thousand real files, in every round and once before."""


@benchmark(QUESTION, rounds=3)
@click.option(
    "--scale",
    metavar="SIZES",
    default="",
    callback=lambda _context, _option, value: parsed_sizes(value),
    help="Also synthesize so many recordings, such as 1000,5000,20000, and see whether cost and memory grow. "
    "About 80 files a second of CPU and 170 kB each: 20,000 take some five minutes and 3.5 GB under TMPDIR.",
)
def main(raw: Path | None, rounds: int, quick: bool, scale: list[int]) -> None:
    with scratch_folder() as scratch:
        recordings = find_recordings(raw, scratch, quick=quick)
        whole = WholeJob(recordings.folder, scratch / "shards", shard_samples=6 if quick else 512)
        report = Report("preprocess", recordings.origin, BARS)
        report.ratio(against_chain(whole, scratch, rounds))
        against_parts(whole, scratch, 2 * rounds, report)
        report.ratio(*two_workers(whole, 2 * rounds))
        report.ratio(from_zip(whole, recordings, scratch, 2 * rounds))
        larger = [
            WholeJob(folder, scratch / f"shards-{size}", whole.shard_samples)
            for size, folder in scaled_folders(scale, scratch).items()
        ]
        jobs = larger or [whole]
        measured = [scaled(job, report) for job in jobs]
        if scale and not quick:
            on_cluster(jobs[-1], measured[-1], report)
        extrapolate(measured[-1], jobs[-1].raw, report)
        report.show()


def parsed_sizes(text: str) -> list[int]:
    """The numbers of `--scale`. Raises click.BadParameter."""
    try:
        sizes = [int(size) for size in text.split(",") if size]
    except ValueError:
        sizes = [0]
    if any(size < 1 for size in sizes):
        raise click.BadParameter(f"{text!r}: expected numbers of recordings, such as 1000,5000")
    return sizes


@dataclass(frozen=True)
class WholeJob:
    """Runs of preprocess. raw: folder or zip of recordings.  out: where all of them write."""

    raw: Path
    out: Path
    shard_samples: int

    def prepare(self) -> Job:
        """What a run does before the first recording."""
        config = PreprocessConfig(shard_samples=self.shard_samples)
        return prepare(SPEC, [self.raw], self.out, config, overwrite=False)

    def work(self, workers: int) -> Work:
        """A run from search to manifest, to be timed; the folder is empty before."""
        files = len(self.prepare().recordings)
        return Work(lambda: run(self.prepare(), workers=workers), files, self.clear)

    def clear(self) -> None:
        """Remove what was written."""
        shutil.rmtree(self.out, ignore_errors=True)

    def in_own_process(self, *options: str) -> Run:
        """A run by `benchmarks.job`."""
        self.clear()
        module = [sys.executable, "-m", "benchmarks.job", str(self.raw), str(self.out)]
        found = subprocess.run(
            [*module, f"--shard-samples={self.shard_samples}", *options],
            cwd=Path(__file__).parents[1],
            stdout=subprocess.PIPE,
            check=True,
        )
        self.clear()
        return Run(**json.loads(found.stdout))


def against_chain(whole: WholeJob, scratch: Path, rounds: int) -> Comparison:
    """Files per CPU second of both, one worker; all has been in the page cache once."""
    files = [Path(recording.files[0]) for recording in whole.prepare().recordings]
    check(whole.prepare(), run_chain(files, scratch))
    chain = Work(partial(run_chain, files, scratch), len(files))
    ours = whole.work(workers=1)
    ours.seconds(CPU)
    (comparison,) = compare([Pair(CHAIN, "files", ours, chain)], rounds, CPU, warm_up=False)
    return comparison


def check(job: Job, dense: Path) -> None:
    """Raises ValueError unless the chain keeps the same recordings and puts the main actors where ours does.

    Compared without what the chain does not do: resampling and turning.
    """
    config = NormalizeConfig(frames=FRAMES, resample="pad", align=False)
    with np.load(dense) as found:
        chain = dict(zip(found["names"].tolist(), found["x"][:, :, : 3 * JOINTS], strict=True))
    if chain.keys() != {recording.key for recording in job.recordings}:
        raise ValueError(f"the chain keeps {len(chain)} recordings, ours {len(job.recordings)}")
    agreeing = 0
    for recording in job.recordings:
        bodies_BCTV = normalize(read_sequence(recording, SPEC), SPEC.skeleton, config, SPEC.fps)
        actor_TD = bodies_BCTV[0].transpose(1, 2, 0).reshape(FRAMES, -1)
        agreeing += bool(np.abs(actor_TD - chain[recording.key]).max() < SAME_PLACE)
    if agreeing < AGREEING * len(job.recordings):
        raise ValueError(f"ours and the chain agree on {agreeing} of {len(job.recordings)} main actors only")


def against_parts(whole: WholeJob, scratch: Path, rounds: int, report: Report) -> None:
    """What the job does beyond reading, parsing, normalising and writing, in CPU time of one worker."""
    work = whole.work(workers=1)
    work.seconds(CPU)
    job_R, loop_R, parts_R = [], [], []
    for turn in range(rounds):
        if turn % 2 == 0:
            job_R.append(work.seconds(CPU))
        parts_R.append(seconds_of_parts(whole.prepare(), scratch, CPU))
        loop_R.append(seconds_of_loop(whole.prepare(), scratch, CPU))
        if turn % 2:
            job_R.append(work.seconds(CPU))
    sums_R = np.array([sum(parts.values()) for parts in parts_R])
    comparison = Comparison(PARTS, "files", CPU.name, work.units / np.array(job_R), work.units / sums_R)
    report.ratio(comparison)
    for part in parts_R[0]:
        spent = float(np.median([parts[part] for parts in parts_R]))
        report.figure(f"{part} a file", 1e3 * spent / work.units, "ms of CPU")
    report.figure("the whole job, a file", 1e3 / comparison.ours, "ms of CPU")
    report.figure(
        "overhead of the job over its parts", _overhead(1 / comparison.ratio), "%", at_most=MOST_OVERHEAD
    )
    over_loop = float(np.median(np.array(job_R) / np.array(loop_R)))
    report.figure("overhead of the job over a plain loop of its parts", _overhead(over_loop), "%")


def two_workers(whole: WholeJob, rounds: int) -> list[Comparison]:
    """By the wall clock, beside what the machine can do."""
    with ThreadPoolExecutor(2) as pool:
        pair = Pair(TWO_WORKERS, "files", whole.work(workers=2), whole.work(workers=1))
        return compare([pair, *machine_itself(pool)], rounds, WALL)


def from_zip(whole: WholeJob, recordings: Recordings, scratch: Path, rounds: int) -> Comparison:
    """The job from a zip archive against the job from the folder and inflating the same members."""
    path = scratch / "recordings.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in recordings.files:
            archive.write(file, file.name)
    zipped = WholeJob(path, scratch / "shards-zip", whole.shard_samples).work(workers=1)
    folder = whole.work(workers=1)
    if zipped.units != folder.units:
        raise ValueError(f"{zipped.units} recordings in the zip, {folder.units} in the folder")

    members = [member for _, member in list_members(str(path))]

    def run_and_inflate() -> None:
        folder.run()
        for member in members:
            read_member(str(path), member)

    reference = Work(run_and_inflate, folder.units, folder.before)
    (comparison,) = compare([Pair(ZIP, "files", zipped, reference)], rounds, CPU)
    return comparison


def scaled_folders(sizes: list[int], scratch: Path) -> dict[int, Path]:
    """A folder of so many synthesized recordings for every size; they share the files."""
    if not sizes:
        return {}
    folder = scratch / "synthesized"
    synthesize(SPEC, folder, max(sizes))
    files = sorted(folder.rglob("*.skeleton"))
    folders = {}
    for size in sizes:
        folders[size] = scratch / f"synthesized-{size}"
        folders[size].mkdir()
        for index in np.linspace(0, len(files) - 1, size, dtype=np.int64).tolist():
            os.link(files[index], folders[size] / files[index].name)
    return folders


def scaled(whole: WholeJob, report: Report) -> Run:
    """Cost and memory of one size, with one worker and with two; returns the latter run."""
    one = whole.in_own_process("--workers", "1", "--parts")
    two = whole.in_own_process("--workers", "2")
    name = f"{one.files:,} files"
    report.figure(f"{name}, one worker", one.files / one.seconds, "files/s")
    report.figure(f"{name}, a file", 1e3 * one.cpu / one.files, "ms of CPU")
    overhead = _overhead(one.cpu / sum(one.parts.values()))
    report.figure(f"{name}, overhead over the parts", overhead, "% of CPU", at_most=MOST_OVERHEAD)
    report.figure(f"{name}, overhead over a plain loop", _overhead(one.cpu / one.loop), "% of CPU")
    report.figure(f"{name}, peak memory", one.peak_mb, "MB")
    report.figure(f"{name}, two workers", two.files / two.seconds, "files/s")
    report.figure(f"{name}, peak memory of two workers", two.peak_mb, "MB")
    return two


def on_cluster(whole: WholeJob, threads: Run, report: Report) -> None:
    """A dask cluster of as many worker processes as there were threads, beside what these predict for it."""
    cluster = whole.in_own_process("--workers", "2", "--processes", "2")
    name = f"{cluster.files:,} files, dask cluster of {cluster.processes} processes"
    report.figure(name, cluster.seconds, "s")
    report.figure(f"{name}, as extrapolated", extrapolated_seconds(threads, cluster.files, 2), "s")
    report.figure(f"{name}, peak memory of all", cluster.peak_mb, "MB")


def extrapolate(measured: Run, raw: Path, report: Report) -> None:
    """What NTU RGB+D 120 would take. raw: the folder that was measured."""
    sizes = [file.stat().st_size for file in raw.rglob("*.skeleton")]
    megabytes = sum(sizes) / len(sizes) / 1e6
    for cores in CORES:
        seconds = extrapolated_seconds(measured, WHOLE_NTU_120, cores)
        name = f"{WHOLE_NTU_120:,} files on {cores} cores, extrapolated"
        report.figure(name, seconds, "s")
        report.figure(f"{name}: read", WHOLE_NTU_120 * megabytes / seconds, "MB/s")
    report.note(
        f"Extrapolated from {measured.files:,} files by {measured.workers} workers in "
        f"{measured.seconds:.1f} s, {measured.search + measured.tail:.2f} s of them before the first and "
        "after the last recording. Assumed: those stay serial and grow with the files; the rest is shared by "
        "all cores, each as fast as these; the disk delivers the MB/s that are named; files are as long as "
        "those measured; start-up comes on top."
    )


def extrapolated_seconds(measured: Run, files: int, cores: int) -> float:
    """Search and finish grow with the files; what lies between is shared by the cores."""
    serial = measured.search + measured.tail
    shared = (measured.seconds - serial) * measured.workers / cores
    return (serial + shared) * files / measured.files


def _overhead(ratio: float) -> float:
    return 100 * (ratio - 1)


if __name__ == "__main__":
    main()
