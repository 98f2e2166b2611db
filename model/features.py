"""What a classifier is given: one vector per sample, from a frozen encoder or from plain statistics.

Axes: N sample, P packed present body, C channel, T frame, V joint, D feature.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from model.cpstn import CPSTN
from model.pooling import mean_over_bodies
from model.streams import STREAMS, streams
from pipeline.loader import Samples, sequential_batches


@dataclass(frozen=True)
class Features:
    """Representations of a part of the data. x_ND: float32.  labels_N: int64."""

    x_ND: Tensor
    labels_N: Tensor

    def take(self, indices_N: NDArray[np.int64]) -> "Features":
        """The given samples only."""
        chosen = torch.from_numpy(indices_N).to(self.x_ND.device)
        return Features(self.x_ND[chosen], self.labels_N[chosen])


@torch.no_grad()
def encoder_features(model: CPSTN, samples: Samples, device: torch.device, batch_size: int = 64) -> Features:
    """h of every sample: the frozen encoder's output, pooled over time and bodies."""
    model.eval()
    parts, labels = [], []
    for batch in sequential_batches(samples, batch_size):
        q_PCTV = model.encode(batch.original_PCTV.to(device))
        parts.append(model.represent(q_PCTV, batch.sample_P.to(device), batch.num_samples))
        labels.append(batch.labels_N)
    return Features(torch.cat(parts), torch.cat(labels).to(device))


@torch.no_grad()
def statistics_features(
    samples: Samples, parents: tuple[int, ...], device: torch.device, batch_size: int = 64
) -> Features:
    """The floor that needs no network: mean, deviation and mean absolute value over time of every coordinate
    of joints, bones and motion, over the whole sequence and each third, mean over present bodies."""
    parts, labels = [], []
    for batch in sequential_batches(samples, batch_size):
        x_PCTV = batch.original_PCTV.to(device)
        streams_PCTV = streams(x_PCTV, STREAMS, parents)
        spans = [streams_PCTV, *streams_PCTV.tensor_split(3, dim=2)]
        pooled = [
            statistic.flatten(1)
            for span in spans
            for statistic in (span.mean(2), span.std(2, correction=0), span.abs().mean(2))
        ]
        parts.append(mean_over_bodies(torch.cat(pooled, dim=1), batch.sample_P.to(device), batch.num_samples))
        labels.append(batch.labels_N)
    return Features(torch.cat(parts), torch.cat(labels).to(device))
