"""Features on disk, so that a second evaluation of a run does not encode anything again: RUN/features.

Axes: N sample, D feature.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from model.checkpoint import Checkpoint
from model.features import Extractor, Features, extract_features
from model.kept import Kept, digest_of_rows
from model.whitening import WHITENING_VERSION
from pipeline.samples import Samples
from pipeline.store.shards import Shards

# Increased by one whenever an extractor gives other numbers than before. 3: batch normalisation is measured
# in equal batches.
FEATURES_VERSION = 3
# What a part's features may take on disk: more than twice those of NTU-120 by an encoder of 128 channels.
MOST_BYTES = 2 * 10**9


def cache_of(folder: Path, shards: Shards, checkpoint: Checkpoint, train: Samples) -> "FeatureCache":
    """The features of a run's encoder, trained and untrained, and of the input itself.

    train: the protocol's training samples, on which batch normalisation's statistics are measured.
    """
    return FeatureCache(Kept(folder, identity_of_features(shards, checkpoint, train)))


def identity_of_features(shards: Shards, checkpoint: Checkpoint, train: Samples) -> dict[str, Any]:
    """What all features of a run depend on, as plain data for JSON. train: see `cache_of`."""
    return {
        "weights": checkpoint.weights_digest,
        "recipe": checkpoint.recipe().to_table(),
        "shards": shards.manifest.digest,
        "calibrated_on": digest_of_rows(train),
    }


@dataclass(frozen=True)
class FeatureCache:
    """Features of one data set under one run."""

    kept: Kept

    def features(
        self, name: str, extractor: Extractor, samples: Samples, device: torch.device, batch_size: int = 64
    ) -> Features:
        """`extract_features`, or what it gave before. name: of the extractor; its own for each."""
        found = self.stored(name, samples, device, batch_size)
        if found is not None:
            return found
        features = extract_features(extractor, samples, device, batch_size)
        x_ND = features.x_ND.cpu().numpy()
        if x_ND.nbytes <= MOST_BYTES:
            self.kept.write(name, _facts(name, samples, device, batch_size), x_ND=x_ND)
        return features

    def stored(
        self, name: str, samples: Samples, device: torch.device, batch_size: int = 64
    ) -> Features | None:
        """What an extractor of that name gave before; None where it was not asked, or the file is damaged."""
        content = self.kept.read(name, _facts(name, samples, device, batch_size))
        x_ND = content.get("x_ND", np.empty(0))
        if x_ND.dtype != np.float32 or x_ND.ndim != 2 or len(x_ND) != len(samples):
            return None
        return Features(torch.from_numpy(x_ND).to(device), torch.tensor(samples.labels_N, device=device))


def _facts(name: str, samples: Samples, device: torch.device, batch_size: int) -> dict[str, Any]:
    return {
        "version": [FEATURES_VERSION, WHITENING_VERSION],  # what an encoder gives may be whitened
        "name": name,
        "device": device.type,
        "batch": batch_size,
        "rows": digest_of_rows(samples),
    }
