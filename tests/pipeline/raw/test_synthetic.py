"""Synthetic files: a reader that takes them must take the real ones, and the other way round.

Axes: B body track, T frame, V joint, C coordinate.
"""

import dataclasses
import errno
import hashlib
import json
import math
from pathlib import Path

import numpy as np
import pytest

from data_specs.read import load_spec
from pipeline.raw.ntu import parse_ntu
from pipeline.raw.sequence import Sequence
from pipeline.raw.synthetic import synthesize
from pipeline.raw.ucla import parse_ucla_json, parse_ucla_text

NTU60, UCLA = load_spec("ntu60"), load_spec("ucla")


def digests(folder: Path) -> dict[str, str]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def read_ntu(path: Path) -> Sequence:
    return parse_ntu(path.read_bytes(), path.name)


@pytest.fixture(scope="module")
def healthy_ntu(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One recording of every NTU-60 class."""
    folder = tmp_path_factory.mktemp("healthy_ntu")
    synthesize(NTU60, folder, 60)
    return folder


# ---- determinism


def test_a_recording_depends_on_its_name_and_seed_only(tmp_path: Path) -> None:
    """Or a benchmark could not be repeated, and a larger set would not contain the smaller one."""
    for folder, samples, seed in (("few", 6, 1), ("again", 6, 1), ("many", 14, 1), ("other", 6, 2)):
        synthesize(UCLA, tmp_path / folder, samples, seed=seed)
    few, again, many, other = (digests(tmp_path / name) for name in ("few", "again", "many", "other"))
    assert len(few) == 6
    assert few == again
    assert few.items() < many.items()
    assert few.keys() == other.keys()
    assert not few.items() & other.items()


def test_ntu_bytes_repeat_with_oddities(tmp_path: Path) -> None:
    """Or a failure that an odd file caused could not be reproduced."""
    for folder in ("once", "twice"):
        synthesize(NTU60, tmp_path / folder, 12, seed=4, oddities=0.7)
    assert digests(tmp_path / "once") == digests(tmp_path / "twice")


# ---- the NTU format, read with nothing but Python


def test_ntu_files_have_the_true_layout(healthy_ntu: Path) -> None:
    """Or other people's readers would fail on files that ours takes."""
    paths = sorted(healthy_ntu.iterdir())[::6]
    for path in paths:
        assert NTU60.parse_name(path.stem) is not None
        lines = iter(path.read_text().splitlines())
        frames = int(next(lines))
        assert 40 <= frames <= 180
        for _ in range(frames):
            for _ in range(int(next(lines))):
                body = next(lines).split(" ")
                assert (len(body), len(body[0]), body[9]) == (10, 17, "2")
                assert next(lines) == "25"
                for _ in range(25):
                    values = next(lines).split(" ")
                    assert len(values) == 12
                    assert values[11] in ("1", "2")
        assert next(lines, None) is None


def test_ntu_columns_are_plausible(healthy_ntu: Path) -> None:
    """Or a reader that takes the wrong columns would go unnoticed."""
    for path in sorted(healthy_ntu.iterdir())[::10]:
        rows = [line.split() for line in path.read_text().splitlines() if line.count(" ") == 11]
        values = np.array(rows, np.float64)
        x, y, z = values[:, :3].T
        assert z.min() > 0.8
        assert z.max() < 6.5
        np.testing.assert_allclose(np.corrcoef(x / z, values[:, 3])[0, 1], 1, atol=1e-6)
        np.testing.assert_allclose(np.corrcoef(y / z, values[:, 6])[0, 1], -1, atol=1e-6)
        norms = np.linalg.norm(values[:, 7:11], axis=1)
        assert (np.isclose(norms, 1, atol=1e-5) | (norms == 0)).all()
        mantissas = [token.split("E")[0].lstrip("-0.") for row in rows for token in row]
        assert max(len(mantissa.replace(".", "")) for mantissa in mantissas) == 7


def test_ntu_numbers_are_like_the_real_ones(healthy_ntu: Path, real_ntu: Path) -> None:
    """Or speed and size measured on synthetic files would say nothing about the real ones."""

    def statistics(folder: Path) -> tuple[float, float]:
        texts = [path.read_text() for path in sorted(folder.glob("*.skeleton"))[:60]]
        joint_lines = [line for text in texts for line in text.splitlines() if line.count(" ") == 11]
        return float(np.mean([len(line) for line in joint_lines])), float(
            np.mean([int(text.split()[0]) for text in texts])
        )

    (length, frames), (real_length, real_frames) = statistics(healthy_ntu), statistics(real_ntu)
    assert abs(length / real_length - 1) < 0.1
    assert abs(frames / real_frames - 1) < 0.35


def test_our_reader_reads_what_was_written(healthy_ntu: Path) -> None:
    """Or synthetic trials would break at the first step."""
    for path in sorted(healthy_ntu.iterdir())[::4]:
        sequence = read_ntu(path)
        first_joint = path.read_text().splitlines()[4].split()
        np.testing.assert_array_equal(sequence.xyz_BTVC[0, 0, 0], np.array(first_joint[:3], np.float32))
        assert sequence.present_BT.all()
        assert set(np.unique(sequence.states_BTV)) <= {1, 2}


# ---- NW-UCLA's layouts


def test_ucla_json_has_the_true_layout(tmp_path: Path) -> None:
    """Or other people's readers would fail on files that ours takes."""
    synthesize(UCLA, tmp_path, 20)
    assert len(list(tmp_path.iterdir())) == 20
    for path in tmp_path.iterdir():
        recording = json.loads(path.read_text())
        assert list(recording) == ["file_name", "skeletons", "label"]
        assert recording["file_name"] == path.stem
        assert recording["label"] == (UCLA.parse_name(path.stem) or {})["label"] + 1
        skeletons = np.array(recording["skeletons"])
        assert skeletons.shape[1:] == (20, 3)
        assert 10 <= len(skeletons) <= 120
        sequence = parse_ucla_json(path.read_bytes(), path.name)
        np.testing.assert_array_equal(sequence.xyz_BTVC[0], skeletons.astype(np.float32))


def test_ucla_text_tells_the_same_as_json(tmp_path: Path) -> None:
    """Or users of the original release would be served by an untested reader."""
    calls: list[None] = []
    synthesize(UCLA, tmp_path / "json", 5)
    synthesize(UCLA, tmp_path / "text", 5, layout="text", on_recording=lambda: calls.append(None))
    assert len(calls) == 5
    for path in (tmp_path / "json").iterdir():
        take, _, view = path.stem.rpartition("_v")
        folder = tmp_path / "text" / f"view_{int(view)}" / take
        frames = sorted(folder.iterdir(), key=lambda file: int(file.name.split("_")[1]))
        stamps = [int(file.name.split("_")[3]) for file in frames]
        assert stamps == sorted(set(stamps))
        rows = [frame.read_text().splitlines() for frame in frames]
        assert all(len(lines) == 21 and lines[0].isdigit() for lines in rows)
        values = np.array([[line.split(",") for line in lines[1:]] for lines in rows], np.float64)
        np.testing.assert_array_equal(values[..., :3], json.loads(path.read_text())["skeletons"])
        parsed = parse_ucla_text([(file.name, file.read_bytes()) for file in frames], str(folder))
        np.testing.assert_array_equal(parsed.xyz_BTVC[0], values[..., :3].astype(np.float32))


# ---- a user's mistakes


def test_mistakes_are_named(tmp_path: Path) -> None:
    """Or a slip would end in a traceback, or in a data set that is not what was asked for."""
    with pytest.raises(ValueError, match="expected one of json, text"):
        synthesize(UCLA, tmp_path, 1, layout="csv")
    with pytest.raises(ValueError, match="ntu60 has no such layout"):
        synthesize(NTU60, tmp_path, 1, layout="text")
    for share in (-0.1, 1.1, math.nan):
        with pytest.raises(ValueError, match="from 0 to 1"):
            synthesize(UCLA, tmp_path, 1, oddities=share)
    with pytest.raises(ValueError, match="20 joints; the ntu reader's bodies have 25"):
        synthesize(dataclasses.replace(UCLA, reader="ntu"), tmp_path, 1)
    with pytest.raises(ValueError, match="25 joints; the ucla reader's bodies have 20"):
        synthesize(dataclasses.replace(NTU60, reader="ucla"), tmp_path, 1)
    assert not list(tmp_path.iterdir())


def test_recordings_are_not_mixed_with_others(tmp_path: Path) -> None:
    """A smaller set, written over a larger one, would hold the larger one's rest."""
    synthesize(UCLA, tmp_path, 3)
    before = digests(tmp_path)
    for layout in ("json", "text"):
        with pytest.raises(ValueError, match=r"holds files already; expected a new or an empty folder"):
            synthesize(UCLA, tmp_path, 2, seed=1, layout=layout)
    assert digests(tmp_path) == before


def test_what_ends_the_writing_early_leaves_no_recording(tmp_path: Path) -> None:
    """Half a file would bear a recording's name, and the folder be refused when there is room again."""
    written = 0

    def full() -> None:
        nonlocal written
        written += 1
        if written == 2:
            raise OSError(errno.ENOSPC, "No space left on device")

    for layout in ("json", "text"):
        written, out = 0, tmp_path / layout
        with pytest.raises(OSError, match="No space left"):
            synthesize(UCLA, out, 3, layout=layout, on_recording=full)
        assert digests(out) == {}
        synthesize(UCLA, out, 3, layout=layout)
    assert len(digests(tmp_path / "json")) == 3
