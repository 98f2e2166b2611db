"""How skeleton models are fed today: a dense array on disk, views made sample by sample in a Dataset.

Axes: N sample, M body slot, C coordinate, T frame, V joint.
"""

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Dataset

from benchmarks.references.numpy_views import spatial_view, temporal_view

Item = tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32], int]


class Feeder(Dataset[Item]):
    """Samples with their two views, from `array` (.npy, float32 (N, C, T, V, M)) and one label a sample."""

    def __init__(self, array: Path, labels: list[int]) -> None:
        self.data_NCTVM = np.load(array, mmap_mode="r")
        self.labels = labels

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> Item:
        """Original, spatial view, temporal view, each float32 (C, T, V, M), and the label."""
        original_CTVM = np.array(self.data_NCTVM[index], np.float64)
        views = (spatial_view(original_CTVM), temporal_view(original_CTVM))
        original, spatial, temporal = (x.astype(np.float32) for x in (original_CTVM, *views))
        return original, spatial, temporal, self.labels[index]


def loader(dataset: Dataset[Item], batch_size: int) -> "DataLoader[Item]":
    """Shuffled batches without worker processes, put together by the default collate."""
    generator = torch.Generator().manual_seed(0)
    return DataLoader(dataset, batch_size=batch_size, shuffle=True, drop_last=True, generator=generator)
