"""Finding recordings in whatever a user's folder looks like."""

import json
import os
import re
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from data_specs.read import load_spec
from data_specs.spec import DatasetSpec
from pipeline.raw.sequence import RecordingError
from pipeline.raw.sources import InaccessibleError, notes, read_sequence, scan

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
    assert found.foreign == ["nowhere.skeleton"]


def test_a_link_that_leads_nowhere_is_a_recording_that_cannot_be_read(spec: DatasetSpec, raw: Path) -> None:
    """A data set that was fetched in part, by git-annex for one, would lose samples in silence."""
    (raw / f"{NAMES[0]}.skeleton").unlink()
    (raw / f"{NAMES[0]}.skeleton").symlink_to(raw / "not there")
    found = scan([raw], spec)
    assert sorted(found.recordings) == NAMES
    with pytest.raises(InaccessibleError, match="No such file"):
        found.recordings[NAMES[0]].read()


def test_a_json_in_capitals_is_read(tmp_path: Path) -> None:
    """Windows does that to names; for NTU's it is the same reader, but NW-UCLA has two."""
    ucla = load_spec("ucla")
    point = [0.0, 0.5, 1.0]
    document = json.dumps({"skeletons": [[point] * ucla.skeleton.num_joints] * 2})
    (tmp_path / "a01_s01_e00_v01.JSON").write_text(document)
    found = scan([tmp_path], ucla).recordings["a01_s01_e00_v01"]
    assert read_sequence(found, ucla).num_frames == 2


