"""Raw recordings -> shards: plan, one task per shard, finalise. Safe to stop and to run again."""

import errno
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from data_specs.spec import DatasetSpec
from pipeline.cluster import check_spread, make_shards
from pipeline.normalize import NormalizeConfig
from pipeline.raw.sources import Recording, Scan, notes, scan
from pipeline.shard_task import ShardTask
from pipeline.store import manifest as store
from pipeline.store.location import NO_PATH, check_is_text
from pipeline.store.manifest import Manifest, Plan
from pipeline.store.publish import LOCK, alone, file_facts, make_folder, publish_bytes
from pipeline.store.zarr_shard import array_metadata

LEFTOVERS = ".*.tmp"  # what `published` was writing when a run was killed


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
        assert self.shard_samples >= 1


class UnreadableError(RuntimeError):
    """Recordings could not be read, and that was not to be tolerated."""


@dataclass(frozen=True)
class Job:
    """A whole run, decided before the first recording is opened.

    recordings: one for every row, in the order of the plan's keys.  left_out: how many were found beside
        them, by the reason, as in the manifest.  out: the output folder.
    overwrite: whether shards of other settings in `out` are to make room, as soon as nothing more can keep
        these from being made.
    """

    spec: DatasetSpec
    plan: Plan
    recordings: tuple[Recording, ...]
    left_out: dict[str, int]
    config: PreprocessConfig
    out: Path
    overwrite: bool

    def tasks(self) -> list[ShardTask]:
        """One task a shard, in order."""
        size = self.plan.shard_samples
        whole = ShardTask(
            out=self.out.absolute(),
            plan=self.plan.mark,
            shard=0,
            shard_samples=size,
            recordings=self.recordings,
            spec=self.spec,
            normalize=self.config.normalize,
            min_frames=self.config.min_frames,
            format=self.config.format,
        )
        return [
            replace(whole, shard=shard, recordings=self.recordings[shard * size : (shard + 1) * size])
            for shard in range(self.plan.num_shards)
        ]


def prepare(
    spec: DatasetSpec,
    raw: list[Path],
    out: Path,
    config: PreprocessConfig,
    *,
    overwrite: bool,
    on_note: Callable[[str], None] = lambda _: None,
) -> Job:
    """Search the raw data and claim the output folder, or, where `overwrite` lets shards of other settings be
    replaced, leave it as it is until `run`. `on_note` hears what else was found there.

    Raises ValueError where the user has to decide: nothing fits the data set, the output cannot be written,
    has a name that is no text, holds something else, or holds shards of other settings and `overwrite` is not
    set.
    """
    check_is_text(out)
    # Path.resolve() itself would end at a loop of links.
    if os.path.realpath(out) in map(os.path.realpath, raw):
        raise ValueError(f"{out}: holds the raw data; write the shards into another folder by --out")
    found = scan(raw, spec, skip=out)
    for note in notes(found, spec):
        on_note(note)
    keys = [key for key in found.recordings if config.keep_missing or key not in spec.missing]
    if not keys:
        raise ValueError(
            f"all {len(found.recordings)} recordings are on the official list of missing skeletons; "
            f"--keep-missing writes them all the same"
        )
    order = store.row_order(keys)
    if config.format != "zarr" and any("." in key for key in order):
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
    recordings = tuple(found.recordings[key] for key in order)
    job = Job(spec, plan, recordings, _left_out(found, len(order)), config, out, overwrite)
    if not _replaces(job):
        _claim(job)
    return job


def run(
    job: Job,
    *,
    workers: int | None = None,
    processes: int | None = 1,
    cluster: str | None = None,
    strict: bool = False,
    on_recordings: Callable[[int], None] = lambda _: None,
    on_kept: Callable[[int], None] = lambda _: None,
) -> Manifest:
    """Write what is not yet there, then commit. `on_recordings` hears how many more recordings are done,
    `on_kept` of how many that was so before.

    workers: shards made at the same time, one a core if None; a multiple of `processes`.
    processes: over how many worker processes the workers are spread as threads; 1: they are threads of this
        process; None: as `suitable_processes` says. A script needs `if __name__ == "__main__":` for them.
    cluster: address of a running dask scheduler, such as tcp://host:8786, whose workers do it instead. They
        must see the same files under the same absolute paths, and run the same version of this project.
    `on_recordings` is called from worker threads after every recording, or from this thread after every shard
    that another process made; an exception that it raises stops the run.
    Raises UnreadableError if no recording could be used or, with `strict`, if any could not; ValueError as
    `check_spread`, or if all are shorter than asked for, or the cluster is not there or not fit, or another
    run writes there, or wrote other shards since; RuntimeError if its workers die; what a task raises.
    """
    check_spread(workers, processes)
    with _only_one_in(job.out):
        tasks, todo, replaces = job.tasks(), [], _replaces(job)
        for task in tasks:
            if not replaces and task.is_done():
                on_recordings(len(task.recordings))
                on_kept(len(task.recordings))
            else:
                todo.append(task)
        make_shards(
            todo,
            workers=workers,
            processes=processes,
            cluster=cluster,
            on_begin=partial(_begin, job, replaces=replaces),
            on_recordings=on_recordings,
        )
        return _finalise(job, tasks, strict)


