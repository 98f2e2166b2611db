"""How fast are raw NTU files read, beside a line-by-line reader? `python -m benchmarks.parse`"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np

from benchmarks.command import benchmark
from benchmarks.data import find_recordings, scratch_folder
from benchmarks.pairs import CPU, WALL, Pair, Work, compare
from benchmarks.references.line_reader import read_skeleton
from benchmarks.report import Report
from benchmarks.threads import machine_itself, two_threads
from pipeline.raw.ntu import parse_ntu
from pipeline.raw.sequence import Sequence as Recording

BARS = {"line-by-line reader": 20, "two threads, parse": 1.6}
# The reference needs two seconds for so many.
TIMED = 120


@benchmark("How fast are raw NTU files read, beside a line-by-line reader?", rounds=9)
def main(raw: Path | None, rounds: int, quick: bool) -> None:
    with scratch_folder() as scratch, ThreadPoolExecutor(2) as pool:
        recordings = find_recordings(raw, scratch, quick=quick)
        report = Report("parse", recordings.origin, BARS)
        for file in recordings.files:
            check(file)
        files = recordings.spread(4 if quick else TIMED)
        ours = Work(partial(parse_all, files), len(files))
        reference = Work(partial(read_all_by_line, files), len(files))
        sparing = Work(partial(read_all_by_line, files, sparing=True), len(files))
        pairs = [
            Pair("line-by-line reader", "files", ours, reference),
            Pair("... that makes numbers of what it keeps alone", "files", ours, sparing),
        ]
        against_lines, against_sparing = compare(pairs, rounds, CPU)
        report.ratio(against_lines, against_sparing)
        every = recordings.files
        halves = (partial(parse_all, every[::2]), partial(parse_all, every[1::2]))
        threads = two_threads("two threads, parse", "files", pool, halves, len(every))
        report.ratio(*compare([threads, *machine_itself(pool)], 2 * rounds, WALL))
        megabytes = sum(file.stat().st_size for file in files) / len(files) / 1e6
        report.figure("text parsed", against_lines.ours * megabytes, "MB/s of CPU")
        report.figure("text parsed line by line", against_lines.reference * megabytes, "MB/s of CPU")
        report.show()


def parse_all(files: Sequence[Path]) -> None:
    """Read and parse every file with ours."""
    for file in files:
        parse(file)


def read_all_by_line(files: Sequence[Path], *, sparing: bool = False) -> None:
    """Read every file with the reference."""
    for file in files:
        read_skeleton(file, sparing=sparing)


def parse(file: Path) -> Recording:
    """One file from disk, with ours."""
    return parse_ntu(file.read_bytes(), file.name)


def check(file: Path) -> None:
    """Raises ValueError unless ours and the reference find the same ids, float32 positions and states."""
    ours = parse(file)
    for sparing in (False, True):
        ids_B, xyz_BTVC, states_BTV = read_skeleton(file, sparing=sparing)
        for name, found, expected in (
            ("ids", ours.ids_B, ids_B),
            ("positions", ours.xyz_BTVC, xyz_BTVC),
            ("states", ours.states_BTV, states_BTV),
        ):
            if not np.array_equal(found, expected):
                raise ValueError(f"{file}: the line-by-line reader finds other {name}: nothing to compare")


if __name__ == "__main__":
    main()
