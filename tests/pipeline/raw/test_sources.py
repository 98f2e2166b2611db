"""Finding recordings in whatever a user's folder looks like."""

import os
import zipfile
from pathlib import Path

import pytest

from data_specs.spec import DatasetSpec, load_spec
from pipeline.raw.sequence import RecordingError
from pipeline.raw.sources import InaccessibleError, read_sequence, scan

NAMES = [f"S001C001P001R001A{action:03d}" for action in range(1, 4)]


@pytest.fixture
def spec() -> DatasetSpec:
    return load_spec("ntu60")


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    """Three recordings in which nobody is seen."""
    folder = tmp_path / "raw"
    folder.mkdir()
    for name in NAMES:
        (folder / f"{name}.skeleton").write_text("2\n0\n0\n")
    return folder


def test_deep_folders_links_and_capitals(spec: DatasetSpec, raw: Path) -> None:
    deep = raw / "part" / "one"
    deep.mkdir(parents=True)
    (raw / f"{NAMES[0]}.skeleton").rename(deep / f"{NAMES[0]}.SKELETON")
    (raw / "part" / "back").symlink_to(raw)
    (raw / "nowhere.skeleton").symlink_to(raw / "not there")
    (raw / "circle").symlink_to(raw / "circle")
    (raw / "notes.txt").write_text("mine")
    found = scan([raw], spec)
    assert sorted(found.recordings) == NAMES
    assert found.recordings[NAMES[0]].path == f"part/one/{NAMES[0]}.SKELETON"
    assert found.duplicates == []


def test_a_pipe_is_not_waited_for(spec: DatasetSpec, raw: Path) -> None:
    os.mkfifo(raw / "S001C001P001R001A009.skeleton")
    assert sorted(scan([raw], spec).recordings) == NAMES


def test_names_of_other_data_sets_are_foreign(spec: DatasetSpec, raw: Path) -> None:
    (raw / "S018C001P041R001A061.skeleton").write_text("1\n0\n")
    (raw / "my own.skeleton").write_text("1\n0\n")
    found = scan([raw], spec)
    assert sorted(found.recordings) == NAMES
    assert sorted(found.foreign) == ["S018C001P041R001A061.skeleton", "my own.skeleton"]


def test_single_files_and_archives_can_be_named(spec: DatasetSpec, raw: Path, tmp_path: Path) -> None:
    archive = tmp_path / "part.ZIP"
    with zipfile.ZipFile(archive, "w") as file:
        file.write(raw / f"{NAMES[1]}.skeleton", f"inner/{NAMES[1]}.skeleton")
        file.writestr(f"__MACOSX/inner/._{NAMES[1]}.skeleton", b"\x00")
    found = scan([raw / f"{NAMES[0]}.skeleton", archive], spec)
    assert sorted(found.recordings) == NAMES[:2]
    assert found.recordings[NAMES[1]].path == f"part.ZIP/inner/{NAMES[1]}.skeleton"
    assert read_sequence(found.recordings[NAMES[1]], spec).num_frames == 2


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_a_damaged_member_is_a_recording_error(
    spec: DatasetSpec, raw: Path, tmp_path: Path, method: int
) -> None:
    """Otherwise a download with a flipped bit becomes a sample, or ends the whole run."""
    archive = tmp_path / "part.zip"
    with zipfile.ZipFile(archive, "w", method) as file:
        file.write(raw / f"{NAMES[0]}.skeleton", f"{NAMES[0]}.skeleton")
    recording = scan([archive], spec).recordings[NAMES[0]]
    assert recording.read() == [b"2\n0\n0\n"]
    whole = archive.read_bytes()
    first = 30 + len(f"{NAMES[0]}.skeleton")
    for place in range(first, first + recording.members[0].packed_bytes):
        damaged = bytearray(whole)
        damaged[place] ^= 1
        archive.write_bytes(damaged)
        with pytest.raises(InaccessibleError, match=r"cannot be read: (Bad CRC-32|Error -\d)"):
            read_sequence(recording, spec)
    archive.write_bytes(whole[:first])
    with pytest.raises(InaccessibleError, match="cannot be read"):
        read_sequence(recording, spec)


def test_other_compression_gets_a_way_out(spec: DatasetSpec, raw: Path, tmp_path: Path) -> None:
    archive = tmp_path / "part.zip"
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_LZMA) as file:
        file.write(raw / f"{NAMES[0]}.skeleton", f"{NAMES[0]}.skeleton")
    with pytest.raises(InaccessibleError, match="not deflate; unpack the archive"):
        scan([archive], spec).recordings[NAMES[0]].read()


def test_a_name_that_is_not_unicode_can_be_reported(spec: DatasetSpec, raw: Path) -> None:
    folder = os.fsencode(raw) + b"/d\xe9p\xf4t"
    os.mkdir(folder)  # noqa: PTH102
    (raw / f"{NAMES[0]}.skeleton").rename(os.fsdecode(folder + f"/{NAMES[0]}.skeleton".encode()))
    recording = scan([raw], spec).recordings[NAMES[0]]
    assert recording.path.encode() == rf"d\xe9p\xf4t/{NAMES[0]}.skeleton".encode()
    assert read_sequence(recording, spec).num_frames == 2


def test_frames_numbered_like_clocks_are_refused(tmp_path: Path) -> None:
    folder = tmp_path / "view_1" / "a01_s01_e00"
    folder.mkdir(parents=True)
    for number in (0, 130_138_284):
        (folder / f"frame_{number}_tc_1_skeletons.txt").write_text("1\n")
    spec = load_spec("ucla")
    recording = scan([tmp_path], spec).recordings["a01_s01_e00_v01"]
    with pytest.raises(RecordingError, match="numbered 0 to 130138284: not one recording"):
        read_sequence(recording, spec)


def test_two_files_of_one_frame_are_refused(tmp_path: Path) -> None:
    """The last would win, and a recording be made of two."""
    folder = tmp_path / "view_1" / "a01_s01_e00"
    folder.mkdir(parents=True)
    for name in ("frame_0_tc_1", "frame_1_tc_2", "frame_1_tc_9"):
        (folder / f"{name}_skeletons.txt").write_text("1\n")
    spec = load_spec("ucla")
    recording = scan([tmp_path], spec).recordings["a01_s01_e00_v01"]
    with pytest.raises(RecordingError) as caught:
        read_sequence(recording, spec)
    assert caught.value.path == "view_1/a01_s01_e00"
    assert caught.value.reason == (
        "frame_1_tc_2_skeletons.txt and frame_1_tc_9_skeletons.txt are both frame 1: "
        "two recordings in one folder?"
    )
