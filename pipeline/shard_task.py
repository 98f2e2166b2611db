"""One shard, from raw recordings to its record: what a worker does, whichever scheduler sent the task to it.

Axes: B body, M body kept, C channel, T frame, V joint.
"""

import hashlib
import json
import pickle
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data_specs.spec import DatasetSpec
from pipeline.normalize import NormalizeConfig, UnusableError, normalize
from pipeline.raw.sequence import RecordingError
from pipeline.raw.sources import InaccessibleError, Recording, read_sequence
from pipeline.store.manifest import TAR_FOLDER, ZARR_FOLDER, ShardRecord, shard_files, shard_is_done
from pipeline.store.publish import file_facts, published
from pipeline.store.tar_shard import tar_name, write_tar
from pipeline.store.zarr_shard import shard_path, write_shard

# 64 bits: among NTU-120's 114,000 samples, two that differ look alike with a probability of 4e-10.
CONTENT_DIGITS = 16


@dataclass(frozen=True)
class ShardTask:
    """All that a worker needs to know to make one shard, and no more: it is sent to other processes.

    out: the output folder, absolute.  plan: its mark.  shard: its number.
    shard_samples: rows of a whole shard.  recordings: of this one's rows, in order; the last shard has fewer.
    min_frames: recordings with fewer captured frames are left out.  format: one of `manifest.FORMATS`.
    """

    out: Path
    plan: str
    shard: int
    shard_samples: int
    recordings: tuple[Recording, ...]
    spec: DatasetSpec
    normalize: NormalizeConfig
    min_frames: int
    format: str

    @cached_property
    def inputs(self) -> str:
        """Digest of the keys and their files' stamps: a file downloaded again is read again."""
        entries = [(recording.key, recording.stamp) for recording in self.recordings]
        return hashlib.sha256(json.dumps(entries).encode()).hexdigest()

    def is_done(self) -> bool:
        """Whether the shard lies in the output folder, made from these very inputs, every byte sound."""
        return shard_is_done(self.out, self.shard, self.plan, self.inputs)


def make_shard(task: ShardTask, on_recordings: Callable[[int], None] = lambda _: None) -> int:
    """Read, normalise and write a shard's recordings, then record it; returns how many there were.

    Repeating it is harmless. `on_recordings` hears how many more are done; what it raises ends the task.
    """
    samples: list[dict[str, Any]] = []
    rejects: list[dict[str, Any]] = []
    too_short: list[str] = []
    try_again = False

    def usable() -> Iterator[tuple[dict[str, Any], NDArray[np.float32]]]:
        nonlocal try_again
        for row, recording in enumerate(task.recordings, start=task.shard * task.shard_samples):
            try:
                loaded = _load(task, recording, row)
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

    _write_files(task, usable())
    files = {name: file_facts(task.out / name) for name in shard_files(task.format, task.shard)}
    record = ShardRecord(task.plan, task.inputs, files, samples, rejects, too_short, try_again)
    record.write(task.out, task.shard)
    return len(task.recordings)


def make_pickled_shard(task: bytes) -> int:
    """`make_shard` of a pickled task: dask's scheduler would unpickle it, and pickle it again."""
    return make_shard(pickle.loads(task))


def _load(
    task: ShardTask, recording: Recording, row: int
) -> tuple[dict[str, Any], NDArray[np.float32]] | None:
    """(metadata, (B, C, T, V)) of one recording, or None if it is too short. Raises RecordingError."""
    sequence = read_sequence(recording, task.spec)
    if sequence.num_frames < task.min_frames:
        return None
    try:
        bodies_BCTV = normalize(sequence, task.spec.skeleton, task.normalize, task.spec.fps)
    except UnusableError as error:
        raise RecordingError(recording.path, 0, str(error)) from None
    named = task.spec.parse_name(recording.key)
    assert named is not None
    facts = {
        "num_frames": sequence.num_frames,
        "num_bodies": len(bodies_BCTV),
        "content": hashlib.sha256(bodies_BCTV.data).hexdigest()[:CONTENT_DIGITS],
    }
    return {"key": recording.key, "row": row} | named | facts, bodies_BCTV


def _write_files(task: ShardTask, samples: Iterator[tuple[dict[str, Any], NDArray[np.float32]]]) -> None:
    """Stream samples into the zarr shard, the tar, or both at once."""
    max_bodies = task.normalize.max_bodies
    first_row = task.shard * task.shard_samples
    zarr_file = task.out / ZARR_FOLDER / shard_path(task.shard)
    tar_file = task.out / TAR_FOLDER / tar_name(task.shard)

    def dense(bodies_BCTV: NDArray[np.float32]) -> NDArray[np.float32]:
        sample_MCTV = np.zeros((max_bodies, *bodies_BCTV.shape[1:]), np.float32)
        sample_MCTV[: len(bodies_BCTV)] = bodies_BCTV
        return sample_MCTV

    if task.format == "zarr":
        with published(zarr_file) as path:
            rows = ((facts["row"] - first_row, bodies) for facts, bodies in samples)
            write_shard(path, rows, max_bodies, task.shard_samples)
    elif task.format == "webdataset":
        with published(tar_file) as path:
            write_tar(path, ((facts["key"], dense(bodies), facts) for facts, bodies in samples))
    else:
        kept = list(samples)  # one shard: 37 MB of NTU at 512 samples of 200 frames, 5 GB at 65,536
        with published(zarr_file) as path:
            rows = ((facts["row"] - first_row, bodies) for facts, bodies in kept)
            write_shard(path, rows, max_bodies, task.shard_samples)
        with published(tar_file) as path:
            write_tar(path, ((facts["key"], dense(bodies), facts) for facts, bodies in kept))
