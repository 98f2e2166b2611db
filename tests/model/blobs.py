"""Features with a known answer."""

import torch

from model.features import Features

# N sample, D feature, K class
D, K = 7, 4


def blobs(samples: int, spread: float, seed: int) -> Features:
    """Classes around K fixed places."""
    places_KD = torch.randn(K, D, generator=torch.Generator().manual_seed(11)) * 3
    random = torch.Generator().manual_seed(seed)
    labels_N = torch.arange(samples) % K
    return Features(places_KD[labels_N] + spread * torch.randn(samples, D, generator=random), labels_N)
