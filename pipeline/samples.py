"""Which samples are worked on: a protocol's training or test samples, where they lie, and who may be paired.

Axes: N sample, P packed present body, C coordinate, T frame, V joint. "Packed" means that only the bodies
that are present are there, those of one sample beside each other.
"""

from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from data_specs.skeleton import Skeleton
from data_specs.spec import DatasetSpec
from pipeline.load import load_bodies
from pipeline.store.shards import Shards, performances
from pipeline.store.tar_shard import TarShards

RECORDING, CAMERA = "recording", "camera"
POSITIVES = (RECORDING, CAMERA)


class BodySource(Protocol):
    """Where samples lie that can be read in any order. `read_bodies` is called from several threads."""

    @property
    def shape(self) -> tuple[int, int, int, int, int]:
        """(N, M, C, T, V): samples, bodies at most, coordinates, frames, joints."""
        ...

    def read_bodies(
        self, rows_N: NDArray[np.int64], num_bodies_N: NDArray[np.int64], out_PCTV: NDArray[np.float32]
    ) -> None:
        """Copy the first num_bodies_N[n] bodies of each row, packed. float32 metres; padding is 0."""
        ...


@dataclass(frozen=True, eq=False)
class Samples:
    """The samples to iterate over, such as one split. All arrays are int64 of shape (N,).

    rows_N: row in the source's array, and the sample's stable id.  num_bodies_N: 1..M.
    labels_N: class index.  performances_N: a number for each performance; recordings of one by several
    cameras share it, where the data set's cameras film at once.  skeleton: of V joints.
    """

    source: BodySource | TarShards
    rows_N: NDArray[np.int64]
    num_bodies_N: NDArray[np.int64]
    labels_N: NDArray[np.int64]
    performances_N: NDArray[np.int64]
    skeleton: Skeleton

    def __post_init__(self) -> None:
        arrays = (self.rows_N, self.num_bodies_N, self.labels_N, self.performances_N)
        for array_N in arrays:
            assert array_N.dtype == np.int64
            assert array_N.shape == self.rows_N.shape
        assert np.all((self.num_bodies_N >= 1) & (self.num_bodies_N <= self.source.shape[1]))

    def __len__(self) -> int:
        return len(self.rows_N)

    def take(self, indices: NDArray[np.int64]) -> "Samples":
        """The samples at these positions, in this order."""
        return Samples(
            self.source,
            self.rows_N[indices],
            self.num_bodies_N[indices],
            self.labels_N[indices],
            self.performances_N[indices],
            self.skeleton,
        )


def split_samples(shards: Shards, protocol: str, part: str) -> Samples:
    """The samples that a protocol trains on ("train") or tests on ("test"), in the order of their rows.

    Raises ValueError if there is no such protocol, or no such sample in these shards.
    """
    table = shards.split(protocol, part)
    if len(table) == 0:
        others = [name for name in shards.spec.protocols if len(shards.split(name, part))]
        way_out = f"expected a protocol that does, of {', '.join(others)}" if others else "nor does any other"
        raise ValueError(
            f"{shards.location}: protocol {protocol} finds no {part} samples in these shards; {way_out}"
        )
    return _samples(shards, table)


def all_samples(shards: Shards) -> Samples:
    """Every sample of these shards, in the order of their rows."""
    return _samples(shards, shards.table)


def _samples(shards: Shards, table: pd.DataFrame) -> Samples:
    return Samples(
        source=shards.source,
        rows_N=table["row"].to_numpy(np.int64),
        num_bodies_N=table["num_bodies"].to_numpy(np.int64),
        labels_N=table["label"].to_numpy(np.int64),
        performances_N=_performances(table, shards.spec),
        skeleton=shards.spec.skeleton,
    )


def _performances(table: pd.DataFrame, spec: DatasetSpec) -> NDArray[np.int64]:
    """A number for each performance (N,): by the names, where cameras film at once; else each its own."""
    if not spec.simultaneous_cameras:
        return np.arange(len(table), dtype=np.int64)
    _, number_N = np.unique(performances(table, spec), return_inverse=True)
    return number_N.astype(np.int64)


def check_positives(samples: Samples, positives: str) -> None:
    """Raises ValueError if the views of these samples cannot be paired like that."""
    if positives not in POSITIVES:
        raise ValueError(f"positives is {positives!r}; expected one of {', '.join(POSITIVES)}")
    if positives == RECORDING:
        return
    if isinstance(samples.source, TarShards):
        raise ValueError(
            f"positives is {CAMERA!r}, but webdataset shards are read in an order of their own, in which the "
            f"recordings of two cameras do not meet; preprocess with --format zarr or both, or set "
            f"positives={RECORDING}"
        )
    if len(np.unique(samples.performances_N)) == len(samples):
        raise ValueError(
            f"positives is {CAMERA!r}, but none of the {len(samples):,} training samples is known to show "
            f"what another camera's shows: they are one camera's, or the data set's cameras did not film at "
            f"once (simultaneous_cameras in its spec); set positives={RECORDING}"
        )


def in_any_order(*parts: Samples) -> tuple[Samples, ...]:
    """The same samples from a source that can be read in any order: those in tars are loaded into memory.

    The parts have one source and no row in common. Errors as `load.load_bodies`.
    """
    source = parts[0].source
    if not isinstance(source, TarShards):
        return parts
    assert all(part.source is source for part in parts)
    rows_N = np.concatenate([part.rows_N for part in parts])
    loaded = load_bodies(source, rows_N, np.concatenate([part.num_bodies_N for part in parts]))
    return tuple(replace(part, source=loaded) for part in parts)
