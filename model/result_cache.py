"""Results on disk, RUN/results, so that an evaluation that was stopped, or is asked for more, measures only
what is missing.

Axes: R result, N test sample, K class.
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from model.checkpoint import Checkpoint
from model.classify import LINEAR_VERSION
from model.feature_cache import FEATURES_VERSION, identity_of_features
from model.kept import Kept, digest_of_rows
from model.scores import Result
from model.whitening import WHITENING_VERSION
from pipeline.samples import Samples
from pipeline.store.shards import Shards

# Increased by one whenever neighbours or fine-tuning give other results than before; linear classifiers,
# features and whitening have versions of their own.
RESULTS_VERSION = 1


def ways_to_measure() -> dict[str, int]:
    """What results of another version of this program may have been measured by, and were not by this one."""
    return {
        "results": RESULTS_VERSION,
        "features": FEATURES_VERSION,
        "linear": LINEAR_VERSION,
        "whitening": WHITENING_VERSION,
    }


def results_of(
    folder: Path, shards: Shards, checkpoint: Checkpoint, train: Samples, device: torch.device
) -> "ResultCache":
    """What is measured of a run on one protocol of these shards, whose training samples are `train`."""
    identity = identity_of_features(shards, checkpoint, train) | {
        "ways": ways_to_measure(),
        "device": device.type,
    }
    return ResultCache(Kept(folder, identity))


@dataclass
class ResultCache:
    """reused, measured: how many results were there, and how many were not."""

    kept: Kept
    reused: int = 0
    measured: int = 0

    def results(
        self,
        what: Mapping[str, Any],
        labelled: Samples,
        test: Samples,
        measure: Callable[[], Sequence[Result]],
    ) -> list[Result]:
        """What `measure` gives, or gave before.

        what: all that decides it beside the run, the labelled samples and the test samples, as plain data for
        JSON; its values that are words name the file.
        """
        facts = {"what": what, "labelled": _digest(labelled), "test": _digest(test)}
        name = " ".join(value for value in what.values() if isinstance(value, str))
        found = _unpacked(self.kept.read(name, facts), len(test))
        if found:
            self.reused += len(found)
            return found
        results = list(measure())
        self.kept.write(
            name,
            facts,
            hit_RN=np.stack([result.hit_N for result in results]),
            top5_R=_numbers([result.top5 for result in results]),
            confusion_RKK=np.stack([result.confusion_KK for result in results]),
            penalty_R=_numbers([result.penalty for result in results]),
        )
        self.measured += len(results)
        return results


def _digest(samples: Samples) -> list[str]:
    """Of the samples and their labels."""
    return [digest_of_rows(samples), hashlib.sha256(samples.labels_N.tobytes()).hexdigest()]


def _numbers(values: Sequence[float | None]) -> np.ndarray[Any, np.dtype[np.float64]]:
    """float64, NaN for None."""
    return np.array([np.nan if value is None else value for value in values], np.float64)


def _unpacked(content: Mapping[str, Any], num_tested: int) -> list[Result]:
    """What was written; nothing if it is something else."""
    try:
        hit_RN, confusion_RKK = content["hit_RN"], content["confusion_RKK"]
        top5_R, penalty_R = (
            [None if np.isnan(value) else float(value) for value in content[name]]
            for name in ("top5_R", "penalty_R")
        )
    except KeyError:
        return []
    if hit_RN.shape[1] != num_tested or (confusion_RKK.sum((1, 2)) != num_tested).any():
        return []
    rows = zip(hit_RN, top5_R, confusion_RKK, penalty_R, strict=True)
    return [Result(hit_N, top5, confusion_KK, penalty) for hit_N, top5, confusion_KK, penalty in rows]
