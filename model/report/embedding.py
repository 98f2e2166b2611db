"""Test samples' features on a plane by t-SNE, as in the paper's Figure 3.

Axes: N sample, D feature, X coordinate on the plane, A angle.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from model.calibrate import calibrated
from model.checkpoint import Checkpoint
from model.feature_cache import cache_of
from model.features import encoder_features, enough_to_fit
from model.question import check_fit
from model.scores import TRAINED
from pipeline.samples import in_any_order, split_samples
from pipeline.store.shards import Shards

MOST_CLASSES = 10
PERPLEXITY, COMPONENTS = 30, 50


@dataclass(frozen=True, eq=False)
class Embedding:
    """points_NX: float64, two coordinates without unit.  labels_N: index into `classes`, its names."""

    points_NX: NDArray[np.float64]
    labels_N: NDArray[np.int64]
    classes: tuple[str, ...]


def embed(
    shards: Shards,
    checkpoint: Checkpoint,
    protocol: str,
    device: torch.device,
    *,
    cache: Path | None = None,
    seed: int = 0,
) -> Embedding:
    """The test samples of the ten classes that have the most, as the trained encoder sees them.

    cache: the folder in which an evaluation may have left their features. They are reduced to 50 principal
    components, then to the plane. Raises ValueError if the shards do not fit the model, have no such
    protocol, or hold too few test samples.
    """
    check_fit(shards, checkpoint)
    test = split_samples(shards, protocol, "test")
    chosen = most_frequent(test.labels_N, MOST_CLASSES)
    places_N = np.flatnonzero(np.isin(test.labels_N, chosen)).astype(np.int64)
    some = test.take(places_N)
    if len(some) < 4:
        raise ValueError(f"{shards.location}: {len(some)} test samples by {protocol}; t-SNE needs 4")
    train, evaluated = split_samples(shards, protocol, "train"), None
    if cache is not None:
        evaluated = cache_of(cache, shards, checkpoint, train).stored(TRAINED, test, device)
    if evaluated is not None:
        features = evaluated.take(places_N)
    else:
        train, some = in_any_order(enough_to_fit(train), some)
        model = calibrated(checkpoint.build_model().to(device), train, device)
        features = encoder_features(model, some, device)
    points_NX = on_a_plane(features.x_ND.cpu().numpy().astype(np.float64), seed)
    classes = tuple(shards.spec.classes[label] for label in chosen)
    return Embedding(points_NX, np.searchsorted(chosen, some.labels_N).astype(np.int64), classes)


def most_frequent(labels_N: NDArray[np.int64], most: int) -> NDArray[np.int64]:
    """The labels that occur most often, at most so many, rising; of equally frequent ones the lower."""
    labels, counts = np.unique(labels_N, return_counts=True)
    chosen: NDArray[np.int64] = np.sort(labels[np.argsort(-counts, kind="stable")[:most]])
    return chosen


def on_a_plane(x_ND: NDArray[np.float64], seed: int) -> NDArray[np.float64]:
    """(N, 2) by t-SNE, the same for the same features and seed, on however many cores."""
    perplexity = min(PERPLEXITY, (len(x_ND) - 1) / 3)
    # One thread: sums do not depend on how they were shared out, and threads that wait for each other
    # in t-SNE's short steps take longer than one wherever something else runs, too.
    with threadpool_limits(1):
        if min(x_ND.shape) > COMPONENTS:
            x_ND = PCA(COMPONENTS, svd_solver="full").fit_transform(x_ND)
        plane = TSNE(perplexity=perplexity, init="pca", random_state=seed)
        points_NX: NDArray[np.float64] = plane.fit_transform(x_ND).astype(np.float64)
    return points_NX


def dense_place(points_NX: NDArray[np.float64]) -> NDArray[np.float64]:
    """(2,) the point to which half of the others are nearest: in the largest of several groups."""
    if len(points_NX) == 1:
        return np.array(points_NX[0])
    distance_NN = np.linalg.norm(points_NX[:, None] - points_NX, axis=2)
    half = len(points_NX) // 2
    # The first is the point itself.
    reach_N = np.sort(distance_NN, axis=1)[:, 1 : half + 1].mean(axis=1)
    place: NDArray[np.float64] = points_NX[int(reach_N.argmin())]
    return place


def free_place(
    point_X: NDArray[np.float64], taken_NX: NDArray[np.float64], reaches: Sequence[float], room: float
) -> NDArray[np.float64]:
    """(2,) a place beside a point, so far from it and at least `room` from all that is taken.

    reaches: distances to try, the first that has such a place counts. Where none has, the freest of all does.
    """
    angle_A = np.arange(16) * (2 * np.pi / 16) + np.pi / 4
    around_AX = np.stack([np.cos(angle_A), np.sin(angle_A)], axis=1)
    freest, best = point_X, -np.inf
    for reach in reaches:
        places_AX = point_X + reach * around_AX
        clear_A = np.linalg.norm(places_AX[:, None] - taken_NX, axis=2).min(axis=1)
        if clear_A.max() > best:
            freest, best = places_AX[int(clear_A.argmax())], float(clear_A.max())
        if best >= room:
            break
    return freest
