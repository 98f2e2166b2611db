"""What does a data set of the size of NTU RGB+D 120 cost, typed as a command?

`python -m benchmarks.whole`: 113,945 files, which are links to those at hand, and ten minutes. All are in the
page cache; the start of the program and of its worker processes is in every figure. TMPDIR needs 7 GB.
"""

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from benchmarks.command import benchmark
from benchmarks.data import (
    SPEC,
    WHOLE_NTU_120,
    Recordings,
    find_recordings,
    names_of_ntus_form,
    scratch_folder,
)
from benchmarks.pairs import WALL, Pair, Work, compare
from benchmarks.report import Report

CLI = Path(__file__).parents[1] / "cli.py"
PROCESSES = "two worker processes, beside two threads"
FEW = 24


@benchmark("What does a data set of the size of NTU RGB+D 120 cost, typed as a command?", rounds=3)
def main(raw: Path | None, rounds: int, quick: bool) -> None:
    with scratch_folder() as scratch:
        recordings = find_recordings(raw, scratch, quick=quick)
        count = FEW if quick else WHOLE_NTU_120
        folder = many(recordings, scratch, count)
        report = Report("whole", f"{count:,} links to {recordings.origin}", {})
        ours, reference = (Command(folder, scratch / "shards", processes) for processes in (2, 1))
        ours.work(count).seconds(WALL)  # The first run compiles the kernels and reads every file once.
        pair = Pair(PROCESSES, "files", ours.work(count), reference.work(count))
        (comparison,) = compare([pair], rounds, WALL, warm_up=False)
        report.ratio(comparison)
        report.figure("two worker processes", count / comparison.ours, "s")
        report.figure("two threads", count / comparison.reference, "s")
        report.show()


def many(recordings: Recordings, scratch: Path, count: int) -> Path:
    """A folder of so many files under names of NTU's form: copies of the recordings, and hard links to these.

    Recordings on the list of missing skeletons are left out, since the job would not read them either.
    """
    folder = scratch / "whole"
    folder.mkdir()
    copies = []
    for index, file in enumerate(sorted(file for file in recordings.files if file.stem not in SPEC.missing)):
        copies.append(scratch / f"{index}.copy")
        shutil.copyfile(file, copies[-1])
    for index, name in zip(range(count), names_of_ntus_form(), strict=False):
        os.link(copies[index % len(copies)], folder / name)
    return folder


@dataclass(frozen=True)
class Command:
    """`cli.py preprocess` with two workers, from `raw` to `out`."""

    raw: Path
    out: Path
    processes: int

    def work(self, files: int) -> Work:
        """A run in a new folder, to be timed."""
        return Work(self.run, files, lambda: shutil.rmtree(self.out, ignore_errors=True))

    def run(self) -> None:
        """Raises subprocess.CalledProcessError with what the command said where it fails."""
        command = [sys.executable, str(CLI), "preprocess", "ntu120", str(self.raw), "--out", str(self.out)]
        workers = ["--workers", "2", "--processes", str(self.processes)]
        subprocess.run([*command, *workers], check=True, stdout=subprocess.PIPE)


if __name__ == "__main__":
    main()
