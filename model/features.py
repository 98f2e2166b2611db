"""What a classifier is given: one vector per sample, from a frozen encoder or from plain statistics.

Axes: N sample, P packed present body, C channel, T frame, V joint, D feature, M body slot.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from data_specs.skeleton import Skeleton
from model.batch_norm import FrameNorm
from model.cpstn import CPSTN
from model.device import off_mps
from model.pooling import mean_over_bodies
from model.statistics import SPANS, input_statistics
from model.streams import streams
from pipeline.loader import sequential_batches
from pipeline.samples import Samples

# (P, 3, T, V) metres, the sample of each body, the number of samples -> (N, D) float32.
Extractor = Callable[[Tensor, Tensor, int], Tensor]

Norm = _BatchNorm | FrameNorm

# What the floor is made of, whatever an encoder sees, so that it is the same for all.
FLOOR_STREAMS = ("joint", "bone", "motion")
# Of raw coordinates: NTU's 200 frames of two bodies would be 30,000 numbers a sample.
COORDINATE_FRAMES = 50
# What is fitted without labels, a scatter or means and variances, would not change by more samples.
MOST_FITTED = 10_000


@dataclass(frozen=True)
class Features:
    """Representations of a part of the data. x_ND: float32.  labels_N: int64.

    scaled: how large a feature is says how much it counts, so that a classifier must not standardise it.
    """

    x_ND: Tensor
    labels_N: Tensor
    scaled: bool = False

    def take(self, indices_N: NDArray[np.int64]) -> "Features":
        """The given samples only."""
        chosen = torch.from_numpy(indices_N).to(self.x_ND.device)
        return Features(self.x_ND[chosen], self.labels_N[chosen], self.scaled)


# Of the training and of the test samples.
Pair = tuple[Features, Features]


def encoder_extractor(model: CPSTN) -> Extractor:
    """h: the frozen encoder's output, pooled over time and bodies, and whitened where the model says how."""

    def extract(x_PCTV: Tensor, sample_P: Tensor, num_samples: int) -> Tensor:
        h_ND = model.representation(x_PCTV, sample_P, num_samples)
        return h_ND if model.whitening is None else model.whitening(h_ND)

    return extract


def statistics_extractor(skeleton: Skeleton, names: tuple[str, ...] = FLOOR_STREAMS) -> Extractor:
    """The floor that needs no network: mean, deviation and mean absolute value over time of every coordinate
    of these streams, over the whole sequence and each third, mean over present bodies."""

    return extractor_of(lambda x_PCTV: input_statistics(x_PCTV, SPANS), skeleton, names)


def extractor_of(
    measure: Callable[[Tensor], Tensor], skeleton: Skeleton, names: tuple[str, ...]
) -> Extractor:
    """What `measure` makes of a body's streams, (P, C, T, V) -> (P, D), mean over present bodies."""

    def extract(x_PCTV: Tensor, sample_P: Tensor, num_samples: int) -> Tensor:
        measured_PD = measure(streams(x_PCTV, names, skeleton))
        return mean_over_bodies(measured_PD, sample_P, num_samples)

    return extract


def coordinates_extractor(max_bodies: int) -> Extractor:
    """The least that a classifier can be given: every coordinate of every joint of every body slot, zeros
    where a body is absent, at up to COORDINATE_FRAMES moments (means of neighbouring frames)."""

    def extract(x_PCTV: Tensor, sample_P: Tensor, num_samples: int) -> Tensor:
        frames, joints = x_PCTV.shape[2:]
        # MPS averages only where the moments divide the frames.
        moments_PCTV = F.adaptive_avg_pool2d(off_mps(x_PCTV), (min(frames, COORDINATE_FRAMES), joints))
        x_PCTV = moments_PCTV.to(x_PCTV.device)
        order_P = torch.argsort(sample_P, stable=True)
        x_PD, sample_P = x_PCTV.flatten(1)[order_P], sample_P[order_P]
        first_N = torch.searchsorted(sample_P, torch.arange(num_samples, device=sample_P.device))
        slot_P = torch.arange(len(sample_P), device=sample_P.device) - first_N[sample_P]
        slots_NMD = x_PD.new_zeros(num_samples, max_bodies, x_PD.shape[1])
        slots_NMD[sample_P, slot_P] = x_PD
        return slots_NMD.flatten(1)

    return extract


def enough_to_fit(samples: Samples) -> Samples:
    """At most MOST_FITTED of them: the first, which lie in the order of their rows, a random one."""
    return samples if len(samples) <= MOST_FITTED else samples.take(np.arange(MOST_FITTED))


def batch_norms(module: nn.Module) -> list[Norm]:
    """All batch normalisation in it."""
    return [part for part in module.modules() if isinstance(part, Norm)]


@torch.no_grad()
def measure_norms(norms: list[Norm], extractor: Extractor, samples: Samples, device: torch.device) -> None:
    """Statistics of batch normalisation, in place: a plain average over batches, about equally large, of
    training samples as they are stored, at most MOST_FITTED. extractor: what they are a part of. They are
    left in evaluation."""
    samples = enough_to_fit(samples)
    batches = -(-len(samples) // 64)
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None
        norm.train()
    for batch in sequential_batches(samples, -(-len(samples) // batches)):
        extractor(batch.original_PCTV.to(device), batch.sample_P.to(device), batch.num_samples)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum  # by which further training lets these statistics fade
        norm.eval()


def encoder_features(model: CPSTN, samples: Samples, device: torch.device, batch_size: int = 64) -> Features:
    """h of every sample, as `encoder_extractor` says; the model is left in eval mode."""
    return extract_features(encoder_extractor(model.eval()), samples, device, batch_size)


def check_finite(name: str, *parts: Features) -> None:
    """Raises RuntimeError if a feature of this name is no number."""
    if not all(bool(part.x_ND.isfinite().all()) for part in parts):
        raise RuntimeError(f"{name}: features of some samples are no numbers; nothing can be classified")


def extract_features(
    extractor: Extractor, samples: Samples, device: torch.device, batch_size: int = 64
) -> Features:
    """Features of every sample, in one pass over the bodies as stored."""
    x_ND = torch.cat(list(extracted(extractor, samples, device, batch_size)))
    return Features(x_ND, torch.tensor(samples.labels_N, device=device))


@torch.no_grad()
def extracted(
    extractor: Extractor, samples: Samples, device: torch.device, batch_size: int = 64
) -> Iterator[Tensor]:
    """`extract_features` batch by batch: (N, D) of a batch's samples, in their order."""
    for batch in sequential_batches(samples, batch_size):
        x_PCTV, sample_P = batch.original_PCTV.to(device), batch.sample_P.to(device)
        yield extractor(x_PCTV, sample_P, batch.num_samples)
