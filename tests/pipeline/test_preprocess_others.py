"""What others leave in an output folder: another run, another version of the program, damaged records."""

import dataclasses
import json
from pathlib import Path

import pytest

from data_specs.read import load_spec, parse_spec
from pipeline import preprocess
from pipeline.cluster import make_shards
from pipeline.loader import sequential_batches
from pipeline.normalize import NormalizeConfig
from pipeline.preprocess import Job, PreprocessConfig, prepare, run
from pipeline.samples import split_samples
from pipeline.shard_task import make_shard
from pipeline.store import manifest as store
from pipeline.store.damage import DamagedError
from pipeline.store.publish import alone
from pipeline.store.shards import Shards, open_shards, verify_shards
from pipeline.store.zarr_shard import ZarrShards


@pytest.fixture
def job(shards: Shards, tmp_path: Path) -> Job:
    """Of 120 recordings, in four shards."""
    return planned(shards, tmp_path / "out")


def planned(shards: Shards, out: Path, *, align: bool = True, overwrite: bool = False) -> Job:
    config = PreprocessConfig(NormalizeConfig(frames=16, max_bodies=1, align=align), shard_samples=32)
    return prepare(shards.spec, [shards.folder.parent / "raw"], out, config, overwrite=overwrite)


@pytest.mark.parametrize("damage", ['"label": 1', '"num_bodies": 1', '"digest"', "{"])
def test_a_shard_whose_record_was_changed_is_made_again(job: Job, damage: str) -> None:
    """The record's word would stand in the table and in the manifest, and verify would call it sound."""
    first = run(job)
    record = next(path for path in sorted((job.out / "records").iterdir()) if damage in path.read_text())
    content = record.read_text()
    record.write_text(content.replace(damage, damage[:-1] + "7", 1))
    again = run(job)
    assert json.loads(record.read_text()) == json.loads(content)
    assert again == first


