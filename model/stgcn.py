"""Spatial-temporal graph convolution: the encoder of CP-STN and the decoders of its two pretexts.

Axes: P present body, C channel, T frame (t after the temporal strides), V joint, K partition of a joint's
neighbours. Only bodies that are there enter, one behind the other along P, so nothing here knows a mask.

Tensors are shaped PCTV for the reader, but lie in memory as PTVC (torch.channels_last); see
`model.graph_convolution`.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from data_specs.skeleton import Skeleton
from model.batch_norm import FrameNorm
from model.checks import check_at_most, check_choice, check_not_negative, check_positive_list
from model.first_weights import (
    AS_STREAMS,
    FIRST_WEIGHTS,
    LOOKS_LINEAR,
    RANDOM,
    begin_as_streams,
    begin_handing_on,
    begin_linear,
    initialise,
)
from model.graph import STRATEGIES, adjacency
from model.graph_convolution import ADAPTIVE, GraphConvolution
from pipeline.normalize import MOST_FRAMES

NUM_DECODER_UNITS = 5
UPSAMPLING = ("nearest", "linear")
METRES, DEVIATIONS = "metres", "deviations"
JOINT_BY_JOINT, STREAM_BY_STREAM = "joint", "stream"
INPUT_SCALES = (JOINT_BY_JOINT, STREAM_BY_STREAM)
FIRST_FRAME, MEAN_FRAME = "first", "mean"
SHORTCUT_FRAMES = (FIRST_FRAME, MEAN_FRAME)
# Of the last layer's weights: what is given in deviations begins near their mean.
FIRST_DEVIATIONS = 0.1


@dataclass(frozen=True)
class EncoderConfig:
    """The encoder: one st-gcn unit for each width. The paper (4.1.4) gives six units, no widths, no strides.

    kernel: frames that a temporal convolution sees, odd.  first_kernel: the same for the first
    unit, which alone sees every frame; 0 means `kernel`.
    graph: see `model.graph.adjacency`.
    adaptive: the terms of Eq. 1 that are used.  dropout: probability, after each unit.
    input_scale: what comes in is divided by a deviation of each coordinate of each "joint", as in ST-GCN, or
    by one of each "stream", so that the difference of two joints is still a bone.
    shortcut_frames: what a shortcut hands on of frames that a stride makes one: the "first", or their "mean".
    first_weights: "random", or, for even widths, filters that look linear: all ("looks_linear"), or all but
    those that begin as the usual "streams" and those that hand them on; see `model.first_weights`.
    motion_frames: of "streams", over how many frames a motion is seen, of at most half the first kernel. One
    is the usual difference of neighbouring frames, which is mostly noise where many frames are stored.
    branch_gain: what the last batch normalisation of each unit but the first begins to multiply with; near 0
    a unit begins as its shortcut, and the whole encoder as little more than its first unit.
    Raises ValueError that names the key.
    """

    widths: tuple[int, ...] = (32, 32, 64, 64, 128, 128)
    strides: tuple[int, ...] = (2, 2, 2, 1, 1, 1)
    kernel: int = 5
    first_kernel: int = 0
    graph: str = "inward_outward"
    adaptive: str = "A"
    residual: bool = True
    dropout: float = 0.0
    input_scale: str = JOINT_BY_JOINT
    shortcut_frames: str = FIRST_FRAME
    first_weights: str = RANDOM
    motion_frames: int = 1
    branch_gain: float = 1.0

    def __post_init__(self) -> None:
        check_positive_list("widths", self.widths)
        if len(self.strides) != len(self.widths) or min(self.strides) < 1:
            raise ValueError(
                f"strides is {list(self.strides)}; expected a number above 0 for each of the "
                f"{len(self.widths)} widths"
            )
        check_at_most("strides: the largest", max(self.strides), MOST_FRAMES)
        check_choice("graph", self.graph, STRATEGIES)
        check_choice("adaptive", self.adaptive, ADAPTIVE)
        check_choice("input_scale", self.input_scale, INPUT_SCALES)
        check_choice("shortcut_frames", self.shortcut_frames, SHORTCUT_FRAMES)
        check_choice("first_weights", self.first_weights, FIRST_WEIGHTS)
        _check_kernel(self.kernel)
        if self.first_kernel != 0:
            _check_kernel(self.first_kernel, "first_kernel")
        _check_dropout(self.dropout)
        _check_pairs(self.first_weights, self.widths)
        most = max(1, self.kernels[0] // 2)
        if not 1 <= self.motion_frames <= most:
            name = "first_kernel" if self.first_kernel else "kernel"
            raise ValueError(
                f"motion_frames is {self.motion_frames}; expected 1 to {most}, "
                f"half of {name} = {self.kernels[0]}"
            )
        check_not_negative(self, "branch_gain")
        if self.branch_gain == 0 and not self.residual:
            raise ValueError(
                "branch_gain: 0 needs shortcuts, without them all units give 0; set "
                "model.encoder.branch_gain=1"
            )

    @property
    def kernels(self) -> tuple[int, ...]:
        """Of each unit, how many frames its temporal convolution sees."""
        return (self.first_kernel or self.kernel, *[self.kernel] * (len(self.widths) - 1))

    def frames_left(self, num_frames: int) -> int:
        """t: how many of that many frames the strides leave, each rounded up."""
        for stride in self.strides:
            num_frames = -(-num_frames // stride)
        return num_frames


@dataclass(frozen=True)
class DecoderConfig:
    """One pretext's decoder: five st-gcn units, each with dropout, as in the paper (4.1.4).

    upsampling: how features get back the frames that the encoder's strides took, which the paper leaves open:
        each repeated ("nearest"), or "linear" between them.
    output: what the last layer gives, which the paper leaves open: "metres", or "deviations" from where each
        joint is in the mean, in units of its own deviation, both as the encoder's batch normalisation knows
        them: in the first epochs not yet; see `model.cpstn.CPSTN.reconstruct_spatial`.
    first_weights: "random" or "looks_linear", as those of the encoder; the latter takes the encoder's
        channels for the pairs in which one that looks linear, or as streams, hands its numbers on.
    Raises ValueError that names the key.
    """

    widths: tuple[int, ...] = (32, 32, 32, 16, 16)
    kernel: int = 5
    dropout: float = 0.2
    upsampling: str = "nearest"
    output: str = METRES
    first_weights: str = RANDOM

    def __post_init__(self) -> None:
        check_choice("upsampling", self.upsampling, UPSAMPLING)
        check_choice("output", self.output, (METRES, DEVIATIONS))
        check_choice("first_weights", self.first_weights, (RANDOM, LOOKS_LINEAR))
        check_positive_list("widths", self.widths, NUM_DECODER_UNITS)
        _check_kernel(self.kernel)
        _check_dropout(self.dropout)
        _check_pairs(self.first_weights, self.widths)


def _check_kernel(kernel: int, name: str = "kernel") -> None:
    if kernel < 1 or kernel % 2 == 0:
        raise ValueError(f"{name} is {kernel}; expected an odd number of frames")
    check_at_most(name, kernel, MOST_FRAMES)


def _check_dropout(dropout: float) -> None:
    if not 0 <= dropout < 1:
        raise ValueError(f"dropout is {dropout}; expected a probability, at least 0 and below 1")


def _check_pairs(first_weights: str, widths: tuple[int, ...]) -> None:
    odd = [width for width in widths if width % 2]
    if first_weights != RANDOM and odd:
        raise ValueError(
            f"widths holds {odd[0]}; expected even numbers for first_weights = {first_weights!r}"
        )


class STGCNUnit(nn.Module):
    """t(sum_k W_k f A_k), Eq. 2: a graph convolution in space, then a convolution in time of each joint.

    Each is followed by batch normalisation. What comes in is added before the last ReLU; where its shape
    differs, through a linear layer, of which `shortcut_frames` says what becomes of the stride.
    """

    def __init__(
        self,
        A_KVV: Tensor,
        in_channels: int,
        out_channels: int,
        *,
        kernel: int,
        stride: int = 1,
        adaptive: str = "A",
        residual: bool = True,
        dropout: float = 0.0,
        shortcut_frames: str = FIRST_FRAME,
    ) -> None:
        super().__init__()
        self.stride, self.shortcut_frames = stride, shortcut_frames
        self.residual = residual
        self.spatial = GraphConvolution(A_KVV, in_channels, out_channels, adaptive)
        self.spatial_norm = nn.BatchNorm2d(out_channels)
        self.temporal = nn.Conv2d(
            out_channels, out_channels, (kernel, 1), (stride, 1), (kernel // 2, 0), bias=False
        )
        self.temporal_norm = nn.BatchNorm2d(out_channels)
        self.shortcut: nn.Linear | None = None
        if residual and (in_channels != out_channels or stride != 1):
            self.shortcut = nn.Linear(in_channels, out_channels, bias=False)
            self.shortcut_norm = nn.BatchNorm2d(out_channels)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x_PCTV: Tensor) -> Tensor:
        """(P, C_in, T, V) -> (P, C_out, ceil(T / stride), V)."""
        out_PCTV: Tensor = F.relu(self.spatial_norm(self.spatial(x_PCTV)), inplace=True)
        out_PCTV = self.temporal_norm(self.temporal(out_PCTV))
        if self.residual:
            out_PCTV = out_PCTV + self._carry(x_PCTV)
        activated_PCTV: Tensor = self.dropout(F.relu(out_PCTV, inplace=True))
        return activated_PCTV

    def begin_linear(self, *, pairs_in: bool) -> None:
        """First weights that "look linear"; pairs_in: whether pairs of channels of opposite sign come in."""
        begin_linear(self.spatial.filters_DKC, 2, pairs_in=pairs_in)
        begin_linear(self.temporal.weight, 1, pairs_in=True)
        if self.shortcut is not None:
            begin_linear(self.shortcut.weight, 1, pairs_in=pairs_in)

    def begin_as_streams(self, motion_frames: int) -> None:
        """First weights that see joints, bones and motion, to which a shortcut's layer adds nothing at first.
        Where as many channels come in as go out there is none, and what comes in goes on being added."""
        begin_as_streams(self.spatial.filters_DKC, self.temporal.weight, motion_frames)
        if self.shortcut is not None:
            nn.init.zeros_(self.shortcut_norm.weight)

    def begin_handing_on(self) -> None:
        """First weights of a shortcut that hand on what comes in."""
        if self.shortcut is not None:
            begin_handing_on(self.shortcut.weight, self.shortcut_norm.bias)

    def _carry(self, x_PCTV: Tensor) -> Tensor:
        if self.shortcut is None:
            return x_PCTV
        if self.shortcut_frames == MEAN_FRAME:
            frames = self.stride, 1
            x_PCTV = F.avg_pool2d(x_PCTV, frames, frames, ceil_mode=True)  # of the last, what is there
        else:
            x_PCTV = x_PCTV[:, :, :: self.stride]
        x_PTVC = x_PCTV.permute(0, 2, 3, 1)
        carried: Tensor = self.shortcut_norm(self.shortcut(x_PTVC).permute(0, 3, 1, 2))
        return carried


class STGCN(nn.Module):
    """The encoder f of the paper (3.1): coordinates to features that keep frames and joints."""

    def __init__(self, skeleton: Skeleton, config: EncoderConfig, in_channels: int = 3) -> None:
        super().__init__()
        self.config = config
        together = 1 if config.input_scale == JOINT_BY_JOINT else 3 * skeleton.num_joints
        self.input_norm = FrameNorm(in_channels * skeleton.num_joints, together=together)
        A_KVV = torch.from_numpy(adjacency(skeleton, config.graph))
        self.units = nn.Sequential()
        for width, stride, kernel in zip(config.widths, config.strides, config.kernels, strict=True):
            self.units.append(
                STGCNUnit(
                    A_KVV,
                    in_channels,
                    width,
                    kernel=kernel,
                    stride=stride,
                    adaptive=config.adaptive,
                    residual=config.residual,
                    dropout=config.dropout,
                    shortcut_frames=config.shortcut_frames,
                )
            )
            in_channels = width
        self._begin(config)

    def _begin(self, config: EncoderConfig) -> None:
        """The first weights."""
        initialise(self)
        for index, unit in enumerate(self.units):
            assert isinstance(unit, STGCNUnit)
            if config.first_weights != RANDOM:
                unit.begin_linear(pairs_in=index > 0)
            if config.first_weights == AS_STREAMS and index == 0:
                unit.begin_as_streams(config.motion_frames)
            elif config.first_weights == AS_STREAMS:
                unit.begin_handing_on()
            if index > 0:
                nn.init.constant_(unit.temporal_norm.weight, config.branch_gain)

    @property
    def out_channels(self) -> int:
        return self.config.widths[-1]

    def forward(self, x_PCTV: Tensor) -> Tensor:
        """float (P, C_in, T, V) -> features q (P, widths[-1], t, V), t = `EncoderConfig.frames_left(T)`.

        A frame that is 0 in all joints, of an absent body or masked, is unseen: see `FrameNorm`.
        """
        bodies, channels, frames, joints = x_PCTV.shape
        x_PTCV = x_PCTV.transpose(1, 2)
        flat = self.input_norm(x_PTCV.reshape(bodies * frames, channels * joints))
        q_PCtV: Tensor = self.units(flat.view(bodies, frames, channels, joints).transpose(1, 2))
        return q_PCtV


class Decoder(nn.Module):
    """From a share of the encoder's features back to coordinates of every frame (3.2.2, 3.2.3).

    The last unit works on all frames, and each before it on half as many (never fewer than the encoder left),
    so that the wide units work on few.
    """

    def __init__(
        self,
        skeleton: Skeleton,
        config: DecoderConfig,
        in_channels: int,
        out_channels: int = 3,
        graph: str = "inward_outward",
    ) -> None:
        super().__init__()
        self.upsampling = config.upsampling
        A_KVV = torch.from_numpy(adjacency(skeleton, graph))
        self.units = nn.ModuleList()
        for width in config.widths:
            unit = STGCNUnit(A_KVV, in_channels, width, kernel=config.kernel, dropout=config.dropout)
            self.units.append(unit)
            in_channels = width
        self.to_coordinates = nn.Linear(in_channels, out_channels)
        initialise(self)
        nn.init.kaiming_normal_(self.to_coordinates.weight, nonlinearity="linear")
        if config.first_weights == LOOKS_LINEAR:
            for begun in self.units:
                assert isinstance(begun, STGCNUnit)
                begun.begin_linear(pairs_in=begun.spatial.filters_DKC.shape[2] % 2 == 0)
            begin_linear(self.to_coordinates.weight, 1, pairs_in=True, pairs_out=False)
        if config.output == DEVIATIONS:
            with torch.no_grad():
                self.to_coordinates.weight *= FIRST_DEVIATIONS

    def forward(self, q_PCtV: Tensor, num_frames: int) -> Tensor:
        """(P, C, t, V) with t <= num_frames -> (P, out_channels, num_frames, V), in the config's `output`."""
        x_PCTV = q_PCtV
        for unit, frames in zip(self.units, _frames_per_unit(q_PCtV.shape[2], num_frames), strict=True):
            x_PCTV = unit(_stretch(x_PCTV, frames, self.upsampling))
        rebuilt_PTVC: Tensor = self.to_coordinates(x_PCTV.permute(0, 2, 3, 1))
        return rebuilt_PTVC.permute(0, 3, 1, 2)


def _frames_per_unit(few: int, many: int) -> list[int]:
    """Frames that each decoder unit works on: `many` for the last, half of it before, never below `few`."""
    assert 1 <= few <= many
    halvings = reversed(range(NUM_DECODER_UNITS))
    return [max(few, -(-many // 2**halving)) for halving in halvings]


def _stretch(x_PCTV: Tensor, num_frames: int, upsampling: str) -> Tensor:
    """To that many frames. Frame 0 stays first: strides keep it, too."""
    size = num_frames, x_PCTV.shape[3]
    if x_PCTV.shape[2] == num_frames:
        return x_PCTV
    if upsampling == "linear":  # joints, of which there are as many as before, are not mixed
        return F.interpolate(x_PCTV, size=size, mode="bilinear", align_corners=True)
    # Unlike linear interpolation, "nearest" has a gradient that is the same in every run on a GPU.
    return F.interpolate(x_PCTV, size=size, mode="nearest")
