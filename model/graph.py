"""The body as a graph: one normalised adjacency matrix for each partition of a joint's neighbours.

Axes: K partition, V joint. A_KVV[k, v, w] is what joint w takes from joint v.
"""

import numpy as np
from numpy.typing import NDArray

from data_specs.skeleton import Skeleton
from model.checks import check_choice

STRATEGIES = ("inward_outward", "st_gcn")


def adjacency(skeleton: Skeleton, strategy: str = "inward_outward") -> NDArray[np.float32]:
    """A_k of Eq. 1 and 2: float32 (K, V, V), K = 3. A column that has no neighbour in a partition is zero.

    "inward_outward" (2s-AGCN, where Eq. 1 comes from): each joint itself, its parent, its children. Every
        partition is normalised by itself, so that its non-empty columns sum to 1.
    "st_gcn" (ST-GCN, spatial configuration): each joint itself, its neighbours closer to the centre joint,
        its neighbours further from it. The whole neighbourhood is normalised, so that columns sum to 1 over
        all three partitions.
    Raises ValueError for another strategy.
    """
    check_choice("graph", strategy, STRATEGIES)
    identity_VV = np.eye(skeleton.num_joints, dtype=np.float32)
    if strategy == "inward_outward":
        inward_VV = np.zeros_like(identity_VV)
        for child, parent in skeleton.bones:
            inward_VV[parent, child] = 1
        return np.stack([identity_VV, _columns_to_one(inward_VV), _columns_to_one(inward_VV.T)])
    hops_V = _hops_to_centre(skeleton)
    closer_VV = np.zeros_like(identity_VV)
    for bone in skeleton.bones:
        # In a tree the two ends of a bone never lie at the same distance, so no third case exists.
        near, far = sorted(bone, key=lambda joint: hops_V[joint])
        closer_VV[near, far] = 1
    whole_VV = _columns_to_one(identity_VV + closer_VV + closer_VV.T)
    return np.stack([identity_VV, closer_VV, closer_VV.T]) * whole_VV


def _columns_to_one(links_VV: NDArray[np.float32]) -> NDArray[np.float32]:
    degree_V = links_VV.sum(axis=0).clip(min=1)
    normalised_VV: NDArray[np.float32] = (links_VV / degree_V).astype(np.float32)
    return normalised_VV


def _hops_to_centre(skeleton: Skeleton) -> NDArray[np.int64]:
    """int64 (V,): how many bones lie between each joint and the centre joint."""
    hops_V = np.full(skeleton.num_joints, -1, dtype=np.int64)
    border, distance = {skeleton.centre}, 0
    while border:
        hops_V[list(border)] = distance
        ends = [(a, b) for bone in skeleton.bones for a, b in (bone, bone[::-1])]
        border = {b for a, b in ends if a in border and hops_V[b] < 0}
        distance += 1
    return hops_V
