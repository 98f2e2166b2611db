"""The line-by-line reader must be right: ours is measured against it."""

from pathlib import Path

import click
import numpy as np
import pytest

from benchmarks.parse import check, main, parse
from benchmarks.references.line_reader import read_skeleton
from data_specs.read import load_spec
from pipeline.raw.synthetic import synthesize

BODY = "72057594037931101 0 1 1 1 1 0 0.03 0.06 2"
OTHER = "72057594037931102 0 1 1 1 1 0 0.03 0.06 2"


def joints(first: float, state: int = 2) -> str:
    """25 joints, the x of each greater by one."""
    return "\n".join(f"{first + joint} 0.5 {joint / 8} 1 2 3 4 0 0 0 0 {state}" for joint in range(25))


def test_two_bodies_that_come_and_go(tmp_path: Path) -> None:
    """A body in the wrong frame or slot would make the comparison worthless."""
    frames = [
        f"1\n{BODY}\n25\n{joints(0)}",
        "0",
        f"2\n{OTHER}\n25\n{joints(100, 1)}\n{BODY}\n25\n{joints(200)}",
    ]
    file = tmp_path / "S001C001P001R001A001.skeleton"
    file.write_text("3\n" + "\n".join(frames) + "\n")
    ids_B, xyz_BTVC, states_BTV = read_skeleton(file)
    assert ids_B.tolist() == [72057594037931101, 72057594037931102]
    assert xyz_BTVC.shape == (2, 3, 25, 3)
    assert xyz_BTVC.dtype == np.float32
    assert xyz_BTVC[0, :, 7, 0].tolist() == [7, 0, 207]
    assert xyz_BTVC[1, 2, 24].tolist() == [124, 0.5, 3]
    assert states_BTV[:, :, 0].tolist() == [[2, 0, 2], [0, 0, 1]]
    check(file)


def test_unseen_joints_and_doubled_ids_are_read_as_ours_reads_them(tmp_path: Path) -> None:
    """The check before the measurement would refuse real files that are merely odd."""
    spec = load_spec("ntu60")
    synthesize(spec, tmp_path, 40, oddities=1)
    checked = 0
    for file in sorted(tmp_path.rglob("*.skeleton")):
        try:
            parse(file)
        except ValueError:
            continue
        if "#" not in file.read_text():
            check(file)
            checked += 1
    assert checked > 15


def test_a_difference_stops_the_benchmark(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A speed ratio of two different things would be published."""
    file = tmp_path / "S001C001P001R001A001.skeleton"
    file.write_text(f"1\n1\n{BODY}\n25\n{joints(0)}\n")
    check(file)

    for wrong in (False, True):

        def other(path: Path, *, sparing: bool, wrong: bool = wrong) -> tuple[object, ...]:
            ids_B, xyz_BTVC, states_BTV = read_skeleton(path, sparing=sparing)
            return ids_B, np.nextafter(xyz_BTVC, np.float32(9 * (sparing == wrong))), states_BTV

        monkeypatch.setattr("benchmarks.parse.read_skeleton", other)
        with pytest.raises(ValueError, match="finds other positions: nothing to compare"):
            check(file)


def test_a_folder_without_recordings_is_an_error_that_says_so(tmp_path: Path) -> None:
    """Someone who names the wrong folder would measure nothing."""
    with pytest.raises(click.UsageError, match=r"empty; ntu120 needs files such as S001.*\.skeleton"):
        main(["--raw", str(tmp_path)], standalone_mode=False)
