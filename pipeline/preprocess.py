"""Raw recordings -> shards: plan, one dask task per shard, finalise. Safe to stop and to run again."""

import hashlib
import json
import shutil
import threading
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from dask.base import compute
from dask.delayed import delayed
from numpy.typing import NDArray

from data_specs.spec import DatasetSpec
from pipeline.normalize import NormalizeConfig, UnusableError, normalize
from pipeline.raw.sequence import RecordingError
from pipeline.raw.sources import InaccessibleError, Recording, Scan, read_sequence, scan
from pipeline.store import manifest as store
from pipeline.store.manifest import Manifest, Plan
from pipeline.store.publish import file_facts, publish_bytes, published
from pipeline.store.tar_shard import tar_name, write_tar
from pipeline.store.zarr_shard import array_metadata, shard_path, write_shard


@dataclass(frozen=True)
class PreprocessConfig:
    """Which samples are written, and how.

    min_frames: recordings with fewer captured frames are left out (7 gives the paper's 1,018/462 on NW-UCLA).
    keep_missing: also write samples on the data set's official list of missing skeletons.
    """

    normalize: NormalizeConfig = field(default_factory=NormalizeConfig)
    format: str = "zarr"
    min_frames: int = 1
    keep_missing: bool = False
    shard_samples: int = 512

    def __post_init__(self) -> None:
        if self.format not in store.FORMATS:
            raise ValueError(f"format is {self.format!r}; expected one of {', '.join(store.FORMATS)}")
        if self.shard_samples < 1:
            raise ValueError(f"shard_samples is {self.shard_samples}; it must be at least 1")


class UnreadableError(RuntimeError):
    """Recordings could not be read, and that was not to be tolerated."""


class StoppedError(RuntimeError):
    """Ends the tasks that are still running when another one has failed."""


@dataclass(frozen=True)
class Job:
    """A whole run, decided before the first recording is opened."""

    spec: DatasetSpec
    plan: Plan
    recordings: tuple[Recording, ...]
    left_out: dict[str, int]
    config: PreprocessConfig
    out: Path

    def shard_recordings(self, shard: int) -> tuple[Recording, ...]:
        """The recordings of one shard's rows, in order."""
        size = self.plan.shard_samples
        return self.recordings[shard * size : (shard + 1) * size]

    def shard_inputs(self, shard: int) -> str:
        """Digest of a shard's keys and their files' stamps: a file downloaded again is read again."""
        entries = [(recording.key, recording.stamp) for recording in self.shard_recordings(shard)]
        return hashlib.sha256(json.dumps(entries).encode()).hexdigest()


def prepare(
    spec: DatasetSpec, raw: list[Path], out: Path, config: PreprocessConfig, *, overwrite: bool
) -> Job:
    """Search the raw data and claim the output folder.

    Raises ValueError where the user has to decide: nothing fits the data set, the output cannot be written,
    holds something else, or holds shards of other settings and `overwrite` is not set.
    """
    found = scan(raw, spec, skip=out)
    keys = [key for key in found.recordings if config.keep_missing or key not in spec.missing]
    if not keys:
        raise ValueError(
            f"all {len(found.recordings)} recordings are on the official list of missing skeletons; "
            f"--keep-missing writes them all the same"
        )
    order = store.row_order(keys)
    if config.format != "zarr" and any("." in key or "/" in key for key in order):
        raise ValueError("webdataset allows no dots in a sample's name; use --format zarr")
    plan = Plan(
        dataset=spec.name,
        spec=spec.text,
        keys=order,
        shape=(len(order), config.normalize.max_bodies, 3, config.normalize.frames, spec.skeleton.num_joints),
        shard_samples=config.shard_samples,
        format=config.format,
        settings=asdict(config.normalize)
        | {"min_frames": config.min_frames, "keep_missing": config.keep_missing},
    )
    _claim(out, plan, overwrite)
    recordings = tuple(found.recordings[key] for key in order)
    return Job(spec, plan, recordings, _left_out(found, len(order)), config, out)


