"""What `preprocess` is made of: reading, parsing, normalising and writing, each timed on its own.

Axes: B body, C coordinate, T frame, V joint.
"""

from collections.abc import Callable, Iterable, Iterator
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
from pipeline.store.zarr_shard import write_shard

In = TypeVar("In")
Out = TypeVar("Out")


def seconds_of_parts(job: Job, scratch: Path, clock: Clock) -> dict[str, float]:
    """What reading, parsing, normalising and writing the job's NTU recordings take, nothing else being done.

    Shard by shard, one part after another. A result is dropped before the next one is made, as in the whole
    job; what the following part needs is made again, untimed.
    """
    spec, config = job.spec, job.config.normalize

    def parse(content: bytes) -> Sequence:
        return parse_ntu(content, "", spec.skeleton.num_joints)

    def normalised(sequence: Sequence) -> NDArray[np.float32] | None:
        try:
            return normalize(sequence, spec.skeleton, config, spec.fps)
        except UnusableError:
            return None

    spent = dict.fromkeys(("read", "parse", "normalise", "write"), 0.0)
    for recordings in _shards(job):
        contents = _timed("read", _content, recordings, spent, clock)
        sequences = _timed("parse", parse, contents, spent, clock)
        samples = _timed("normalise", normalised, sequences, spent, clock)
        rows = [(row, bodies_BCTV) for row, bodies_BCTV in enumerate(samples) if bodies_BCTV is not None]
        start = clock.now()
        write_shard(scratch / "part", rows, config.max_bodies, job.plan.shard_samples)
        spent["write"] += clock.now() - start
        (scratch / "part").unlink()
    return spent


def _content(recording: Recording) -> bytes:
    (content,) = recording.read()
    return content


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
