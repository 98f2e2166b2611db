"""How far a rebuilt sequence is from the original, where the body was seen at all.

Axes: P packed present body, C coordinate, T frame, V joint, F coordinate of a joint (C * V).
"""

import torch
from torch import Tensor

from model.parallel import ALONE, Ranks


def seen_frames(x_PCTV: Tensor) -> Tensor:
    """bool (P, T): whether the body is there; where it is absent, all its joints are 0 0 0."""
    return (x_PCTV != 0).any(dim=3).any(dim=1)


def count_seen(parts: list[Tensor], ranks: Ranks = ALONE) -> Tensor:
    """The numbers in seen frames of bodies (P, C, T, V), in parts, on all ranks; at least 1. float32."""
    own = [seen_frames(x_PCTV).sum() * x_PCTV.shape[1] * x_PCTV.shape[3] for x_PCTV in parts]
    return ranks.sum(torch.stack(own).sum()).clamp(min=1).float()


def bodies_of(x_PTF: Tensor) -> Tensor:
    """What a decoder says of every frame, as bodies (P, 3, T, V)."""
    x_PTCV: Tensor = x_PTF.unflatten(2, (3, -1))
    return x_PTCV.transpose(1, 2)


def absolute_error(rebuilt_PCTV: Tensor, original_PCTV: Tensor, count: Tensor | int) -> Tensor:
    """Sum of |error| over the seen frames of the original, divided by `count`. Scalar float32."""
    return _over_seen((rebuilt_PCTV.float() - original_PCTV.float()).abs(), original_PCTV) / count


def squared_error(rebuilt_PCTV: Tensor, original_PCTV: Tensor, count: Tensor | int) -> Tensor:
    """Sum of squared errors over the seen frames of the original, divided by `count`. Scalar float32."""
    return _over_seen((rebuilt_PCTV.float() - original_PCTV.float()).square(), original_PCTV) / count


def _over_seen(error_PCTV: Tensor, original_PCTV: Tensor) -> Tensor:
    assert error_PCTV.shape == original_PCTV.shape
    return (error_PCTV.sum(dim=(1, 3)) * seen_frames(original_PCTV)).sum()
