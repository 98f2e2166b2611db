"""Joints that no recording shows, and that `normalize` had to lay where others are.

Axes: N sample, P packed present body, C coordinate, T frame, V joint.
"""

import numpy as np

from pipeline.samples import all_samples, in_any_order
from pipeline.store.shards import Shards
from pipeline.store.tar_shard import TarShards

# The first rows, which lie in random order, are enough to tell "never".
LOOKED_AT = 64


def collapsed_bones(shards: Shards) -> list[tuple[str, str]]:
    """(child, parent) of each bone whose two joints lie in one place in every frame of the first LOOKED_AT
    samples: one of them was never seen, or coordinates are relative to it, so that it is 0 0 0, which means
    unseen. NTU and NW-UCLA have none."""
    samples = all_samples(shards)
    (samples,) = in_any_order(samples.take(np.arange(min(LOOKED_AT, len(samples)))))
    assert not isinstance(samples.source, TarShards)
    x_PCTV = np.empty((samples.num_bodies_N.sum(), *samples.source.shape[2:]), np.float32)
    samples.source.read_bodies(samples.rows_N, samples.num_bodies_N, x_PCTV)
    joints = shards.spec.skeleton.joints
    return [
        (joints[child], joints[parent])
        for child, parent in shards.spec.skeleton.bones
        if (x_PCTV[..., child] == x_PCTV[..., parent]).all()
    ]
