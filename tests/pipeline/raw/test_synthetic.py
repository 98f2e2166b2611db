"""Synthetic files: a reader that takes them must take the real ones, and the other way round.

Axes: B body track, T frame, V joint, C coordinate.
"""

import dataclasses
import hashlib
import itertools
import json
import math
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
import pytest

from data_specs.spec import DatasetSpec, load_spec
from pipeline.raw.ntu import parse_ntu
from pipeline.raw.sequence import RecordingError, Sequence
from pipeline.raw.synthetic import (
    NTU_ODDITIES,
    ODDITIES,
    UCLA_ODDITIES,
    UNREADABLE,
    plan,
    synthesize,
)
from pipeline.raw.ucla import parse_ucla_json, parse_ucla_text

NTU60, NTU120, UCLA = (load_spec(name) for name in ("ntu60", "ntu120", "ucla"))


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


@pytest.fixture(scope="module")
def odd_ntu(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One file of every oddity."""
    folder = tmp_path_factory.mktemp("odd_ntu")
    synthesize(NTU60, folder, len(NTU_ODDITIES), seed=5, oddities=1.0)
    plans = plan(NTU60, len(NTU_ODDITIES), seed=5, oddities=1.0)
    return {str(planned.oddity): folder / f"{planned.name}.skeleton" for planned in plans}


# ---- names


@pytest.mark.parametrize("spec", [NTU60, NTU120, UCLA], ids=lambda spec: spec.name)
def test_few_samples_train_and_test_every_class_of_every_protocol(spec: DatasetSpec) -> None:
    """Or a small trial run would have empty splits, or classes that are tested but never trained."""
    names = [planned.name for planned in plan(spec, 3 * len(spec.classes) + 7)]
    seen = [spec.parse_name(name) for name in names]
    labels = Counter(metadata["label"] for metadata in seen if metadata)
    assert len(set(names)) == len(names) == labels.total()
    assert max(labels.values()) - min(labels.values()) <= 1
    for protocol in spec.protocols.values():
        sides = defaultdict(set)
        for metadata in seen:
            assert metadata is not None
            sides[metadata["label"]].add(protocol.split(metadata))
        assert all(side == {"train", "test"} for side in sides.values()), protocol.name


def test_splits_of_two_protocols_are_not_the_same() -> None:
    """Or X-Set would only repeat X-Sub's result."""
    pairs = set()
    for planned in plan(NTU120, 4 * 120):
        metadata = NTU120.parse_name(planned.name)
        assert metadata is not None
        pairs.add(tuple(NTU120.protocol(name).split(metadata) for name in ("xsub", "xset")))
    assert pairs == set(itertools.product(["train", "test"], repeat=2))


def test_names_stay_within_the_real_data_set() -> None:
    """Or tools that check the official ranges would refuse the files."""
    for planned in plan(NTU120, 3000):
        metadata = NTU120.parse_name(planned.name)
        assert metadata is not None
        first_part = metadata["action"] <= 60
        assert metadata["setup"] in (range(1, 18) if first_part else range(18, 33))
        assert metadata["subject"] in (range(1, 41) if first_part else range(41, 107))
        assert metadata["camera"] in range(1, 4)
        assert metadata["replication"] in range(1, 3)
        assert planned.name not in NTU120.missing


def test_all_names_can_be_used_and_no_more() -> None:
    """Or a large set would overwrite its own files, or claim more samples than it wrote."""
    two = dataclasses.replace(NTU120, classes=("drink water", "put on headphone"), labels={1: 0, 61: 1})
    listed = sum(two.parse_name(name) is not None for name in two.missing)
    fewest = min(2 * 40 * 17 * 3, 2 * 66 * 15 * 3) - listed
    names = [planned.name for planned in plan(two, 2 * fewest)]
    assert len(set(names)) == 2 * fewest
    assert len({planned.name for planned in plan(UCLA, 30_000)}) == 30_000
    with pytest.raises(ValueError, match="30001 samples are more than ucla has names"):
        plan(UCLA, 30_001)


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


# ---- oddities


def test_oddities_come_in_the_asked_share_and_every_kind() -> None:
    """Or a trial of the reader's patience would miss a kind."""
    assert set(ODDITIES) == {*NTU_ODDITIES, *UCLA_ODDITIES}
    assert set(ODDITIES) >= UNREADABLE
    kinds = Counter(planned.oddity for planned in plan(NTU60, 640, oddities=0.25))
    assert kinds == {None: 480} | dict.fromkeys(NTU_ODDITIES, 10)
    assert not any(planned.oddity for planned in plan(NTU60, 640))
    odd_labels = Counter(
        (NTU60.parse_name(planned.name) or {})["label"]
        for planned in plan(NTU60, 1200, oddities=0.1)
        if planned.oddity
    )
    assert len(odd_labels) > 40, "odd files should not gather in a few classes"


@pytest.mark.parametrize("kind", NTU_ODDITIES)
def test_our_reader_takes_or_refuses_odd_files_as_documented(kind: str, odd_ntu: dict[str, Path]) -> None:
    """Or users would see a crash, or damaged files in the shards."""
    if kind in UNREADABLE:
        with pytest.raises(RecordingError, match=odd_ntu[kind].name):
            read_ntu(odd_ntu[kind])
    else:
        assert np.isfinite(read_ntu(odd_ntu[kind]).xyz_BTVC).all()


def test_odd_text_is_odd_in_the_way_its_name_says(odd_ntu: dict[str, Path]) -> None:
    """Or a reader would pass for robust against something that it never met."""
    data = {kind: path.read_bytes() for kind, path in odd_ntu.items()}
    text = {kind: data[kind].decode() for kind in data}
    assert data["crlf"].count(b"\r\n") == data["crlf"].count(b"\n") > 0
    assert "9.999E-05" in text["exponents"]
    assert [line.split().count("NaN") for line in text["nan"].splitlines() if "NaN" in line].count(4) > 0
    assert all(
        line.startswith("0 0 0 NaN") and line.endswith(" 0")
        for line in text["nan"].splitlines()
        if "NaN" in line
    )
    assert set(text["nobody"].splitlines()[1:]) == {"0"}
    assert [len(line.split()) for line in text["13 values"].splitlines()].count(13) == 1
    assert [line[0] for line in text["comment"].splitlines()].count("#") == 1
    assert b"\0" in data["nul"]
    assert not data["truncated"].endswith(b"\n")
    assert int(text["overclaimed"].split()[0]) > text["overclaimed"].splitlines().count("25")
    assert text["one frame"].startswith("1\n")
    assert odd_ntu["missing list"].stem in NTU60.missing
    assert [path.stem in NTU60.missing for path in odd_ntu.values()].count(True) == 1


def test_odd_bodies_are_odd_in_the_way_their_name_says(odd_ntu: dict[str, Path]) -> None:
    """Or the choice of bodies would be tested on people who are all well-behaved."""
    gap, crowd, renamed, pair, chair = (
        read_ntu(odd_ntu[kind]) for kind in ("gap", "passer-by", "new id", "neighbouring ids", "chair")
    )
    assert (~gap.present_BT.any(axis=0)).sum() > 5
    assert not (gap.present_BT[0] & gap.present_BT[1]).any()
    counts = [count for count, _ in itertools.groupby(crowd.present_BT.sum(axis=0).tolist())]
    assert counts == [1, 2, 1]
    assert renamed.present_BT.sum(axis=0).tolist() == [2] + [1] * (renamed.num_frames - 1)
    assert renamed.present_BT[:2, 1:].sum() == 0
    assert abs(int(pair.ids_B[0]) - int(pair.ids_B[1])) == 1
    assert float(pair.ids_B[0]) == float(pair.ids_B[1])
    spread_BC = np.ptp(chair.xyz_BTVC.mean(axis=1), axis=1)
    assert spread_BC[1, 0] > 3 * spread_BC[1, 1]
    assert spread_BC[0, 0] < spread_BC[0, 1]


@pytest.mark.parametrize("layout", ["json", "text"])
def test_odd_ucla_recordings(layout: str, tmp_path: Path) -> None:
    """Or users would see a crash, or damaged files in the shards."""
    synthesize(UCLA, tmp_path, 4, oddities=1.0, layout=layout)
    for planned in plan(UCLA, 4, oddities=1.0):
        take, _, view = planned.name.rpartition("_v")
        folder = tmp_path / f"view_{int(view)}" / take
        files = sorted(folder.glob("*.txt"), key=lambda file: int(file.name.split("_")[1]))

        def read(name: str = planned.name, files: list[Path] = files) -> Sequence:
            if layout == "json":
                return parse_ucla_json((tmp_path / f"{name}.json").read_bytes(), name)
            return parse_ucla_text([(file.name, file.read_bytes()) for file in files], name)

        if planned.oddity in UNREADABLE:
            with pytest.raises(RecordingError, match=planned.name):
                read()
            continue
        sequence = read()
        assert np.isfinite(sequence.xyz_BTVC).all()
        unseen_TV = (sequence.xyz_BTVC[0] == 0).all(axis=-1)
        assert (sequence.num_frames == 1) == (planned.oddity == "one frame")
        assert unseen_TV.any() == (planned.oddity in ("zero joints", "nan"))


# ---- a user's mistakes


def test_mistakes_are_named(tmp_path: Path) -> None:
    """Or a slip would end in a traceback, or in a data set that is not what was asked for."""
    with pytest.raises(ValueError, match="at least 1"):
        synthesize(UCLA, tmp_path, 0)
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