def _begin(job: Job, *, replaces: bool) -> None:
    """Make room; from now on, and until the end, the folder counts as unfinished."""
    try:
        if replaces:
            _clear(job.out)
            store.write_plan(job.out, job.plan)
        (job.out / "manifest.json").unlink(missing_ok=True)
    except OSError as error:
        raise _unwritable(job.out, error) from None


def _finalise(job: Job, tasks: list[ShardTask], strict: bool) -> Manifest:
    """Tables and, last, the manifest."""
    plan = job.plan
    records = store.load_records(job.out, plan.mark, [task.inputs for task in tasks])
    store.write_tables(job.out, plan.shard_samples, records)
    samples = sum(len(record.samples) for record in records)
    rejects = [reject for record in records for reject in record.rejects]
    _check_usable(job, samples, rejects, strict)
    files = {name: facts for record in records for name, facts in record.files.items()}
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
        samples=samples,
        rejected=len(rejects),
        left_out=job.left_out | {"too_short": sum(len(record.too_short) for record in records)},
        files=dict(sorted(files.items())),
        plan=plan.digest,
    )
    for leftover in job.out.rglob(LEFTOVERS):
        leftover.unlink(missing_ok=True)
    manifest.write(job.out)
    return manifest


def _check_usable(job: Job, samples: int, rejects: Sequence[Mapping[str, Any]], strict: bool) -> None:
    """Raises ValueError or UnreadableError if there is nothing to commit, or, with `strict`, not all."""
    planned, min_frames = len(job.plan.keys), job.config.min_frames
    if samples == 0 and not rejects:
        raise ValueError(
            f"all {planned} recordings have fewer than {min_frames} frames; a smaller --min-frames lets some "
            f"be used, with --overwrite"
        )
    if samples == 0:
        raise UnreadableError(
            f"none of {planned} recordings could be used: {planned - len(rejects)} have fewer than "
            f"{min_frames} frames (--min-frames), {len(rejects)} cannot be read; "
            f"the first: {rejects[0]['file']}: {rejects[0]['reason']}"
        )
    if strict and rejects:
        raise UnreadableError(
            f"{len(rejects)} recordings could not be read, listed in {job.out / 'rejects.csv'}; "
            f"without --strict they are left out"
        )


def _left_out(found: Scan, planned: int) -> dict[str, int]:
    return {
        "missing": len(found.recordings) - planned,
        "foreign": len(found.foreign),
        "duplicate": len(found.duplicates),
    }


def _only_one_in(out: Path) -> AbstractContextManager[None]:
    return alone(out, "another preprocess", "write elsewhere by --out")


def _replaces(job: Job) -> bool:
    """Whether the folder holds shards of other settings, which the job may replace. Raises ValueError if it
    holds something else, or may not."""
    try:
        differences = store.differing_settings(job.out, job.plan)
    except (OSError, ValueError) as error:
        missing = isinstance(error, FileNotFoundError | NotADirectoryError)
        if missing and not (job.out.is_dir() and any(map(_is_of_somebody, job.out.iterdir()))):
            return False
        if not missing and isinstance(error, OSError) and error.errno in NO_PATH:
            raise _unwritable(job.out, error) from None
        if isinstance(error, PermissionError):
            raise ValueError(
                f"{error.filename}: cannot be read: {error.strerror}; choose another folder by --out"
            ) from None
        if not store.has_marks(job.out):  # then a plan.json is somebody else's, and so may the rest be
            raise ValueError(
                f"{job.out}: holds other files and no shards; choose an empty folder by --out"
            ) from None
        differences = [f"plan.json {'is missing' if missing else 'cannot be read'}"]
    if differences and not job.overwrite and store.has_marks(job.out):
        raise ValueError(
            f"{job.out}: holds shards of other settings ({'; '.join(differences)}); "
            f"--overwrite replaces them, --out writes elsewhere"
        )
    return bool(differences)


def _is_of_somebody(path: Path) -> bool:
    """Whether a file was made by something else than a run that was killed at its beginning."""
    return path.name != LOCK and not path.match(LEFTOVERS)


def _claim(job: Job) -> None:
    """Make the folder ours."""
    try:
        make_folder(job.out)
        with _only_one_in(job.out):
            store.write_plan(job.out, job.plan)
    except OSError as error:
        raise _unwritable(job.out, error) from None


def _unwritable(out: Path, error: OSError) -> ValueError:
    why = (error.strerror or str(error)).removeprefix("cannot be written: ")
    if error.errno == errno.EEXIST:
        out, why = Path(error.filename), "it is a file, or a link that leads nowhere"
    return ValueError(f"{out}: cannot be written: {why}; choose another folder by --out")


def _clear(out: Path) -> None:
    """Remove what an earlier run wrote, and nothing else: the commit point first; last the records and the
    plan, which say whose folder it is. Raises OSError."""
    for name in ("manifest.json", "samples.csv", "rejects.csv"):
        (out / name).unlink(missing_ok=True)
    for name in (store.ZARR_FOLDER, store.TAR_FOLDER, "records"):
        if (out / name).exists():
            shutil.rmtree(out / name)
    (out / "plan.json").unlink(missing_ok=True)