def run(
    job: Job,
    *,
    workers: int,
    strict: bool = False,
    on_recordings: Callable[[int], None] = lambda _: None,
) -> Manifest:
    """Write what is not yet there, then commit. `on_recordings` hears how many more recordings are done.

    It is called from worker threads; an exception that it raises stops the run.
    Raises UnreadableError if no recording could be used or, with `strict`, if any could not.
    """
    todo = []
    for shard in range(job.plan.num_shards):
        if store.shard_is_done(job.out, job.plan, shard, job.shard_inputs(shard)):
            on_recordings(len(job.shard_recordings(shard)))
        else:
            todo.append(shard)
    if todo:
        (job.out / "manifest.json").unlink(missing_ok=True)
    stopped = threading.Event()

    def hear(count: int) -> None:
        if stopped.is_set():
            raise StoppedError
        on_recordings(count)

    # Bound beforehand: dask would search an argument, recording by recording, for tasks of its own.
    write = partial(write_one_shard, job, on_recordings=hear)
    tasks = [delayed(write, pure=False, traverse=False)(shard) for shard in todo]
    try:
        compute(*tasks, scheduler="threads", num_workers=workers, optimize_graph=False)
    finally:
        stopped.set()  # after a failure or Ctrl-C, the other threads end with the recording in hand
    return _finalise(job, strict)


def write_one_shard(job: Job, shard: int, *, on_recordings: Callable[[int], None]) -> None:
    """One task: read, normalise and write a shard's recordings, then record it. Repeating it is harmless."""
    samples: list[dict[str, Any]] = []
    rejects: list[dict[str, Any]] = []
    too_short: list[str] = []
    try_again = False

    def usable() -> Iterator[tuple[dict[str, Any], NDArray[np.float32]]]:
        nonlocal try_again
        for offset, recording in enumerate(job.shard_recordings(shard)):
            try:
                loaded = _load(job, recording, shard * job.plan.shard_samples + offset)
            except RecordingError as error:
                try_again = try_again or isinstance(error, InaccessibleError)
                rejects.append(
                    {"key": recording.key, "file": error.path, "line": error.line, "reason": error.reason}
                )
            else:
                if loaded is None:
                    too_short.append(recording.key)
                else:
                    samples.append(loaded[0])
                    yield loaded
            on_recordings(1)

    _write_files(job, shard, usable())
    inputs = job.shard_inputs(shard)
    store.write_record(job.out, job.plan, shard, inputs, samples, rejects, too_short, try_again)


def _load(job: Job, recording: Recording, row: int) -> tuple[dict[str, Any], NDArray[np.float32]] | None:
    """(metadata, (B, C, F, V)) of one recording, or None if it is too short. Raises RecordingError."""
    sequence = read_sequence(recording, job.spec)
    if sequence.num_frames < job.config.min_frames:
        return None
    try:
        bodies = normalize(sequence, job.spec.skeleton, job.config.normalize, job.spec.fps)
    except UnusableError as error:
        raise RecordingError(recording.path, 0, str(error)) from None
    named = job.spec.parse_name(recording.key)
    assert named is not None
    facts = {"num_frames": sequence.num_frames, "num_bodies": len(bodies)}
    return {"key": recording.key, "row": row} | named | facts, bodies


def _write_files(job: Job, shard: int, samples: Iterator[tuple[dict[str, Any], NDArray[np.float32]]]) -> None:
    """Stream samples into the zarr shard, the tar, or both at once."""
    _, max_bodies, *sample_shape = job.plan.shape
    first_row = shard * job.plan.shard_samples
    zarr_file = job.out / store.ZARR_FOLDER / shard_path(shard)
    tar_file = job.out / store.TAR_FOLDER / tar_name(shard)

    def dense(bodies: NDArray[np.float32]) -> NDArray[np.float32]:
        out_MCTV = np.zeros((max_bodies, *sample_shape), np.float32)
        out_MCTV[: len(bodies)] = bodies
        return out_MCTV

    if job.plan.format == "zarr":
        with published(zarr_file) as path:
            rows = ((facts["row"] - first_row, bodies) for facts, bodies in samples)
            write_shard(path, rows, max_bodies, job.plan.shard_samples)
    elif job.plan.format == "webdataset":
        with published(tar_file) as path:
            write_tar(path, ((facts["key"], dense(bodies), facts) for facts, bodies in samples))
    else:
        kept = list(samples)  # one shard, tens of megabytes
        with published(zarr_file) as path:
            rows = ((facts["row"] - first_row, bodies) for facts, bodies in kept)
            write_shard(path, rows, max_bodies, job.plan.shard_samples)
        with published(tar_file) as path:
            write_tar(path, ((facts["key"], dense(bodies), facts) for facts, bodies in kept))


