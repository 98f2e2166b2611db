"""How fast are the two augmented views made, beside numpy and memcpy? `python -m benchmarks.views`

Axes: N sample, P packed present body, B present body of one sample, C coordinate, T frame, V joint, M slot.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.command import benchmark
from benchmarks.data import SPEC, dense, find_recordings, mixed_samples, scratch_folder
from benchmarks.pairs import CPU, WALL, Pair, Work, compare
from benchmarks.references import numpy_views
from benchmarks.references.numpy_views import TunedViews
from benchmarks.report import Report
from benchmarks.threads import machine_itself, two_threads
from pipeline.augment import ViewConfig, spatial_view, temporal_view

BATCH, BATCHES = 64, 16
# As a loader's ring: what a batch is written to has left the nearest caches since it was last written to.
RING = 5
BARS = {"per-sample float64 numpy": 100, "tuned float32 numpy": 5, "memcpy": 0.7, "two threads, views": 1.6}
PER_SAMPLE = 128  # half a second of the slowest reference
CONFIG = ViewConfig(jitter_probability=numpy_views.JITTER_PROBABILITY, jitter_std=numpy_views.JITTER_STD)


@benchmark("How fast are the two augmented views made, beside numpy and memcpy?", rounds=15)
def main(raw: Path | None, rounds: int, quick: bool) -> None:
    with scratch_folder() as scratch, ThreadPoolExecutor(2) as pool:
        recordings = find_recordings(raw, scratch, quick=quick)
        count = (2 if quick else BATCHES) * BATCH
        samples = mixed_samples(recordings, count)
        batches = [batch_of(samples[start : start + BATCH], start) for start in range(0, count, BATCH)]
        check(batches[0], dense(samples[:BATCH]))
        report = Report("views", f"{count:,} samples from {recordings.origin}, in batches of {BATCH}", BARS)
        pairs = comparisons(batches, samples)
        report.ratio(*compare(pairs, rounds, CPU))
        halves = tuple(partial(make_all, ours, part, ring()) for part in (batches[::2], batches[1::2]))
        threads = two_threads("two threads, views", "samples", pool, (halves[0], halves[1]), count)
        report.ratio(*compare([threads, *machine_itself(pool)], 2 * rounds, WALL))
        bodies = sum(len(batch.x_PCTV) for batch in batches)
        report.figure("bodies of a sample", bodies / count, "on average")
        report.show()


@dataclass(frozen=True, eq=False)
class Batch:
    """As the loader reads it: x_PCTV float32 metres; each body's sample; the samples' stable ids."""

    x_PCTV: NDArray[np.float32]
    sample_P: NDArray[np.int64]
    ids_N: NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Views:
    """Where the views of a batch go."""

    spatial_PCTV: NDArray[np.float32]
    temporal_PCTV: NDArray[np.float32]
    visible_N: NDArray[np.int64]

    def first(self, bodies: int) -> "Views":
        """The part that so many bodies need."""
        return Views(self.spatial_PCTV[:bodies], self.temporal_PCTV[:bodies], self.visible_N)


Maker = Callable[[Batch, Views], None]


def batch_of(samples: Sequence[NDArray[np.float32]], first_id: int) -> Batch:
    """These samples, each (B, C, T, V), packed."""
    ids_N = np.arange(first_id, first_id + len(samples), dtype=np.int64)
    sample_P = np.repeat(np.arange(len(samples)), [len(bodies_BCTV) for bodies_BCTV in samples])
    return Batch(np.concatenate(samples), sample_P.astype(np.int64), ids_N)


def ring(shape_CTV: tuple[int, ...] = (3, 200, 25)) -> list[Views]:
    """Buffers that batches use in turn."""
    shape_PCTV = (2 * BATCH, *shape_CTV)
    return [
        Views(np.zeros(shape_PCTV, np.float32), np.zeros(shape_PCTV, np.float32), np.zeros(BATCH, np.int64))
        for _ in range(RING)
    ]


def comparisons(batches: list[Batch], samples: list[NDArray[np.float32]]) -> list[Pair]:
    """Ours against every reference. The per-sample ones get their samples in float64, as they store them."""
    buffers = ring()
    tuned = TunedViews(seed=0)
    some = samples[:PER_SAMPLE]
    with_absent = list(dense(some).transpose(0, 2, 3, 4, 1).astype(np.float64))
    present_only = [bodies_BCTV.transpose(1, 2, 3, 0).astype(np.float64) for bodies_BCTV in some]
    references = {
        "per-sample float64 numpy": Work(partial(one_by_one, with_absent), len(some)),
        "the same, careful": Work(partial(one_by_one_carefully, present_only), len(some)),
        "tuned float32 numpy": Work(
            partial(make_all, partial(with_numpy, tuned), batches, buffers), len(samples)
        ),
        "memcpy": Work(partial(make_all, copies, batches, buffers), len(samples)),
    }
    made = Work(partial(make_all, ours, batches, buffers), len(samples))
    return [Pair(name, "samples", made, reference) for name, reference in references.items()]


def make_all(make: Maker, batches: Sequence[Batch], buffers: Sequence[Views]) -> None:
    """Both views of every batch."""
    for batch, views in zip(batches, cycle(buffers), strict=False):
        make(batch, views.first(len(batch.x_PCTV)))


def ours(batch: Batch, views: Views, config: ViewConfig = CONFIG) -> None:
    """As the loader makes them."""
    x_PCTV, sample_P, ids_N = batch.x_PCTV, batch.sample_P, batch.ids_N
    spatial_view(
        x_PCTV,
        sample_P,
        ids_N,
        seed=0,
        epoch=0,
        view=0,
        config=config,
        skeleton=SPEC.skeleton,
        out_PCTV=views.spatial_PCTV,
    )
    temporal_view(
        x_PCTV,
        sample_P,
        ids_N,
        seed=0,
        epoch=0,
        view=1,
        config=config,
        out_PCTV=views.temporal_PCTV,
        visible_N=views.visible_N,
    )


def with_numpy(tuned: TunedViews, batch: Batch, views: Views) -> None:
    """The batched reference."""
    tuned.spatial_view(batch.x_PCTV, batch.sample_P, views.spatial_PCTV)
    tuned.temporal_view(batch.x_PCTV, batch.sample_P, views.temporal_PCTV)


def copies(batch: Batch, views: Views) -> None:
    """As many bytes, unchanged."""
    np.copyto(views.spatial_PCTV, batch.x_PCTV)
    np.copyto(views.temporal_PCTV, batch.x_PCTV)


def one_by_one(samples: Sequence[NDArray[np.float64]]) -> None:
    """The per-sample reference, on samples of (C, T, V, M)."""
    for x_CTVM in samples:
        numpy_views.spatial_view(x_CTVM)
        numpy_views.temporal_view(x_CTVM)


def one_by_one_carefully(samples: Sequence[NDArray[np.float64]]) -> None:
    """The same in the fastest way that we know to write it per sample."""
    for x_CTVM in samples:
        numpy_views.careful_spatial_view(x_CTVM)
        numpy_views.temporal_view(x_CTVM)


def check(batch: Batch, whole_NMCTV: NDArray[np.float32]) -> None:
    """Raises ValueError unless ours and the references jitter and hide alike, and make finite views."""
    np.random.seed(0)
    tuned, views = TunedViews(seed=0), ring()[0].first(len(batch.x_PCTV))
    unturned = ViewConfig(
        rotation=0, shear=0, jitter_probability=CONFIG.jitter_probability, jitter_std=CONFIG.jitter_std
    )
    ours(batch, views, unturned)
    expected = strength(batch.x_PCTV, views.spatial_PCTV, views.temporal_PCTV)
    samples = list(whole_NMCTV.transpose(0, 2, 3, 4, 1).astype(np.float64))
    jittered = np.stack([numpy_views.jitter(x_CTVM) for x_CTVM in samples])
    masked = np.stack([numpy_views.temporal_view(x_CTVM) for x_CTVM in samples])
    found = {"per-sample": strength(np.stack(samples), jittered, masked)}
    np.copyto(views.spatial_PCTV, batch.x_PCTV)
    views.temporal_PCTV.fill(np.nan)  # so that nothing is left of ours
    tuned.jitter(batch.x_PCTV, views.spatial_PCTV)
    tuned.temporal_view(batch.x_PCTV, batch.sample_P, views.temporal_PCTV)
    found["tuned"] = strength(batch.x_PCTV, views.spatial_PCTV, views.temporal_PCTV)
    for name, facts in found.items():
        if not np.allclose(facts, expected, rtol=(0.03, 0.03, 0.25)):
            raise ValueError(
                f"jittered share, its deviation and the hidden share are {facts} in the {name} views and "
                f"{expected} in ours: nothing to compare"
            )
    for make in (ours, partial(with_numpy, tuned)):
        make(batch, views)
        if not (np.isfinite(views.spatial_PCTV).all() and np.isfinite(views.temporal_PCTV).all()):
            raise ValueError("a view is not finite")


def strength(x: NDArray[Any], jittered: NDArray[Any], masked: NDArray[Any]) -> tuple[float, float, float]:
    """Share of jittered values, deviation of their noise in metres, share of hidden values; any axes."""
    noise = (jittered - x)[jittered != x]
    num_values = np.count_nonzero(x)
    return noise.size / num_values, float(noise.std()), 1 - np.count_nonzero(masked) / num_values


if __name__ == "__main__":
    main()
