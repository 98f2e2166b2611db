"""The whole way from raw files to verified shards: what is written, what is refused, what survives a stop."""

import json
import os
import re
import shutil
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from data_specs.read import load_spec
from data_specs.spec import DatasetSpec
from pipeline.normalize import NormalizeConfig, normalize
from pipeline.preprocess import PreprocessConfig, UnreadableError, prepare, run
from pipeline.raw.names import plan
from pipeline.raw.ntu import parse_ntu
from pipeline.raw.synthetic import synthesize
from pipeline.store.damage import DamagedError
from pipeline.store.manifest import Manifest, row_order
from pipeline.store.shards import newest_shards, open_shards, verify_shards
from tests.pipeline.oddities import UNREADABLE
from tests.pipeline.tars import read_tar

FRAMES = 12
SMALL = PreprocessConfig(NormalizeConfig(frames=FRAMES), shard_samples=16)


@pytest.fixture(scope="module")
def spec() -> DatasetSpec:
    return load_spec("ntu60")


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory, spec: DatasetSpec) -> Path:
    folder = tmp_path_factory.mktemp("raw")
    synthesize(spec, folder, 40)
    return folder


@pytest.fixture(scope="module")
def odd(tmp_path_factory: pytest.TempPathFactory, spec: DatasetSpec) -> Path:
    """Twenty recordings, every one of them odd."""
    folder = tmp_path_factory.mktemp("odd")
    synthesize(spec, folder, 20, oddities=1.0)
    return folder


def make(
    spec: DatasetSpec,
    raw: Path | list[Path],
    out: Path,
    config: PreprocessConfig = SMALL,
    *,
    overwrite: bool = False,
    strict: bool = False,
    workers: int = 2,
) -> Manifest:
    paths = raw if isinstance(raw, list) else [raw]
    return run(prepare(spec, paths, out, config, overwrite=overwrite), workers=workers, strict=strict)


def contents(folder: Path) -> dict[str, bytes]:
    """Every file but the records, which remember the inputs' times of change."""
    paths = [path.relative_to(folder) for path in folder.rglob("*") if path.is_file()]
    return {str(path): (folder / path).read_bytes() for path in paths if path.parts[0] != "records"}


def test_every_row_holds_its_recording(spec: DatasetSpec, raw: Path, tmp_path: Path) -> None:
    manifest = make(spec, raw, tmp_path)
    shards = open_shards(tmp_path)
    assert manifest.samples == len(shards.table) == 40
    assert verify_shards(tmp_path) == {}
    for facts in shards.table.to_dict("records"):
        path = raw / f"{facts['key']}.skeleton"
        expected = normalize(parse_ntu(path.read_bytes(), str(path)), spec.skeleton, SMALL.normalize)
        np.testing.assert_array_equal(shards.array.read(facts["row"])[: facts["num_bodies"]], expected)
        named = spec.parse_name(facts["key"])
        assert named == {name: facts[name] for name in named or ()}
        assert facts["shard"] == facts["row"] // 16


def test_both_formats_hold_equal_arrays_and_other_tools_read_them(
    spec: DatasetSpec, raw: Path, tmp_path: Path
) -> None:
    zarr = pytest.importorskip("zarr")
    make(spec, raw, tmp_path, PreprocessConfig(NormalizeConfig(frames=FRAMES), "both", shard_samples=16))
    table = open_shards(tmp_path).table.set_index("key")
    array = zarr.open_array(tmp_path / "skeletons.zarr", mode="r")
    seen = 0
    for tar in sorted((tmp_path / "tar").glob("*.tar")):
        for key, sample_MCTV, facts in read_tar(tar):
            np.testing.assert_array_equal(array[table.loc[key, "row"]], sample_MCTV)
            assert facts["label"] == table.loc[key, "label"]
            seen += 1
    assert seen == 40


def test_same_input_and_settings_give_the_same_bytes(spec: DatasetSpec, raw: Path, tmp_path: Path) -> None:
    make(spec, raw, tmp_path / "one", workers=1)
    make(spec, raw, tmp_path / "four", workers=4)
    assert contents(tmp_path / "one") == contents(tmp_path / "four")


