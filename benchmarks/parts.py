"""What `preprocess` is made of, reading, parsing, normalising, writing: each on its own, and in a plain loop.

Axes: B body, C coordinate, T frame, V joint.
"""

import shutil
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from benchmarks.pairs import Clock
from pipeline.normalize import UnusableError, normalize
from pipeline.preprocess import Job
from pipeline.raw.ntu import parse_ntu
from pipeline.raw.sequence import Sequence
from pipeline.raw.sources import Recording
from pipeline.store.publish import published
from pipeline.store.zarr_shard import write_shard

PARTS = "parts"

In = TypeVar("In")
Out = TypeVar("Out")


def seconds_of_parts(job: Job, scratch: Path, clock: Clock) -> dict[str, float]:
    """What reading, parsing, normalising and writing the job's NTU recordings take, nothing else being done.

    Shard by shard, one part after another. A result is dropped before the next one is made, as in the whole
    job; what the following part needs is made again, untimed. Shards are published as the job does it, to
    files of their own that stay until the end: a file that is written over and over finds its memory ready,
    and on a virtual machine fresh memory is what writing costs most.
    """
    spent = dict.fromkeys(("read", "parse", "normalise", "write"), 0.0)
    for shard, recordings in enumerate(_shards(job)):
        contents = _timed("read", _content, recordings, spent, clock)
        sequences = _timed("parse", partial(_parsed, job), contents, spent, clock)
        samples = _timed("normalise", partial(_normalised, job), sequences, spent, clock)
        rows = [(row, bodies_BCTV) for row, bodies_BCTV in enumerate(samples) if bodies_BCTV is not None]
        start = clock.now()
        _write(job, scratch / PARTS / str(shard), rows)
        spent["write"] += clock.now() - start
    shutil.rmtree(scratch / PARTS)
    return spent


def seconds_of_loop(job: Job, scratch: Path, clock: Clock) -> float:
    """The same four parts of one recording after the other, as the whole job goes, and nothing else.

    What it takes beyond the parts on their own is the price of caches that every part finds full of another's
    data; what the whole job takes beyond it is the job's own doing.
    """
    start = clock.now()
    for shard, recordings in enumerate(_shards(job)):
        samples = (_normalised(job, _parsed(job, _content(recording))) for recording in recordings)
        rows = ((row, bodies_BCTV) for row, bodies_BCTV in enumerate(samples) if bodies_BCTV is not None)
        _write(job, scratch / PARTS / str(shard), rows)
    spent = clock.now() - start
    shutil.rmtree(scratch / PARTS)
    return spent


def _content(recording: Recording) -> bytes:
    (content,) = recording.read()
    return content


def _parsed(job: Job, content: bytes) -> Sequence:
    return parse_ntu(content, "", job.spec.skeleton.num_joints)


def _normalised(job: Job, sequence: Sequence) -> NDArray[np.float32] | None:
    try:
        return normalize(sequence, job.spec.skeleton, job.config.normalize, job.spec.fps)
    except UnusableError:
        return None


def _write(job: Job, path: Path, rows: Iterable[tuple[int, NDArray[np.float32]]]) -> None:
    with published(path) as temporary:
        write_shard(temporary, rows, job.config.normalize.max_bodies, job.plan.shard_samples)


def _shards(job: Job) -> Iterator[tuple[Recording, ...]]:
    size = job.plan.shard_samples
    for start in range(0, len(job.recordings), size):
        yield job.recordings[start : start + size]


def _timed(
    part: str, function: Callable[[In], Out], items: Iterable[In], spent: dict[str, float], clock: Clock
) -> list[Out]:
    """The function of every item; what that takes is added to `spent`."""
    start = clock.now()
    for item in items:
        function(item)
    spent[part] += clock.now() - start
    return [function(item) for item in items]