def test_a_late_task_of_other_settings_does_not_get_into_the_manifest(
    shards: Shards, job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A cluster's worker does not hear that its run was stopped, and ends while the next one works there."""
    late = job.tasks()[1]
    other = planned(shards, job.out, align=False, overwrite=True)

    def overtaken(*given: object, **options: object) -> None:
        make_shards(*given, **options)  # type: ignore[arg-type]
        make_shard(late)

    monkeypatch.setattr(preprocess, "make_shards", overtaken)
    with pytest.raises(ValueError, match=r"no record of shards \[1\] by this run; run preprocess again"):
        run(other)
    monkeypatch.undo()
    assert run(other).settings["align"] is False
    assert verify_shards(job.out) == {}


def test_half_done_shards_of_another_version_are_not_finished(
    shards: Shards, job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Halves made by two versions may hold numbers that were made in two ways."""
    make_shard(job.tasks()[0])
    monkeypatch.setattr(store, "code_digest", lambda: "0123456789ab")
    with pytest.raises(ValueError, match=r"other settings \(another version of this program\); --overwrite"):
        planned(shards, job.out)
    made = run(planned(shards, job.out, overwrite=True))
    monkeypatch.undo()
    assert made.digest == run(planned(shards, job.out, overwrite=True)).digest  # of equal numbers


def test_two_runs_in_one_folder_are_not_let(shards: Shards, job: Job) -> None:
    """The first to finish would remove what the other is about to publish."""
    with alone(job.out, "another preprocess", "write elsewhere"):
        with pytest.raises(ValueError, match="another preprocess is writing there; wait for it"):
            run(job)
        with pytest.raises(ValueError, match="another preprocess is writing there; wait for it"):
            planned(shards, job.out)
    assert run(job).samples == 120


@pytest.mark.parametrize("name", ["samples.csv", "rejects.csv"])
def test_a_table_that_was_changed_is_not_used(job: Job, name: str) -> None:
    """A label that somebody mended by hand would train, and no figure would say so."""
    run(job)
    table = job.out / name
    table.write_text(table.read_text().replace("e", "f", 1))
    with pytest.raises(DamagedError, match=rf"{name}: not as it was written; run the preprocess"):
        open_shards(job.out).describe()
    assert list(verify_shards(job.out)) == [name]


def test_a_record_holds_what_a_record_has(job: Job) -> None:
    """The digest covers every field; a new one must not be forgotten."""
    make_shard(job.tasks()[0])
    content = json.loads((job.out / store.record_name(0)).read_text())
    fields = {field.name for field in dataclasses.fields(store.ShardRecord)}
    assert content.keys() == fields | {"digest"}


def test_shards_that_changed_places_are_damage(job: Job) -> None:
    """Each is whole, and as long as the other: a checksum that their content does not enter finds nothing."""
    run(job)
    one, other = (job.out / f"skeletons.zarr/c/{shard}/0/0/0/0" for shard in (0, 1))
    content = one.read_bytes(), other.read_bytes()
    assert len(content[0]) == len(content[1])
    one.write_bytes(content[1])
    other.write_bytes(content[0])
    assert set(verify_shards(job.out)) == {str(path.relative_to(job.out)) for path in (one, other)}
    assert [task.is_done() for task in job.tasks()] == [False, False, True, True]


def test_a_shard_of_another_length_is_not_read(job: Job) -> None:
    """Whole, but not the one that the table speaks of: its rows would be taken for others."""
    run(job)
    first, last = (job.out / f"skeletons.zarr/c/{shard}/0/0/0/0" for shard in (0, 3))
    last.write_bytes(first.read_bytes())
    shards = open_shards(job.out)
    assert isinstance(shards.source, ZarrShards)
    with pytest.raises(
        DamagedError, match=r"c/3/0/0/0/0: the file is \d+ bytes long, where \d+ were written"
    ):
        shards.source.read(119)


def test_the_same_samples_have_one_digest_wherever_they_lay(shards: Shards, tmp_path: Path) -> None:
    """A run would not go on with shards that were made of the zip instead of its folder."""
    raw, digests = shards.folder.parent / "raw", set()
    damaged = min(raw.iterdir()).name
    for place, others in (("a", ()), ("b/deep", ()), ("c", ("notes.json",))):
        folder = tmp_path / place
        folder.mkdir(parents=True)
        for path in sorted(raw.iterdir())[:8]:
            (folder / path.name).write_bytes(path.read_bytes())
        for name in (damaged, *others):
            (folder / name).write_text("{")
        config = PreprocessConfig(NormalizeConfig(frames=16, max_bodies=1))
        top = tmp_path / place.partition("/")[0]
        made = run(prepare(shards.spec, [top], tmp_path / f"out-{place[0]}", config, overwrite=False))
        assert made.rejected == 1
        digests.add(made.digest)
    assert len(digests) == 1


def test_shards_are_not_written_among_the_raw_data(shards: Shards) -> None:
    raw, config = shards.folder.parent / "raw", PreprocessConfig(NormalizeConfig(frames=16))
    with pytest.raises(ValueError, match="raw: holds the raw data; write the shards into another folder"):
        prepare(shards.spec, [raw], raw / "../raw", config, overwrite=False)


def test_shards_that_nobody_made_are_named(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers of a cluster may have written to a disk of their own."""
    monkeypatch.setattr(preprocess, "make_shards", lambda *_, **__: None)
    with pytest.raises(ValueError, match=r"no record of shards \[0, 1, 2, 3\] by this run"):
        run(job)
    assert not (job.out / "manifest.json").exists()


def test_progress_tells_every_recording_once(job: Job) -> None:
    """A bar that ends at half, or beyond the end, looks like lost recordings."""
    done: list[int] = []
    kept: list[int] = []
    run(job, on_recordings=done.append, on_kept=kept.append)
    assert (sum(done), sum(kept)) == (120, 0)
    (job.out / "skeletons.zarr/c/1/0/0/0/0").unlink()
    done.clear()
    run(job, on_recordings=done.append, on_kept=kept.append)
    assert (sum(done), sum(kept)) == (120, 88)


def test_a_shard_holds_a_sample_at_least() -> None:
    """The command line takes no fewer: a run of less is a mistake of ours."""
    with pytest.raises(AssertionError):
        PreprocessConfig(shard_samples=0)


def test_names_with_dots_are_for_zarr_alone(shards: Shards, tmp_path: Path) -> None:
    """webdataset would cut them there: two samples would be one."""
    text = shards.spec.text.replace(r"_e(?P<replication>", r"[_.]e(?P<replication>")
    raw = tmp_path / "raw"
    raw.mkdir()
    for path, name in zip(
        sorted((shards.folder.parent / "raw").iterdir()), ("a01_s01_e00_v01", "a01_s01.e01_v01"), strict=False
    ):
        (raw / f"{name}.json").write_bytes(path.read_bytes())
    spec = parse_spec(text)
    for format_ in ("webdataset", "both"):
        with pytest.raises(ValueError, match="no dots in a sample's name; use --format zarr"):
            prepare(spec, [raw], tmp_path / "out", PreprocessConfig(format=format_), overwrite=False)
    assert run(prepare(spec, [raw], tmp_path / "out", PreprocessConfig(), overwrite=False)).samples == 2


def test_recordings_that_are_all_left_out_are_told(shards: Shards, tmp_path: Path) -> None:
    """Too short, or on the official list: nothing is damaged, and nothing is left."""
    raw = shards.folder.parent / "raw"
    config = PreprocessConfig(NormalizeConfig(frames=16, max_bodies=1), min_frames=10_000)
    with pytest.raises(
        ValueError, match="all 120 recordings have fewer than 10000 frames; a smaller --min-f"
    ):
        run(prepare(shards.spec, [raw], tmp_path / "short", config, overwrite=False))
    ntu = load_spec("ntu60")
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw" / f"{min(ntu.missing)}.skeleton").write_text("1\n0\n")
    with pytest.raises(ValueError, match=r"all 1 recordings are on the official list .*--keep-missing"):
        prepare(ntu, [tmp_path / "raw"], tmp_path / "out", PreprocessConfig(), overwrite=False)


def test_a_manifest_that_is_none_or_cannot_be_had_is_damage(
    job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The way out is to run preprocess again, and not a report to the authors."""
    run(job)
    manifest = job.out / "manifest.json"
    manifest.write_text("[]")
    with pytest.raises(DamagedError, match=r"manifest\.json: damaged: not a JSON object; run the preprocess"):
        open_shards(job.out)

    def failing(_: Path) -> bytes:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(Path, "read_bytes", failing)
    with pytest.raises(DamagedError, match=r"manifest\.json: cannot be read: .*Input/output error"):
        open_shards(job.out)


def test_a_flipped_bit_does_not_train(job: Job) -> None:
    """Nobody runs verify before every training: what is read is compared with its checksum each time."""
    run(job)
    place = job.out / "skeletons.zarr/c/0/0/0/0/0"
    content = bytearray(place.read_bytes())
    content[100] ^= 1
    place.write_bytes(content)
    samples = split_samples(open_shards(job.out), "xview", "train")
    with pytest.raises(DamagedError, match="c/0/0/0/0/0: row 0 body 0: the values do not match their checks"):
        for _ in sequential_batches(samples, 16):
            pass