def _finalise(job: Job, strict: bool) -> Manifest:
    """Tables and, last, the manifest."""
    plan = job.plan
    records = store.load_records(job.out, plan)
    samples, rejects = store.write_tables(job.out, plan, records)
    if len(samples) == 0:
        first = f"; the first: {rejects['file'][0]}: {rejects['reason'][0]}" if len(rejects) else ""
        too_short = len(plan.keys) - len(rejects)
        raise UnreadableError(
            f"none of {len(plan.keys)} recordings could be used: {too_short} have fewer than "
            f"{job.config.min_frames} frames (--min-frames), {len(rejects)} cannot be read{first}"
        )
    if strict and len(rejects):
        raise UnreadableError(
            f"{len(rejects)} recordings could not be read, listed in {job.out / 'rejects.csv'}; "
            f"without --strict they are left out"
        )
    files = {name: facts for record in records for name, facts in record["files"].items()}
    small = ["samples.csv", "rejects.csv"]
    if plan.format != "webdataset":
        attributes = {"axes": ["sample", "body", "channel", "frame", "joint"], "dataset": plan.dataset}
        metadata = f"{store.ZARR_FOLDER}/zarr.json"
        publish_bytes(job.out / metadata, array_metadata(plan.shape, plan.shard_samples, attributes))
        small.append(metadata)
    files |= {name: file_facts(job.out / name) for name in small}
    manifest = Manifest(
        dataset=plan.dataset,
        spec=plan.spec,
        format=plan.format,
        settings=dict(plan.settings),
        shape=plan.shape,
        shard_samples=plan.shard_samples,
        planned=len(plan.keys),
        samples=len(samples),
        rejected=len(rejects),
        left_out=job.left_out | {"too_short": sum(len(record["too_short"]) for record in records)},
        files=dict(sorted(files.items())),
        plan=plan.digest,
    )
    for leftover in job.out.rglob(".*.tmp"):  # of a run that was killed
        leftover.unlink(missing_ok=True)
    manifest.write(job.out)
    return manifest


def _left_out(found: Scan, planned: int) -> dict[str, int]:
    return {
        "missing": len(found.recordings) - planned,
        "foreign": len(found.foreign),
        "duplicate": len(found.duplicates),
    }


def _claim(out: Path, plan: Plan, overwrite: bool) -> None:
    """Make the folder ours for this plan, or say why not."""
    try:
        differences = store.differing_settings(out, plan)
    except (FileNotFoundError, NotADirectoryError):
        if out.is_dir() and any(out.iterdir()):
            raise ValueError(
                f"{out}: holds other files and no shards; choose an empty folder by --out"
            ) from None
        differences = []
    except (OSError, ValueError):
        differences = ["plan.json cannot be read"]
    if differences and not overwrite:
        raise ValueError(
            f"{out}: holds shards of other settings ({'; '.join(differences)}); "
            f"--overwrite replaces them, --out writes elsewhere"
        )
    try:
        if differences:
            _clear(out)
        store.write_plan(out, plan)
    except OSError as error:
        raise ValueError(
            f"{out}: cannot be written: {error.strerror}; choose another folder by --out"
        ) from None


def _clear(out: Path) -> None:
    """Remove what an earlier run wrote, the commit point first, and nothing else."""
    for name in ("manifest.json", "plan.json", "samples.csv", "rejects.csv"):
        (out / name).unlink(missing_ok=True)
    for name in ("records", store.ZARR_FOLDER, store.TAR_FOLDER):
        shutil.rmtree(out / name, ignore_errors=True)
