"""A small batch for the baselines.

Axes: N sample, P packed present body, C coordinate, T frame, V joint.
"""

import pytest
import torch

from pipeline.batch import Batch, View

N, C, T, V = 5, 3, 11, 20


@pytest.fixture
def batch() -> Batch:
    """Five samples, one of them with two bodies; the third body comes late and is away for a while."""
    random = torch.Generator().manual_seed(1)
    sample_P = torch.tensor([0, 1, 1, 2, 3, 4])
    original_PCTV, first_PCTV, second_PCTV = torch.randn(3, len(sample_P), C, T, V, generator=random)
    for bodies_PCTV in (original_PCTV, first_PCTV, second_PCTV):
        bodies_PCTV[2, :, :2] = 0
        bodies_PCTV[2, :, 6:8] = 0
    visible_N = torch.tensor([7, 4, 9, 8, 7])
    for body, sample in enumerate(sample_P.tolist()):
        second_PCTV[body, :, visible_N[sample] :] = 0
    views = View("spatial", first_PCTV, torch.full((N,), T)), View("temporal", second_PCTV, visible_N)
    ids_N = torch.tensor([31, 4, 15, 92, 65])
    return Batch(original_PCTV, views, sample_P, ids_N, torch.arange(N) % 3, torch.arange(N), N)
