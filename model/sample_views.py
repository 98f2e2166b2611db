"""A stored sample and the views that training makes of it, one at a time: to be looked at.

Axes: P body of the sample, C coordinate, T frame, V joint.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from data_specs.skeleton import Skeleton
from pipeline.augment import ViewConfig, crops, make_view
from pipeline.store.shards import Shards


@dataclass(frozen=True, eq=False)
class Sample:
    """One stored recording. x_PCTV: float32 metres of its bodies; a body that is absent in a frame is all 0.

    num_frames: captured, before they were resampled to T.
    """

    key: str
    row: int
    label: int
    num_frames: int
    x_PCTV: NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class SampleView:
    """One augmented copy of a sample.

    x_PCTV: float32 metres.  visible: leading frames that are not masked.  target_PCTV: what a decoder is to
    rebuild from it: the sample as stored or, of a view that was cropped, the crop before its tail was masked.
    """

    kind: str
    x_PCTV: NDArray[np.float32]
    visible: int
    target_PCTV: NDArray[np.float32]


def check_sample(shards: Shards, key: str) -> None:
    """Raises ValueError if there is none of that key."""
    if key not in set(shards.table["key"]):
        raise ValueError(
            f"{shards.location}: no sample {key!r}; samples.csv lists them, such as {shards.table['key'][0]}"
        )


def read_sample(shards: Shards, key: str | None) -> Sample:
    """The sample of that key, or the first. Raises ValueError if there is none."""
    if key is not None:
        check_sample(shards, key)
    rows = shards.table if key is None else shards.table[shards.table["key"] == key]
    facts = rows.iloc[0]
    x_MCTV = shards.source.read(int(facts["row"]))
    return Sample(
        key=str(facts["key"]),
        row=int(facts["row"]),
        label=int(facts["label"]),
        num_frames=int(facts["num_frames"]),
        x_PCTV=np.ascontiguousarray(x_MCTV[: int(facts["num_bodies"])]),
    )


def make_views(
    sample: Sample, kinds: Sequence[str], config: ViewConfig, *, skeleton: Skeleton, seed: int
) -> list[SampleView]:
    """The views that training with this seed makes of a sample in its first epoch, in the order of `kinds`.

    kinds: of `pipeline.batch.VIEW_KINDS`.
    Raises ValueError where the sample is too short for a masked tail.
    """
    x_PCTV, ids_N = sample.x_PCTV, np.array([sample.row], np.int64)
    sample_P = np.zeros(len(x_PCTV), np.int64)
    views = []
    for index, kind in enumerate(kinds):
        out_PCTV, visible_N = np.empty_like(x_PCTV), np.empty(1, np.int64)
        cropped_PCTV = np.empty_like(x_PCTV) if crops(kind, config) else None
        make_view(
            *(kind, x_PCTV, sample_P, ids_N),
            seed=seed,
            epoch=0,
            view=index,
            config=config,
            skeleton=skeleton,
            out_PCTV=out_PCTV,
            visible_N=visible_N,
            cropped_PCTV=cropped_PCTV,
        )
        target_PCTV = x_PCTV if cropped_PCTV is None else cropped_PCTV
        views.append(SampleView(kind, out_PCTV, int(visible_N[0]), target_PCTV))
    return views
