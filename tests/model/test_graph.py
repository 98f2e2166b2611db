"""A wrong adjacency still trains, only worse: what joints hear of each other is checked entry by entry.

Axes: K partition, V joint.
"""

import numpy as np
import pytest

from data_specs.read import load_spec
from data_specs.skeleton import Skeleton
from model.graph import STRATEGIES, adjacency


@pytest.fixture(params=["ntu60", "ucla"])
def skeleton(request: pytest.FixtureRequest) -> Skeleton:
    return load_spec(request.param).skeleton


@pytest.mark.parametrize(
    ("name", "expected"), [("ntu60", [25, 24, 24]), ("ntu120", [25, 24, 24]), ("ucla", [20, 19, 19])]
)
def test_every_joint_and_bone_is_counted_once(name: str, expected: list[int]) -> None:
    """A lost bone would cut an arm off from the body without an error."""
    A_KVV = adjacency(load_spec(name).skeleton)
    assert [np.count_nonzero(A_VV) for A_VV in A_KVV] == expected
    assert A_KVV.dtype == np.float32


def test_a_joint_hears_its_parent_inward_and_its_children_outward(skeleton: Skeleton) -> None:
    """A transposed matrix would send features the wrong way along every limb."""
    identity_VV, inward_VV, outward_VV = adjacency(skeleton, "inward_outward")
    np.testing.assert_array_equal(identity_VV, np.eye(skeleton.num_joints))
    for joint in range(skeleton.num_joints):
        children = [child for child, parent in skeleton.bones if parent == joint]
        parents = [parent for child, parent in skeleton.bones if child == joint]
        assert np.flatnonzero(inward_VV[:, joint]).tolist() == parents
        assert sorted(np.flatnonzero(outward_VV[:, joint])) == sorted(children)


def test_each_partition_of_inward_outward_is_a_mean(skeleton: Skeleton) -> None:
    """Without the division by the degree, the trunk's features would outgrow those of the hands."""
    sums_KV = adjacency(skeleton, "inward_outward").sum(axis=1)
    assert np.all(np.isclose(sums_KV, 1) | (sums_KV == 0))
    assert np.flatnonzero(sums_KV[1] == 0).tolist() == [skeleton.root]


def test_st_gcn_sorts_neighbours_by_their_distance_to_the_centre(skeleton: Skeleton) -> None:
    """The partition that ST-GCN is known for: swapped or mixed groups would be another method."""
    itself_VV, closer_VV, further_VV = adjacency(skeleton, "st_gcn")
    neighbours = {joint: [joint] for joint in range(skeleton.num_joints)}
    for child, parent in skeleton.bones:
        neighbours[child].append(parent)
        neighbours[parent].append(child)
    for joint, near in neighbours.items():
        for other in range(skeleton.num_joints):
            step = _hops_slowly(skeleton, other) - _hops_slowly(skeleton, joint)
            weight = 1 / len(near) if other in near else 0
            found = [itself_VV[other, joint], closer_VV[other, joint], further_VV[other, joint]]
            expected = [weight * (step == wanted) for wanted in (0, -1, 1)]
            np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_st_gcn_normalises_the_whole_neighbourhood(skeleton: Skeleton) -> None:
    """Summed over the partitions, a joint takes the mean of its neighbourhood."""
    np.testing.assert_allclose(adjacency(skeleton, "st_gcn").sum(axis=(0, 1)), 1, rtol=1e-6)


def test_an_unknown_strategy_is_named_with_the_known_ones(skeleton: Skeleton) -> None:
    """A misspelt recipe must not train with some other graph."""
    with pytest.raises(ValueError, match=rf"'spatial'.*{', '.join(STRATEGIES)}"):
        adjacency(skeleton, "spatial")


def _hops_slowly(skeleton: Skeleton, joint: int) -> int:
    """Bones between a joint and the centre: the part of the two ways to the root that is not shared."""

    def way_up(start: int) -> set[int]:
        bones = set()
        while start != skeleton.root:
            bones.add(start)
            start = skeleton.parents[start]
        return bones

    return len(way_up(joint) ^ way_up(skeleton.centre))