def test_a_linked_folder_is_found_once_in_any_order_of_the_file_system(
    spec: DatasetSpec, raw: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is counted as a duplicate stands in the manifest, whose digest would differ between machines."""
    (raw / "one").mkdir()
    for name in NAMES:
        (raw / f"{name}.skeleton").rename(raw / "one" / f"{name}.skeleton")
    (raw / "two").mkdir()
    (raw / "two" / "link").symlink_to(raw / "one")
    walk = os.walk

    def backwards(*given: Any, **options: Any) -> Iterator[tuple[str, list[str], list[str]]]:
        for folder, subfolders, names in walk(*given, **options):
            subfolders.reverse()
            yield folder, subfolders, names

    found = scan([raw], spec)
    monkeypatch.setattr(os, "walk", backwards)
    assert scan([raw], spec) == found
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


def test_an_archive_packed_with_backslashes_is_read(spec: DatasetSpec, raw: Path, tmp_path: Path) -> None:
    """As old versions of .NET pack: its recordings would count as those of another data set."""
    archive = tmp_path / "old.zip"
    with zipfile.ZipFile(archive, "w") as file:
        info = zipfile.ZipInfo("inner/x")
        info.filename = rf"inner\{NAMES[0]}.skeleton"  # the constructor would turn it round
        file.writestr(info, (raw / f"{NAMES[0]}.skeleton").read_bytes())
    found = scan([archive], spec)
    assert found.recordings[NAMES[0]].path == f"old.zip/inner/{NAMES[0]}.skeleton"
    assert read_sequence(found.recordings[NAMES[0]], spec).num_frames == 2


def test_what_has_no_name_in_an_archive_is_left_out(spec: DatasetSpec, raw: Path, tmp_path: Path) -> None:
    """The whole archive could not be read for it, and a traceback would say why."""
    archive = tmp_path / "odd.zip"
    with zipfile.ZipFile(archive, "w") as file:
        file.write(raw / f"{NAMES[0]}.skeleton", f"{NAMES[0]}.skeleton")
        info = zipfile.ZipInfo("x")
        info.filename = ""  # as the format's \0 at the beginning of a name makes it
        with file.open(info, "w") as entry:
            entry.write(b"something")
    assert list(scan([archive], spec).recordings) == NAMES[:1]


def test_an_archive_in_capitals_is_found_in_its_folder(spec: DatasetSpec, raw: Path) -> None:
    """All its recordings would be lost in silence."""
    with zipfile.ZipFile(raw / "PART.ZIP", "w") as file:
        file.write(raw / f"{NAMES[1]}.skeleton", f"{NAMES[1]}.skeleton")
    (raw / f"{NAMES[1]}.skeleton").unlink()
    assert sorted(scan([raw], spec).recordings) == NAMES


def test_a_folder_that_cannot_be_searched_is_told(
    spec: DatasetSpec, raw: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk that fails, or a folder of somebody else's: what is in there would be lost in silence."""
    (raw / "part").mkdir()
    search = os.scandir

    def failing(folder: str) -> Any:
        if folder.endswith("part"):
            raise PermissionError(13, "Permission denied", folder)
        return search(folder)

    monkeypatch.setattr(os, "scandir", failing)
    with pytest.raises(ValueError, match="part: cannot be searched: Permission denied"):
        scan([raw], spec)


def test_a_folder_of_frames_may_have_the_whole_name(tmp_path: Path) -> None:
    """Where somebody has sorted the views into one folder."""
    for name in ("a01_s01_e00_v01", "a01_s01_e00_v02"):
        (tmp_path / "all" / name).mkdir(parents=True)
        (tmp_path / "all" / name / "frame_0_tc_1_skeletons.txt").write_text("1\n")
    assert sorted(scan([tmp_path], load_spec("ucla")).recordings) == ["a01_s01_e00_v01", "a01_s01_e00_v02"]


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_a_member_with_extra_fields_is_read(
    spec: DatasetSpec, raw: Path, tmp_path: Path, method: int
) -> None:
    """Info-ZIP and macOS put times and owners between a member's name and its content."""
    archive = tmp_path / "unix.zip"
    with zipfile.ZipFile(archive, "w", method) as file:
        info = zipfile.ZipInfo(f"{NAMES[0]}.skeleton")
        info.extra = b"UT\x05\x00\x01\x00\x00\x00\x00"
        info.compress_type = method
        file.writestr(info, (raw / f"{NAMES[0]}.skeleton").read_bytes())
    assert read_sequence(scan([archive], spec).recordings[NAMES[0]], spec).num_frames == 2


@pytest.mark.parametrize(("place", "value"), [(6, 99), (46, 0xFF)])
def test_a_list_of_members_that_cannot_be_read_names_the_archive(
    spec: DatasetSpec, tmp_path: Path, place: int, value: int
) -> None:
    """Another version of the format, or a name that is not the UTF-8 that it says it is."""
    archive = tmp_path / "odd.zip"
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("\u00fc.skeleton", b"")
    content = bytearray(archive.read_bytes())
    entry = content.index(b"PK\x01\x02")
    content[entry + place] = value
    archive.write_bytes(content)
    with pytest.raises(ValueError, match=r"odd\.zip: not a readable zip archive"):
        scan([archive], spec)


def test_a_list_of_members_with_any_byte_damaged_is_read_or_refused(
    spec: DatasetSpec, raw: Path, tmp_path: Path
) -> None:
    """zipfile has many ways to fail; one that is not expected ends the command in a traceback."""
    archive = tmp_path / "part.zip"
    with zipfile.ZipFile(archive, "w") as file:
        for name in NAMES[:2]:
            file.write(raw / f"{name}.skeleton", f"{name}.skeleton")
    whole, refusals = archive.read_bytes(), []
    for place in range(whole.index(b"PK\x01\x02"), len(whole)):
        for value in (0, 0x80, 0xFF):
            archive.write_bytes(whole[:place] + bytes([value]) + whole[place + 1 :])
            try:
                scan([archive], spec)
            except ValueError as error:
                refusals.append(str(error))
    assert len(refusals) > 50
    assert all(refusal.startswith(str(archive)) for refusal in refusals)


def test_a_damaged_archive_beside_recordings_is_told_with_a_way_out(spec: DatasetSpec, raw: Path) -> None:
    """Half of a data set may lie in it, so it is not passed by; whoever knows better can go on."""
    (raw / "mine.zip").write_bytes(b"PK\x03\x04 and then nothing")
    message = r"mine\.zip: not a readable zip archive .*; download it again or, .*move it away"
    with pytest.raises(ValueError, match=message):
        scan([raw], spec)
    (raw / "mine.zip").unlink()
    assert sorted(scan([raw], spec).recordings) == NAMES


def test_recordings_under_other_names_are_told_with_one_of_them(spec: DatasetSpec, raw: Path) -> None:
    """A count alone does not say what to rename."""
    (raw / "my walk.skeleton").write_text("1\n0\n")
    found = scan([raw], spec)
    assert sorted(found.recordings) == NAMES
    assert notes(found, spec) == [
        "recordings not named as those of ntu60, left out: 1 (first: my walk.skeleton)"
    ]


def test_archives_that_are_not_searched_are_told(spec: DatasetSpec, raw: Path) -> None:
    """A data set that came as a tar, with a loose recording beside it, would be one recording in silence."""
    (raw / "subset.tar.XZ").write_bytes(b"")
    with zipfile.ZipFile(raw / "outer.zip", "w") as file:
        file.writestr("part.zip", b"")
    found = scan([raw], spec)
    assert sorted(found.recordings) == NAMES
    assert notes(found, spec) == [
        "archives not searched, as they are no zip or lie in one: 2 (first: outer.zip/part.zip); "
        "unpack them first if they hold recordings"
    ]
    with pytest.raises(
        ValueError, match=r"files: 1, none a .*; archives not .*: 1 \(first: subset\.tar\.XZ\); unp"
    ):
        scan([raw / "subset.tar.XZ"], spec)
    assert notes(scan([raw / f"{NAMES[0]}.skeleton"], spec), spec) == []


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


def test_a_recording_whose_name_is_no_text_is_left_out_and_told(spec: DatasetSpec, raw: Path) -> None:
    """No table could list it; all the others would be lost to an error that names no file."""
    spec = replace(spec, name_pattern=re.compile(r"(?P<action>\d+)_.*"))
    for name in (b"1_a", b"1_\xff", b"1_b\rc"):
        Path(os.fsdecode(os.fsencode(raw) + b"/" + name + b".skeleton")).write_text("1\n0\n")
    found = scan([raw], spec)
    assert sorted(found.recordings) == ["1_a"]
    note, _ = notes(found, spec)
    assert note.startswith("recordings whose names are no plain text, left out: 2 (first: 1_")
    assert {r"1_\xff.skeleton", r"1_b\rc.skeleton"} <= set(found.foreign)  # in one line each
    (raw / "1_a.skeleton").unlink()
    with pytest.raises(
        ValueError, match=r"none of ntu60 .*; recordings whose names are no plain text, left out: 2"
    ):
        scan([raw], spec)


@pytest.mark.parametrize(
    ("reader", "there", "told"),
    [
        ("ntu", [], "empty; mine needs files NAME.skeleton whose NAME fits name_pattern 'x(?P<action>"),
        ("ucla", ["notes.txt"], "of mine, which needs files NAME.json whose NAME fits name_pattern 'x("),
        ("ucla", ["walk.json"], "none of mine (first: walk); expected files NAME.json whose NAME fits"),
    ],
)
def test_a_data_set_of_ones_own_is_told_its_own_names(
    spec: DatasetSpec, tmp_path: Path, reader: str, there: list[str], told: str
) -> None:
    """Names of NTU's or NW-UCLA's form would lead astray whoever wrote a pattern that nothing fits."""
    mine = replace(spec, name="mine", reader=reader, name_pattern=re.compile(r"x(?P<action>\d+)"))
    for name in there:
        (tmp_path / name).write_text("")
    with pytest.raises(ValueError, match=re.escape(told)):
        scan([tmp_path], mine)


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
