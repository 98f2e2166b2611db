"""Statistics over time of what is seen of a body, and a small network on them: no frames, no joints.

With about a thousand recordings plain ones say more to a linear classifier than any graph network that was
trained on as many (docs/results.md), so they are both the floor that stands in every table and an encoder of
its own. That one may also take statistics of what a graph network makes of the body with its first weights.

Axes: P packed present body, C channel, T frame (t after the strides), V joint, D number of the statistics.
"""

import math
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from data_specs.skeleton import Skeleton
from model.checks import (
    MOST_LAYERS,
    check_above_zero,
    check_at_most,
    check_not_negative,
    check_positive_list,
    check_some,
)
from model.device import full_precision
from model.first_weights import initialise
from model.pooling import OVER_TIME, PoolConfig, pool
from model.stgcn import STGCN, EncoderConfig
from model.streams import JOINT, STREAMS, slices_of

SPANS = (1, 3)


@dataclass(frozen=True)
class StatisticsConfig:
    """An encoder of statistics.

    hidden: numbers in each layer, the last of which is what it gives.  layers: how many lie one on the other.
    spans: into how many equal spans of time a recording is cut, for each entry.
    whitened: what the first layer sees: 0, the statistics, standardised; or so many numbers that keep their
        directions, where what only tells changed copies of a recording apart was made small before the first
        step; see `model.whitening.fit_encoder`.
    skip: whether the encoder also gives what its first layer sees, behind what its last one makes of it.
    graph_streams: what an ST-GCN sees that keeps its first weights; statistics of its features over the whole
        recording are further statistics. There is none if empty. The model's `encoder` describes it.
    graph_statistics: which; see `statistics` of `model.pooling.PoolConfig`.
    Raises ValueError that names the key.
    """

    hidden: int = 1024
    layers: int = 2
    spans: tuple[int, ...] = SPANS
    whitened: int = 0
    skip: bool = False
    graph_streams: tuple[str, ...] = ()
    graph_statistics: tuple[str, ...] = ("mean", "deviation")

    def __post_init__(self) -> None:
        check_above_zero(self, "hidden", "layers")
        check_at_most("layers", self.layers, MOST_LAYERS)
        check_not_negative(self, "whitened")
        check_positive_list("spans", self.spans)
        if self.graph_streams:
            check_some("graph_streams", self.graph_streams, STREAMS)
        check_some("graph_statistics", self.graph_statistics, OVER_TIME)


def input_statistics(x_PCTV: Tensor, spans: tuple[int, ...] = SPANS) -> Tensor:
    """float (P, C, T, V) -> float32 (P, D): mean, deviation and mean absolute value over time of each channel
    of each joint; span by span, within it statistic by statistic. There are at least as many frames as spans.
    """
    parts = [span_PCTV for count in spans for span_PCTV in x_PCTV.float().tensor_split(count, dim=2)]
    pooled = [
        statistic_PCV.flatten(1)
        for part in parts
        for statistic_PCV in (part.mean(2), part.std(2, correction=0), part.abs().mean(2))
    ]
    return torch.cat(pooled, dim=1)


