"""What the encoder sees of a body: its joints and, where a recipe names them, bones, motion and distances.

Axes: P packed present body, C coordinate, T frame, V joint.
"""

from functools import cache

import torch
from torch import Tensor
from torch.nn import functional as F

from data_specs.skeleton import Skeleton

JOINT = "joint"
STREAMS = (JOINT, "bone", "motion", "distance")


def check_ends(names: tuple[str, ...], skeleton: Skeleton) -> None:
    """Raises ValueError if there is no joint to take distances from."""
    if "distance" in names and skeleton.ends is None:
        raise ValueError(
            'streams: "distance" needs a skeleton with ends = [left hand, right hand, head], which the spec '
            "that these shards carry does not name; preprocess again with one that does"
        )


def streams(x_PCTV: Tensor, names: tuple[str, ...], skeleton: Skeleton) -> Tensor:
    """float (P, 3, T, V) metres -> (P, 3 * streams, T, V), one stream behind the other.

    "joint": as they come.
    "bone": from each joint's parent to the joint; 0 for the root.
    "motion": from each frame to the next, metres a frame; 0 in the last frame, and where the body is absent
        (0 0 0 in all joints, also by masking) in either of the two, so that coming and going are no motion.
    "distance": of each joint from the left hand, from the right one and from the head, metres: the same from
        wherever the body is seen. 0 where it is absent.
    """
    if names == ("joint",):
        return x_PCTV
    made = {
        "joint": lambda: x_PCTV,
        "bone": lambda: bones(x_PCTV, skeleton),
        "motion": lambda: motion(x_PCTV),
        "distance": lambda: distances(x_PCTV, skeleton),
    }
    return torch.cat([made[name]() for name in names], dim=1)


def slices_of(names: tuple[str, ...], among: tuple[str, ...]) -> tuple[slice, ...]:
    """Where the channels of these streams lie in what `streams` makes of all."""
    return tuple(slice(3 * among.index(name), 3 * among.index(name) + 3) for name in names)


def bones(x_PCTV: Tensor, skeleton: Skeleton) -> Tensor:
    """As `streams` describes them."""
    return x_PCTV - x_PCTV.index_select(3, _on(x_PCTV.device, skeleton.parents))


@cache
def _on(device: torch.device, joints: tuple[int, ...]) -> Tensor:
    """int64 (V,), sent once: an index from a list would make every step wait for its copy to a GPU."""
    return torch.tensor(joints, device=device)


def motion(x_PCTV: Tensor) -> Tensor:
    """As `streams` describes it."""
    seen_P1T1 = (x_PCTV != 0).any(dim=3, keepdim=True).any(dim=1, keepdim=True)
    both_P1T1 = seen_P1T1[:, :, 1:] & seen_P1T1[:, :, :-1]
    return F.pad(x_PCTV.diff(dim=2) * both_P1T1, (0, 0, 0, 1))


def distances(x_PCTV: Tensor, skeleton: Skeleton) -> Tensor:
    """As `streams` describes them; `check_ends` was asked before."""
    assert skeleton.ends is not None
    from_ends = [x_PCTV - x_PCTV[..., end, None] for end in skeleton.ends]
    return torch.stack([torch.linalg.vector_norm(apart_PCTV, dim=1) for apart_PCTV in from_ends], dim=1)
