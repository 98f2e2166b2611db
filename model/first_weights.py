"""What a network's weights begin with. The paper gives none, and they decide more than its training does: see
docs/experiments.md. All in place, from torch's generator.

Axes: D filter, K partition, C channel that comes in, T frame of a kernel.
"""

import math

import torch
from torch import Tensor, nn

RANDOM, LOOKS_LINEAR, AS_STREAMS = "random", "looks_linear", "streams"
FIRST_WEIGHTS = (RANDOM, LOOKS_LINEAR, AS_STREAMS)
# Mean over deviation of what a ReLU leaves of normally distributed numbers.
RECTIFIED_MEAN = 1 / math.sqrt(math.pi - 1)


def initialise(module: nn.Module) -> None:
    """Kaiming's normal weights for what a ReLU follows, and no bias."""
    for part in module.modules():
        if isinstance(part, nn.Linear | nn.Conv2d):
            nn.init.kaiming_normal_(part.weight, nonlinearity="relu")
            if part.bias is not None:
                nn.init.zeros_(part.bias)


@torch.no_grad()
def begin_linear(filters: Tensor, channels: int, *, pairs_in: bool, pairs_out: bool = True) -> None:
    """Filters that "look linear" (Balduzzi et al. 2017, "The shattered gradients problem", section 4).

    Filters 2i and 2i + 1 are of opposite sign, so that a ReLU loses nothing of what they see: the difference
    of both is what filter 2i gave, their sum how much. Channels that come in as such pairs are weighted with
    opposite signs, too, which takes that difference; so layer upon layer begins linear, as long as nothing
    is added between. The pairs are orthogonal to each other, so that no two begin by seeing the same, where
    there are no more pairs than numbers that come in.

    filters: (D, ..., C, ...) with the channels that come in along axis `channels`; D is even where
    `pairs_out`, C where `pairs_in`. Changed in place, so a view of a layer's weights will do.
    """
    half = filters.movedim(channels, -1)[:: 2 if pairs_out else 1, ..., :: 2 if pairs_in else 1]
    orthogonal = nn.init.orthogonal_(torch.empty(len(half), half[0].numel())).view(half.shape)
    _put_pairs(filters, orthogonal, channels, pairs_in=pairs_in, pairs_out=pairs_out)


def _put_pairs(
    filters: Tensor, wanted: Tensor, channels: int, *, pairs_in: bool, pairs_out: bool = True
) -> None:
    """The first filters as wanted (filter, ..., channel), each for a pair of them where they are paired."""
    step_out, step_in = 2 if pairs_out else 1, 2 if pairs_in else 1
    first = filters.movedim(channels, -1)[: step_out * len(wanted)]
    for out in range(step_out):
        for into in range(step_in):
            first[out::step_out, ..., into::step_in] = (-1) ** (out + into) * wanted


@torch.no_grad()
def begin_as_streams(spatial_DKC: Tensor, temporal_DCT1: Tensor, motion_frames: int = 1) -> None:
    """A first unit whose filters see what the field makes of a skeleton by hand, its streams (2s-AGCN): where
    each joint is, how it lies to the mean of its neighbours of each partition but the first (bones), and how
    these change (motion): their mean over `motion_frames` frames less their mean over as many before; in
    pairs of opposite sign, and as many as there are filters. What is over keeps the weights that it has,
    which are to look linear. Both are changed in place.

    Where a joint has no neighbour of a partition, as at the end of a limb, its place stands for the bone.
    With "st_gcn", whose partitions share one norm, bones come out roughly. A kernel of one frame sees no
    motion; of any other, `motion_frames` is at most half.
    """
    filters, partitions, channels = spatial_DKC.shape
    named = min(filters // 2, partitions * channels)
    seen = torch.zeros(named, partitions, channels)
    for index in range(named):
        partition, channel = divmod(index, channels)
        seen[index, 0, channel] = 1
        if partition:
            seen[index, partition, channel] = -1
    _put_pairs(spatial_DKC, seen, 2, pairs_in=False)
    kernel = temporal_DCT1.shape[2]
    still, moving = torch.zeros(2, kernel)
    still[kernel // 2] = 1
    kinds = [still]
    if kernel > 1:
        middle = kernel // 2
        moving[middle - motion_frames : middle] = -1 / motion_frames
        moving[middle : middle + motion_frames] = 1 / motion_frames
        kinds.append(moving)
    over_time = torch.zeros(min(len(kinds) * named, filters // 2), kernel, 1, filters // 2)
    for index in range(len(over_time)):
        kind, of = divmod(index, named)
        over_time[index, :, 0, of] = kinds[kind]
    _put_pairs(temporal_DCT1, over_time, 1, pairs_in=True)


@torch.no_grad()
def begin_handing_on(shortcut_DC: Tensor, bias_D: Tensor) -> None:
    """A shortcut, a linear layer and batch normalisation with this bias, that begins by handing on what comes
    in from a ReLU, as its first channels; the others keep the weights that they have. Without the bias the
    next ReLU would cut off all that is below its mean; with it, numbers that were normally distributed before
    the ReLU come through as they are. Both are changed in place.
    """
    handed = min(shortcut_DC.shape)
    shortcut_DC[:handed] = torch.eye(handed, shortcut_DC.shape[1])
    bias_D[:handed] = RECTIFIED_MEAN