def test_zip_archives_hold_the_same_recordings(spec: DatasetSpec, raw: Path, tmp_path: Path) -> None:
    archive = tmp_path / "nturgbd_skeletons.zip"
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as file:
        for path in raw.iterdir():
            file.write(path, f"nturgb+d_skeletons/{path.name}")
    make(spec, raw, tmp_path / "folder")
    make(spec, archive, tmp_path / "zip")
    assert contents(tmp_path / "folder") == contents(tmp_path / "zip")


def test_a_recording_found_twice_is_used_once(spec: DatasetSpec, raw: Path, tmp_path: Path) -> None:
    copy = tmp_path / "deeper" / "still"
    copy.mkdir(parents=True)
    shutil.copy(next(raw.iterdir()), copy)
    manifest = make(spec, [raw, tmp_path / "deeper"], tmp_path / "out")
    assert (manifest.samples, manifest.left_out["duplicate"]) == (40, 1)


def test_odd_files_are_used_or_named(spec: DatasetSpec, odd: Path, tmp_path: Path) -> None:
    kinds = {planned.name: planned.oddity for planned in plan(spec, 20, oddities=1.0)}
    unusable = {name for name, kind in kinds.items() if kind in UNREADABLE or kind == "nobody"}
    manifest = make(spec, odd, tmp_path)
    rejects = pd.read_csv(tmp_path / "rejects.csv")
    assert set(rejects["key"]) == unusable
    assert manifest.rejected == len(unusable)
    assert manifest.left_out["missing"] == sum(name in spec.missing for name in kinds)
    assert manifest.samples == 20 - manifest.rejected - manifest.left_out["missing"]
    assert rejects["file"].str.endswith(".skeleton").all()
    assert (rejects["reason"].str.len() > 5).all()
    assert (rejects["line"] > 0).any()


def test_strict_names_the_list_and_commits_nothing(spec: DatasetSpec, odd: Path, tmp_path: Path) -> None:
    with pytest.raises(UnreadableError, match=r"recordings could not be read, listed in .*rejects\.csv"):
        make(spec, odd, tmp_path, strict=True)
    assert not (tmp_path / "manifest.json").exists()
    with pytest.raises(ValueError, match=r"has not finished .* again, without --strict if that ended it"):
        open_shards(tmp_path)


def test_missing_and_short_samples_are_the_users_choice(spec: DatasetSpec, odd: Path, tmp_path: Path) -> None:
    kept = make(spec, odd, tmp_path / "kept", PreprocessConfig(SMALL.normalize, keep_missing=True))
    assert kept.left_out["missing"] == 0
    longer = make(spec, odd, tmp_path / "longer", PreprocessConfig(SMALL.normalize, min_frames=2))
    assert longer.left_out["too_short"] == 1
    assert open_shards(tmp_path / "longer").table["num_frames"].min() >= 2


def test_a_stopped_run_goes_on_where_it_was(spec: DatasetSpec, raw: Path, tmp_path: Path) -> None:
    make(spec, raw, tmp_path / "whole")
    heard = []

    def stop_after_twenty(count: int) -> None:
        heard.append(count)
        if len(heard) > 20:
            raise KeyboardInterrupt

    job = prepare(spec, [raw], tmp_path / "stopped", SMALL, overwrite=False)
    with pytest.raises(KeyboardInterrupt):
        run(job, workers=1, on_recordings=stop_after_twenty)
    done = {
        path: path.stat().st_mtime_ns
        for path in (tmp_path / "stopped" / "skeletons.zarr").rglob("*")
        if path.is_file()
    }
    assert len(done) == 1
    assert not (tmp_path / "stopped" / "manifest.json").exists()
    make(spec, raw, tmp_path / "stopped")
    assert contents(tmp_path / "stopped") == contents(tmp_path / "whole")
    assert all(path.stat().st_mtime_ns == written for path, written in done.items())
    assert not list(tmp_path.rglob("*.tmp"))