class StatisticsEncoder(nn.Module):
    """Statistics, standardised or whitened, through linear layers with batch normalisation and ReLU.

    It gives features of one frame and one joint: a pool has nothing left to do.
    """

    def __init__(
        self,
        skeleton: Skeleton,
        config: StatisticsConfig,
        streams: tuple[str, ...] = (JOINT,),
        graph: EncoderConfig | None = None,
    ) -> None:
        """streams: that come in, one behind the other.  graph: for the network that sees some of them."""
        super().__init__()
        self.config = config
        numbers = 3 * sum(config.spans) * 3 * len(streams) * skeleton.num_joints
        self.graph: FixedGraph | None = None
        if config.graph_streams:
            seen = slices_of(config.graph_streams, streams)
            self.graph = FixedGraph(skeleton, graph or EncoderConfig(), seen, config.graph_statistics)
            numbers += self.graph.numbers
        self.seen = config.whitened or numbers
        self.input_norm = WhitenedInput(numbers, self.seen) if config.whitened else BodyNorm(numbers)
        widths = [self.seen, *[config.hidden] * config.layers]
        self.layers = nn.Sequential(
            *(
                nn.Sequential(nn.Linear(before, after), BodyNorm(after), nn.ReLU(inplace=True))
                for before, after in pairwise(widths)
            )
        )
        initialise(self.layers)

    @property
    def learnt_channels(self) -> int:
        """The first of the channels: what the layers make."""
        return self.config.hidden

    @property
    def out_channels(self) -> int:
        return self.learnt_channels + (self.seen if self.config.skip else 0)

    @property
    def fitted(self) -> nn.ModuleDict:
        """By their names: the network with first weights, the whitening of its and all other statistics."""
        parts: dict[str, nn.Module] = {} if self.graph is None else {"graph": self.graph}
        if isinstance(self.input_norm, WhitenedInput):
            parts["input_norm"] = self.input_norm
        return nn.ModuleDict(parts)

    def measure(self, x_PCTV: Tensor) -> Tensor:
        """float (P, C_in, T, V) -> float32 (P, D): all statistics, as they are; first those of the input."""
        statistics_PD = input_statistics(x_PCTV, self.config.spans)
        if self.graph is not None:
            statistics_PD = torch.cat([statistics_PD, self.graph(x_PCTV)], dim=1)
        return statistics_PD

    def forward(self, x_PCTV: Tensor) -> Tensor:
        """float (P, C_in, T, V) -> features q (P, out_channels, 1, 1). A body's absent frame is 0 0 0."""
        seen_PD = self.input_norm(self.measure(x_PCTV))
        q_PC: Tensor = self.layers(seen_PD)
        if self.config.skip:
            q_PC = torch.cat([q_PC, seen_PD], dim=1)
        return q_PC[:, :, None, None]


class FixedGraph(nn.Module):
    """An ST-GCN that keeps its first weights, and its batch normalisation what was measured before the first
    step (`model.whitening.fit_encoder`), also in training.

    seen: the streams that it sees, as channels of what comes in.  statistics: of its features over time.
    """

    def __init__(
        self,
        skeleton: Skeleton,
        config: EncoderConfig,
        seen: tuple[slice, ...],
        statistics: tuple[str, ...],
    ) -> None:
        super().__init__()
        self.stream_slices = seen
        self.pool = PoolConfig(statistics=statistics)
        self.network = STGCN(skeleton, config, 3 * len(seen)).requires_grad_(False)
        self.numbers = self.pool.size(self.network.out_channels, skeleton.num_joints)
        self.eval()

    def train(self, mode: bool = True) -> "FixedGraph":  # noqa: ARG002
        """Stays as in evaluation."""
        return super().train(False)

    def forward(self, x_PCTV: Tensor) -> Tensor:
        """float (P, C_in, T, V) -> float32 (P, numbers), as `model.pooling.pool` orders them."""
        seen_PCTV = torch.cat([x_PCTV[:, channels] for channels in self.stream_slices], dim=1)
        return pool(self.network(seen_PCTV), self.pool)


class WhitenedInput(nn.Module):
    """A linear map that is fitted to the training samples before the first step and stays as it is.

    Until then it gives NaN: whoever forgets to fit it is told by the loss.
    """

    mean_D: Tensor
    map_DE: Tensor

    def __init__(self, numbers: int, kept: int) -> None:
        super().__init__()
        self.register_buffer("mean_D", torch.full((numbers,), math.nan))
        self.register_buffer("map_DE", torch.full((numbers, kept), math.nan))

    def forward(self, x_PD: Tensor) -> Tensor:
        """float32 (P, D) -> float32 (P, E)."""
        return mapped(x_PD, self.mean_D, self.map_DE)


def mapped(x_PD: Tensor, mean_D: Tensor, map_DE: Tensor) -> Tensor:
    """What whitening does to features once it is fitted: float32 (P, D) -> float32 (P, E)."""
    with full_precision(x_PD.device):
        return (x_PD - mean_D) @ map_DE


class BodyNorm(nn.BatchNorm1d):
    """Batch normalisation over bodies. A single one has no spread: what was seen before normalises it."""

    def forward(self, x_PD: Tensor) -> Tensor:
        """(P, D) -> (P, D)."""
        if self.training and len(x_PD) == 1:
            return F.batch_norm(
                x_PD, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps
            )
        return super().forward(x_PD)
