"""Oddities of synthetic files: each is what its name says, and a reader takes or refuses it as documented."""

import itertools
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from data_specs.read import load_spec
from pipeline.raw.names import plan
from pipeline.raw.ntu import parse_ntu
from pipeline.raw.oddities import NTU_ODDITIES, UCLA_ODDITIES
from pipeline.raw.sequence import RecordingError, Sequence
from pipeline.raw.synthetic import synthesize
from pipeline.raw.ucla import parse_ucla_json, parse_ucla_text
from tests.pipeline.oddities import UNREADABLE

NTU60, UCLA = load_spec("ntu60"), load_spec("ucla")


def read_ntu(path: Path) -> Sequence:
    return parse_ntu(path.read_bytes(), path.name)


@pytest.fixture(scope="module")
def odd_ntu(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One file of every oddity."""
    folder = tmp_path_factory.mktemp("odd_ntu")
    synthesize(NTU60, folder, len(NTU_ODDITIES), seed=5, oddities=1.0)
    plans = plan(NTU60, len(NTU_ODDITIES), seed=5, oddities=1.0)
    return {str(planned.oddity): folder / f"{planned.name}.skeleton" for planned in plans}


def test_oddities_come_in_the_asked_share_and_every_kind() -> None:
    """Or a trial of the reader's patience would miss a kind."""
    assert {*NTU_ODDITIES, *UCLA_ODDITIES} >= UNREADABLE
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