def test_run_again_keeps_sound_shards_and_mends_the_rest(
    spec: DatasetSpec, raw: Path, tmp_path: Path
) -> None:
    make(spec, raw, tmp_path)
    before = contents(tmp_path)
    shard_files = sorted(path for path in (tmp_path / "skeletons.zarr" / "c").rglob("*") if path.is_file())
    times = [path.stat().st_mtime_ns for path in shard_files]
    content = bytearray(shard_files[1].read_bytes())
    content[100] ^= 1
    shard_files[1].write_bytes(content)
    damaged_at = shard_files[1].stat().st_mtime_ns
    make(spec, raw, tmp_path)
    assert contents(tmp_path) == before
    assert shard_files[0].stat().st_mtime_ns == times[0]
    assert shard_files[1].stat().st_mtime_ns > damaged_at


def test_a_file_downloaded_again_is_read_again(spec: DatasetSpec, raw: Path, tmp_path: Path) -> None:
    copy = tmp_path / "raw"
    shutil.copytree(raw, copy)
    victim = sorted(copy.iterdir())[3]
    whole = victim.read_bytes()
    victim.write_bytes(whole[: len(whole) // 2])
    assert make(spec, copy, tmp_path / "out").rejected == 1
    victim.write_bytes(whole)
    assert make(spec, copy, tmp_path / "out").rejected == 0


def test_other_settings_on_the_same_output_are_refused(spec: DatasetSpec, raw: Path, tmp_path: Path) -> None:
    make(spec, raw, tmp_path)
    other = PreprocessConfig(NormalizeConfig(frames=FRAMES + 1), shard_samples=16)
    with pytest.raises(ValueError, match=r"frames: 12 there, 13 now.*--overwrite"):
        make(spec, raw, tmp_path, other)
    assert open_shards(tmp_path).manifest.shape[3] == FRAMES
    make(spec, raw, tmp_path, other, overwrite=True)
    assert open_shards(tmp_path).manifest.shape[3] == FRAMES + 1


@contextmanager
def stopped_after_a_removal(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Ctrl-C in the block, once the first folder that makes room is gone."""
    remove = shutil.rmtree

    def interrupt(path: Path) -> None:
        remove(path)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", interrupt)
        with pytest.raises(KeyboardInterrupt):
            yield


def test_an_overwrite_that_was_stopped_can_be_run_again(
    spec: DatasetSpec, raw: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The folder would count as somebody else's for ever, with half of the old shards in it."""
    make(spec, raw, tmp_path)
    other = PreprocessConfig(NormalizeConfig(frames=FRAMES + 1), shard_samples=16)
    with stopped_after_a_removal(monkeypatch):
        make(spec, raw, tmp_path, other, overwrite=True)
    with pytest.raises(ValueError, match=r"frames: 12 there, 13 now.*--overwrite"):
        make(spec, raw, tmp_path, other)
    with stopped_after_a_removal(monkeypatch):
        make(spec, raw, tmp_path, other, overwrite=True)
    make(spec, raw, tmp_path, other)  # of the old shards nothing is left
    assert open_shards(tmp_path).manifest.shape[3] == FRAMES + 1
    assert verify_shards(tmp_path) == {}


def test_what_cannot_be_overwritten_is_told(
    spec: DatasetSpec, raw: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Old and new shards would lie side by side."""
    make(spec, raw, tmp_path)

    def refuse(path: Path, ignore_errors: bool = False) -> None:
        if not ignore_errors:
            raise PermissionError(13, "Permission denied", path.name)

    monkeypatch.setattr(shutil, "rmtree", refuse)
    with pytest.raises(ValueError, match=r"cannot be written: Permission denied; choose another folder"):
        make(spec, raw, tmp_path, PreprocessConfig(NormalizeConfig(frames=5)), overwrite=True)


@pytest.mark.parametrize("damage", ["flip", "cut", "gone", "table"])
def test_verify_finds_every_kind_of_damage(spec: DatasetSpec, raw: Path, tmp_path: Path, damage: str) -> None:
    make(spec, raw, tmp_path, PreprocessConfig(SMALL.normalize, "both", shard_samples=16))
    name = {"table": "samples.csv", "cut": "tar/shard-000001.tar"}.get(damage, "skeletons.zarr/c/1/0/0/0/0")
    path = tmp_path / name
    content = bytearray(path.read_bytes())
    if damage == "gone":
        path.unlink()
    elif damage == "cut":
        path.write_bytes(content[:-600])
    else:
        content[len(content) // 3] ^= 4
        path.write_bytes(content)
    problems = verify_shards(tmp_path)
    assert list(problems) == [name]
    detail = {
        "flip": r"row \d+ body \d: the values do not match their checksum",
        "gone": "No such file or directory",
    }.get(damage, r"\d+ bytes, crc32 \w{8}, where \d+ bytes, crc32 \w{8} were written")
    assert re.fullmatch(detail, problems[name][-1])


def test_what_does_not_fit_the_data_set_is_told(spec: DatasetSpec, raw: Path, tmp_path: Path) -> None:
    cases = {
        "empty; ntu60 needs files such as": (spec, tmp_path),
        "no such file or folder": (spec, tmp_path / "nowhere"),
        "look like NTU RGB": (load_spec("ucla"), raw),
    }
    for message, (wanted, folder) in cases.items():
        with pytest.raises(ValueError, match=message):
            make(wanted, folder, tmp_path / "out")
    (tmp_path / "S020C001P050R001A070.skeleton").write_text("1\n0\n")
    with pytest.raises(ValueError, match=r"none of ntu60.*they look like ntu120"):
        make(spec, tmp_path, tmp_path / "out")


def test_a_damaged_archive_is_told(spec: DatasetSpec, tmp_path: Path) -> None:
    (tmp_path / "nturgbd.zip").write_bytes(b"PK\x03\x04 and then nothing")
    with pytest.raises(ValueError, match="not a readable zip archive"):
        make(spec, tmp_path / "nturgbd.zip", tmp_path / "out")


def test_a_folder_of_other_things_is_left_alone(spec: DatasetSpec, raw: Path, tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(ValueError, match="holds other files and no shards"):
        make(spec, raw, tmp_path, overwrite=True)
    assert (tmp_path / "thesis.tex").exists()


@pytest.mark.parametrize("manifest", ["whole", "damaged", "missing"])
@pytest.mark.parametrize("plan", [None, "{", '{"project": "thesis"}'])
def test_shards_that_lost_their_plan_can_be_overwritten(
    spec: DatasetSpec,
    raw: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    plan: str | None,
    manifest: str,
) -> None:
    """They would be neither shards nor an empty folder; also when it was tried before, and stopped."""
    before = make(spec, raw, tmp_path / "out")
    if plan is None:
        (tmp_path / "out/plan.json").unlink()
    else:
        (tmp_path / "out/plan.json").write_text(plan)
    if manifest == "damaged":
        (tmp_path / "out/manifest.json").write_text("[")
    if manifest == "missing":
        (tmp_path / "out/manifest.json").unlink()
    with pytest.raises(
        ValueError, match=r"\(plan.json (is missing|cannot be read)\); --overwrite replaces them"
    ):
        make(spec, raw, tmp_path / "out")
    with stopped_after_a_removal(monkeypatch):
        make(spec, raw, tmp_path / "out", overwrite=True)
    assert make(spec, raw, tmp_path / "out", overwrite=True) == before
    assert verify_shards(tmp_path / "out") == {}


def test_shards_of_an_earlier_version_can_be_overwritten(
    spec: DatasetSpec, raw: Path, tmp_path: Path
) -> None:
    """Theirs is another plan: `inspect` says to run preprocess again."""
    before = make(spec, raw, tmp_path / "out")
    plan = tmp_path / "out/plan.json"
    facts = json.loads(plan.read_text())
    del facts["mark"]
    plan.write_text(json.dumps(facts | {"digest": "of version 2"}))
    with pytest.raises(ValueError, match="holds shards of other settings"):
        make(spec, raw, tmp_path / "out")
    assert make(spec, raw, tmp_path / "out", overwrite=True) == before


def test_a_plan_that_may_not_be_read_is_told(
    spec: DatasetSpec, raw: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(spec, raw, tmp_path / "out")

    def refuse(path: Path) -> dict[str, object]:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr("pipeline.store.manifest._load", refuse)
    with pytest.raises(ValueError, match=r"plan\.json: cannot be read: Permission denied; choose another"):
        make(spec, raw, tmp_path / "out", overwrite=True)


def test_a_loop_of_links_is_no_raw_data(spec: DatasetSpec, tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    with pytest.raises(ValueError, match=r"loop: "):
        make(spec, tmp_path / "loop", tmp_path / "out")


@pytest.mark.parametrize("plan", ['{"project": "thesis"}', '{"mark": 3}', "[1]", "to do"])
def test_a_plan_of_something_else_lets_nothing_be_overwritten(
    spec: DatasetSpec, raw: Path, tmp_path: Path, plan: str
) -> None:
    """Many things are called plan.json, and many folders records."""
    (tmp_path / "plan.json").write_text(plan)
    (tmp_path / "records").mkdir()
    (tmp_path / "records/work.txt").write_text("years of work")
    with pytest.raises(ValueError, match="holds other files and no shards"):
        make(spec, raw, tmp_path, overwrite=True)
    assert (tmp_path / "records/work.txt").exists()


def test_what_a_killed_first_run_left_is_no_other_file(spec: DatasetSpec, raw: Path, tmp_path: Path) -> None:
    """Whoever lost power in the first second would have to find out about a hidden file."""
    (tmp_path / ".plan.json.4711.tmp").write_text("{")
    assert make(spec, raw, tmp_path).samples == 40
    assert not list(tmp_path.rglob(".*.tmp"))


def test_an_output_that_cannot_be_written_is_told(spec: DatasetSpec, raw: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(ValueError, match="cannot be written"):
        make(spec, raw, tmp_path / "file" / "out")


def test_nothing_usable_at_all_is_a_failure(spec: DatasetSpec, tmp_path: Path) -> None:
    raw = tmp_path / "raw"
    raw.mkdir()
    (raw / "S001C001P001R001A001.skeleton").write_bytes(b"12\n")
    with pytest.raises(
        UnreadableError, match=r"none of 1 recordings could be used: .*; the first: .*A001\.skeleton"
    ):
        make(spec, raw, tmp_path / "out")


def test_ucla_in_both_layouts_gives_equal_shards(tmp_path: Path) -> None:
    ucla = load_spec("ucla")
    synthesize(ucla, tmp_path / "json", 20)
    synthesize(ucla, tmp_path / "text", 20, layout="text")
    config = PreprocessConfig(NormalizeConfig(frames=FRAMES))
    make(ucla, tmp_path / "json", tmp_path / "a", config)
    make(ucla, tmp_path / "text", tmp_path / "b", config)
    one, other = open_shards(tmp_path / "a"), open_shards(tmp_path / "b")
    assert one.table["key"].tolist() == other.table["key"].tolist()
    for row in one.table["row"]:
        np.testing.assert_allclose(one.array.read(row), other.array.read(row), atol=1e-5)


def test_description_counts_every_protocol(spec: DatasetSpec, raw: Path, tmp_path: Path) -> None:
    make(spec, raw, tmp_path)
    facts = open_shards(tmp_path).describe()
    assert json.loads(json.dumps(facts)) == facts
    assert facts["samples"] == 40
    assert facts["shards"] == 3
    assert facts["bytes"] == sum(
        len(content)
        for name, content in contents(tmp_path).items()
        if name in open_shards(tmp_path).manifest.files
    )
    for protocol in spec.protocols.values():
        parts = [protocol.split(spec.parse_name(path.stem) or {}) for path in raw.iterdir()]
        sizes = {part: parts.count(part) for part in ("train", "test")}
        assert facts["protocols"][protocol.name] == sizes | {"copied": 0}
    assert facts["copies"] == {"samples": 0, "of_other_class": 0}


@pytest.mark.parametrize("format_", ["zarr", "webdataset"])
def test_copies_are_found_whatever_they_are_called(
    spec: DatasetSpec, raw: Path, tmp_path: Path, format_: str
) -> None:
    """One recording under four names: of another class, and on both sides of X-Sub."""
    shutil.copytree(raw, tmp_path / "raw")
    recording = next(raw.iterdir())
    for name in ("S001C001P001R001A001", "S001C001P001R001A002", "S001C001P003R001A001"):
        shutil.copy(recording, tmp_path / "raw" / f"{name}.skeleton")
    config = PreprocessConfig(NormalizeConfig(frames=FRAMES), shard_samples=16, format=format_)
    make(spec, tmp_path / "raw", tmp_path / "out", config)
    shards = open_shards(tmp_path / "out")
    names = shards.table.groupby("content")["key"].agg(set).tolist()
    made = {"S001C001P001R001A001", "S001C001P001R001A002", "S001C001P003R001A001", recording.stem}
    assert [found for found in names if len(found) > 1] == [made]
    facts = shards.describe()
    assert facts["copies"]["samples"] == len(made) - 1
    first, *again = shards.table[shards.table["key"].isin(made)]["label"].tolist()
    assert facts["copies"]["of_other_class"] == sum(label != first for label in again)
    assert first in again
    copied = set(shards.split("xsub", "test")["key"][shards.copied("xsub")])
    assert copied == made & set(shards.split("xsub", "test")["key"])
    assert copied >= {"S001C001P003R001A001"}


def test_newest_shards_are_those_finished_last(spec: DatasetSpec, raw: Path, tmp_path: Path) -> None:
    make(spec, raw, tmp_path / "b")
    make(spec, raw, tmp_path / "a", PreprocessConfig(NormalizeConfig(frames=5)))
    assert newest_shards(tmp_path) == tmp_path / "a"
    with pytest.raises(ValueError, match="run preprocess first"):
        newest_shards(tmp_path / "nothing")


def test_real_recordings_become_shards(real_ntu: Path, tmp_path: Path, spec: DatasetSpec) -> None:
    manifest = make(spec, real_ntu, tmp_path, PreprocessConfig(NormalizeConfig(frames=FRAMES)))
    shards = open_shards(tmp_path)
    assert manifest.samples + manifest.rejected + manifest.left_out["missing"] == 1005
    assert verify_shards(tmp_path) == {}
    values_NMCTV = np.stack([shards.array.read(row) for row in shards.table["row"]])
    assert np.isfinite(values_NMCTV).all()
    assert np.abs(values_NMCTV).max() < 6  # metres from where the main actor first stood


def test_real_ucla_has_the_published_sizes(real_ucla: Path, tmp_path: Path) -> None:
    ucla = load_spec("ucla")
    for min_frames, sizes in ((1, (1020, 464)), (2, (1019, 463)), (7, (1018, 462))):
        config = PreprocessConfig(NormalizeConfig(frames=FRAMES), min_frames=min_frames)
        make(ucla, real_ucla, tmp_path / str(min_frames), config)
        shards = open_shards(tmp_path / str(min_frames))
        assert (len(shards.split("xview", "train")), len(shards.split("xview", "test"))) == sizes


def test_a_file_that_could_not_be_had_is_tried_again(
    spec: DatasetSpec, raw: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where a recording behind it, in the same shard, is damaged for good."""
    copy, out = tmp_path / "raw", tmp_path / "out"
    shutil.copytree(raw, copy)
    victim, *_, damaged = row_order([path.stem for path in raw.iterdir()])
    (copy / f"{damaged}.skeleton").write_text("12\n")
    config = replace(SMALL, shard_samples=64)
    open_file = os.open

    def failing(path: str | Path, flags: int, mode: int = 0o777) -> int:
        if str(path).endswith(f"{victim}.skeleton"):
            raise OSError(5, "Input/output error")
        return open_file(path, flags, mode)

    with monkeypatch.context() as patch:
        patch.setattr(os, "open", failing)
        assert make(spec, copy, out, config).rejected == 2
    assert "cannot be read: Input/output error" in (out / "rejects.csv").read_text()
    assert make(spec, copy, out, config).rejected == 1


def test_a_damaged_manifest_or_table_is_told(spec: DatasetSpec, raw: Path, tmp_path: Path) -> None:
    make(spec, raw, tmp_path)
    table = tmp_path / "samples.csv"
    content = table.read_text()
    table.write_text(content[: content.rindex("\n", 0, -1) + 1])
    with pytest.raises(DamagedError, match=r"samples\.csv: not as it was written"):
        open_shards(tmp_path)
    assert list(verify_shards(tmp_path)) == ["samples.csv"]
    manifest = tmp_path / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"frames": 12', '"frames": 13'))
    with pytest.raises(DamagedError, match="does not match its own digest"):
        verify_shards(tmp_path)


def test_output_inside_the_raw_folder_is_not_searched(tmp_path: Path) -> None:
    ucla = load_spec("ucla")
    synthesize(ucla, tmp_path, 12)
    config = PreprocessConfig(NormalizeConfig(frames=FRAMES))
    first = make(ucla, tmp_path, tmp_path / "shards", config)
    assert make(ucla, tmp_path, tmp_path / "shards", config) == first


def test_missing_frames_of_ucla_text_stay_absent(tmp_path: Path) -> None:
    ucla = load_spec("ucla")
    synthesize(ucla, tmp_path / "raw", 10, layout="text")
    folder = sorted((tmp_path / "raw").rglob("a*"))[0]
    frames = sorted(folder.iterdir(), key=lambda path: int(path.name.split("_")[1]))
    frames[4].unlink()
    make(ucla, tmp_path / "raw", tmp_path / "out", PreprocessConfig(NormalizeConfig(frames=len(frames))))
    shards = open_shards(tmp_path / "out")
    key = f"{folder.name}_v{int(folder.parent.name[-1]):02d}"
    [facts] = shards.table[shards.table["key"] == key].to_dict("records")
    values_CTV = shards.array.read(facts["row"])[0]
    assert facts["num_frames"] == len(frames)
    assert np.flatnonzero(~values_CTV.any(axis=(0, 2))).tolist() == [4]


def test_an_overwrite_makes_all_anew_where_the_plan_cannot_be_read(
    spec: DatasetSpec, raw: Path, tmp_path: Path
) -> None:
    """The shards beside it may be of any settings, whatever their records say."""
    made = make(spec, raw, tmp_path)
    (tmp_path / "plan.json").write_text("{")
    with pytest.raises(ValueError, match=r"plan\.json cannot be read"):
        make(spec, raw, tmp_path)
    kept: list[int] = []
    run(prepare(spec, [raw], tmp_path, SMALL, overwrite=True), on_kept=kept.append)
    assert not kept
    assert open_shards(tmp_path).manifest == made


def test_a_folder_that_others_filled_in_between_is_left_alone(
    spec: DatasetSpec, raw: Path, tmp_path: Path
) -> None:
    job = prepare(spec, [raw], tmp_path, SMALL, overwrite=False)
    make(spec, raw, tmp_path, PreprocessConfig(NormalizeConfig(frames=FRAMES + 1)), overwrite=True)
    with pytest.raises(ValueError, match=r"frames: 13 there, 12 now.*--overwrite"):
        run(job)
    assert open_shards(tmp_path).manifest.shape[3] == FRAMES + 1


def test_a_folder_in_which_nothing_was_made_yet_takes_other_settings(
    spec: DatasetSpec, raw: Path, tmp_path: Path
) -> None:
    """Where no scheduler answered, or the first shard was not finished, there is nothing to be lost."""
    out = tmp_path / "out"
    prepare(spec, [raw], out, SMALL, overwrite=False)
    other = replace(SMALL, normalize=NormalizeConfig(frames=FRAMES + 1))
    run(prepare(spec, [raw], out, other, overwrite=False), workers=1)
    assert open_shards(out).source.shape[3] == FRAMES + 1
    assert verify_shards(out) == {}
    with pytest.raises(ValueError, match="holds shards of other settings"):
        prepare(spec, [raw], out, SMALL, overwrite=False)
