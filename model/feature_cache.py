"""Features on disk, so that a second evaluation of a run does not encode anything again.

RUN/features/NAME-DIGEST.npz; the digest is of everything that the features depend on, so that what lies there
is right or not found. A damaged file is as good as none.

Axes: N sample, D feature.
"""

import errno
import hashlib
import json
import re
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from model.checkpoint import Checkpoint
from model.features import Extractor, Features, extract_features
from pipeline.samples import Samples
from pipeline.store.publish import published
from pipeline.store.shards import Shards

# Increased by one whenever an extractor gives other numbers than before.
FEATURES_VERSION = 2
# What a part's features may take on disk: more than twice those of NTU-120 by an encoder of 128 channels.
MOST_BYTES = 2 * 10**9
# Of a run in which we may not write: then the next evaluation encodes again.
NOT_OURS = (errno.EACCES, errno.EPERM, errno.EROFS)


def cache_of(folder: Path, shards: Shards, checkpoint: Checkpoint, train: Samples) -> "FeatureCache":
    """The features of a run's encoder, trained and untrained, and of the input itself.

    train: the protocol's training samples, on which batch normalisation's statistics are measured.
    """
    identity = {
        "weights": checkpoint.weights_digest,
        "recipe": checkpoint.recipe().to_table(),
        "shards": shards.manifest.digest,
        "calibrated_on": hashlib.sha256(train.rows_N.tobytes()).hexdigest(),
    }
    return FeatureCache(folder, identity)


@dataclass(frozen=True)
class FeatureCache:
    """Features of one data set under one run. identity: of encoder and shards, plain data for JSON."""

    folder: Path
    identity: dict[str, Any]

    def features(
        self, name: str, extractor: Extractor, samples: Samples, device: torch.device, batch_size: int = 64
    ) -> Features:
        """`extract_features`, or what it gave before. name: of the extractor; its own for each."""
        found = self.stored(name, samples, device, batch_size)
        if found is not None:
            return found
        path = self._path(name, samples, device, batch_size)
        features = extract_features(extractor, samples, device, batch_size)
        x_ND = features.x_ND.cpu().numpy()
        if x_ND.nbytes <= MOST_BYTES:
            try:
                with published(path) as temporary, temporary.open("wb") as file:
                    np.savez(file, x_ND=x_ND)
            except OSError as error:
                if error.errno not in NOT_OURS:
                    raise
        return features

    def stored(
        self, name: str, samples: Samples, device: torch.device, batch_size: int = 64
    ) -> Features | None:
        """What an extractor of that name gave before; None where it was not asked, or the file is damaged."""
        found = _read(self._path(name, samples, device, batch_size), len(samples))
        if found is None:
            return None
        return Features(found.to(device), torch.tensor(samples.labels_N, device=device))

    def _path(self, name: str, samples: Samples, device: torch.device, batch_size: int) -> Path:
        facts = {
            "version": FEATURES_VERSION,
            "of": self.identity,
            "name": name,
            "device": device.type,
            "batch": batch_size,
            "rows": hashlib.sha256(samples.rows_N.tobytes()).hexdigest(),
        }
        digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()
        return self.folder / f"{re.sub(r'[^a-z]+', '-', name.lower())}-{digest[:16]}.npz"


def _read(path: Path, num_samples: int) -> torch.Tensor | None:
    """The stored features; None if there are none, or the file is not whole."""
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as content:
            x_ND = content["x_ND"]
    except (OSError, RuntimeError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None
    fits = x_ND.dtype == np.float32 and x_ND.ndim == 2 and len(x_ND) == num_samples
    return torch.from_numpy(x_ND) if fits else None
