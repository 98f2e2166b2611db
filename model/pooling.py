"""From features of every frame and joint to one vector: what is kept of time and of the body.

Axes: P packed present body, N sample, C channel, T frame, V joint, D number of the vector.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from model.checks import check_choice, check_positive_list, check_some
from model.covariance import covariance_size, log_covariance

POOLS = ("joints", "global")
BODIES = ("mean", "max")
COVARIANCE = "covariance"
OVER_TIME = ("mean", "deviation", "final", COVARIANCE)
# Of these, what says nothing of a single frame.
OF_CHANGE = ("deviation", COVARIANCE)
# Added to a variance before its root, whose slope at 0 is infinite; far below what a moving joint shows.
LEAST_VARIANCE = 1e-5


@dataclass(frozen=True)
class PoolConfig:
    """How features become a vector. The defaults are the paper's time average pooling (3.1).

    over: "joints" keeps the joints apart, "global" averages the statistics over them.
    statistics: of each channel over time, some of "mean", "deviation" and "final", what a recurrent encoder
        has at its end; see `final_state`. The mean alone forgets how much moved. "covariance" is not of each
        channel but of all with each other, over time and joints, whichever `over` is, and may stand beside
        the others; see `model.covariance.log_covariance`.
    spans: into how many equal spans of time the sequence is cut, for each entry: [1, 3] is the whole and its
        thirds. The whole alone forgets the order.
    bodies: how the vectors of a sample's present bodies become one, which the paper leaves open: their
        "mean", or of each number the "max".
    Raises ValueError that names the key.
    """

    over: str = "joints"
    statistics: tuple[str, ...] = ("mean",)
    spans: tuple[int, ...] = (1,)
    bodies: str = "mean"

    def __post_init__(self) -> None:
        check_choice("over", self.over, POOLS)
        check_some("statistics", self.statistics, OVER_TIME)
        check_positive_list("spans", self.spans)
        check_choice("bodies", self.bodies, BODIES)

    def size(self, channels: int, joints: int) -> int:
        """D."""
        places = channels * joints if self.over == "joints" else channels
        sizes = [covariance_size(channels) if name == COVARIANCE else places for name in self.statistics]
        return sum(sizes) * sum(self.spans)


def pool(x_PCTV: Tensor, config: PoolConfig, backward: int = 0) -> Tensor:
    """float (P, C, T, V) -> float32 (P, D): span by span, within it statistic by statistic, channels, joints.

    There are at least as many frames as spans. backward: see `final_state`.
    """
    assert x_PCTV.shape[2] >= max(config.spans)
    pooled = [
        _statistic(span_PCTV, name, config.over, backward)
        for parts in config.spans
        for span_PCTV in x_PCTV.tensor_split(parts, dim=2)
        for name in config.statistics
    ]
    return torch.cat(pooled, dim=1)


def final_state(x_PCTV: Tensor, backward: int = 0) -> Tensor:
    """float (P, C, T, V) -> float32 (P, C, V): the last frame or, of what runs backward in time, the first.

    backward: how many of the channels, the last ones, a recurrent encoder made from the sequence's end.
    """
    forward = x_PCTV.shape[1] - backward
    return torch.cat([x_PCTV[:, :forward, -1], x_PCTV[:, forward:, 0]], dim=1).float()


def pool_samples(
    x_PCTV: Tensor, config: PoolConfig, sample_P: Tensor, num_samples: int, backward: int = 0
) -> Tensor:
    """float (P, C, T, V) -> float32 (N, D): `pool`, then the bodies of each sample as `config.bodies` says;
    zeros where there is none. sample_P: as for `mean_over_bodies`."""
    pooled_PD = pool(x_PCTV, config, backward)
    if config.bodies == "mean":
        return mean_over_bodies(pooled_PD, sample_P, num_samples)
    sample_PD = sample_P.unsqueeze(1).expand_as(pooled_PD)
    empty_ND = pooled_PD.new_zeros(num_samples, pooled_PD.shape[1])
    return empty_ND.scatter_reduce(0, sample_PD, pooled_PD, "amax", include_self=False)


def mean_over_bodies(x_PD: Tensor, sample_P: Tensor, num_samples: int) -> Tensor:
    """(P, D) of packed bodies -> (N, D), the mean over each sample's bodies; zeros where there is none.

    sample_P: int64, the sample 0..num_samples-1 that each body belongs to, in any order.
    """
    sum_ND = x_PD.new_zeros(num_samples, x_PD.shape[1]).index_add(0, sample_P, x_PD)
    # Not torch.bincount: on a GPU it waits for the largest number.
    bodies_N = x_PD.new_zeros(num_samples).index_add(0, sample_P, x_PD.new_ones(len(sample_P)))
    return sum_ND / bodies_N.clamp(min=1).unsqueeze(1)


def _statistic(x_PCTV: Tensor, name: str, over: str, backward: int) -> Tensor:
    """float32 (P, D), over time."""
    if name == COVARIANCE:
        return log_covariance(x_PCTV)
    if name == "mean":
        found_PCV = x_PCTV.mean(dim=2, dtype=torch.float32)
    elif name == "final":
        found_PCV = final_state(x_PCTV, backward)
    else:
        found_PCV = (x_PCTV.float().var(dim=2, correction=0) + LEAST_VARIANCE).sqrt()
    return found_PCV.mean(dim=2) if over == "global" else found_PCV.flatten(1)
