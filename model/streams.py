"""What the encoder sees of a body: its joints and, where a recipe names them, its bones and its motion.

Axes: P packed present body, C coordinate, T frame, V joint.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

STREAMS = ("joint", "bone", "motion")


def check_streams(names: tuple[str, ...]) -> None:
    """Raises ValueError unless these are streams, each once."""
    if not names or len(set(names)) < len(names) or not set(names) <= set(STREAMS):
        raise ValueError(f"streams: found {list(names)}, expected some of {', '.join(STREAMS)}, each once")


def streams(x_PCTV: Tensor, names: tuple[str, ...], parents: tuple[int, ...]) -> Tensor:
    """float (P, 3, T, V) metres -> (P, 3 * streams, T, V), one stream behind the other.

    "joint": as they come.
    "bone": from each joint's parent to the joint; 0 for the root.
    "motion": from each frame to the next, metres a frame; 0 in the last frame, and where the body is absent
        (0 0 0 in all joints, also by masking) in either of the two, so that coming and going are no motion.
    """
    if names == ("joint",):
        return x_PCTV
    made = {"joint": lambda: x_PCTV, "bone": lambda: bones(x_PCTV, parents), "motion": lambda: motion(x_PCTV)}
    return torch.cat([made[name]() for name in names], dim=1)


def bones(x_PCTV: Tensor, parents: tuple[int, ...]) -> Tensor:
    """As `streams` describes them."""
    return x_PCTV - x_PCTV[..., list(parents)]


def motion(x_PCTV: Tensor) -> Tensor:
    """As `streams` describes it."""
    seen_P1T1 = (x_PCTV != 0).any(dim=3, keepdim=True).any(dim=1, keepdim=True)
    both_P1T1 = seen_P1T1[:, :, 1:] & seen_P1T1[:, :, :-1]
    return F.pad(x_PCTV.diff(dim=2) * both_P1T1, (0, 0, 0, 1))
