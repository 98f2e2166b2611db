"""How well test samples were classified: one result, and the row that sums up its repetitions.

Axes: N test sample, K class.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

# Modes, and what is classified, as they are called in tables and files.
LINEAR, KNN, SEMI, FINETUNE, SUPERVISED = "linear", "knn", "semi", "finetune", "supervised"
MODES = (LINEAR, KNN, SEMI, FINETUNE)  # that can be asked for
TRAINED, UNTRAINED = ENCODERS = "trained encoder", "untrained encoder"
INPUT_STATISTICS, COORDINATES = "input statistics", "raw coordinates"
# Where the encoder sees distances, too: see `model.streams`.
MORE_STATISTICS = "input statistics, with distances"
FROM_LABELS = "encoder and linear layer"
# What stands for a run, the first of these that it has: of a supervised one, what it was trained to be.
HEADLINES = ((SUPERVISED, FROM_LABELS), (LINEAR, TRAINED), (SEMI, TRAINED), (FINETUNE, TRAINED))

Curve = NDArray[np.float64]
Row = TypeVar("Row")


@dataclass(frozen=True, eq=False)
class Result:
    """One classifier's success.

    hit_N: bool, whether each test sample's class was found.
    top5: share of test samples, 0 to 1; None where only one class is named, or there are no more than five.
    confusion_KK: int64, test samples, true class down, predicted across.
    penalty: that the training labels chose for one linear classifier; None of any other.
    """

    hit_N: NDArray[np.bool_]
    top5: float | None
    confusion_KK: NDArray[np.int64]
    penalty: float | None = None

    @property
    def top1(self) -> float:
        """Share of test samples, 0 to 1."""
        return float(self.hit_N.mean())

    @property
    def macro_f1(self) -> float:
        """F1 of each class that is tested or named, averaged; a class never hit has 0."""
        hits_K = np.diag(self.confusion_KK)
        named_or_true_K = self.confusion_KK.sum(0) + self.confusion_KK.sum(1)
        occurs_K = named_or_true_K > 0
        return float((2 * hits_K[occurs_K] / named_or_true_K[occurs_K]).mean())

    @property
    def per_class(self) -> Curve:
        """Share of each class's test samples that were found, float64 (K,); NaN of a class without any."""
        tested_K = self.confusion_KK.sum(1)
        with np.errstate(invalid="ignore"):
            shares_K: Curve = np.diag(self.confusion_KK) / tested_K
        return shares_K


@dataclass(frozen=True, eq=False)
class Score:
    """One row of the result table: a mode on some features with some labels, over its repetitions.

    mode: one of MODES, or SUPERVISED.  features: what was classified.
    k: of the nearest neighbours, else None.  label_fraction: of all training labels; labels: how many.
    subset: the id files that name these, None where they were drawn here.  fused: the other runs whose
    classifiers decide, too, by name.
    """

    mode: str
    features: str
    k: int | None
    label_fraction: float
    labels: int
    results: tuple[Result, ...]
    subset: str | None = None
    fused: tuple[str, ...] = ()

    @property
    def top1(self) -> float:
        return float(np.mean([result.top1 for result in self.results]))

    @property
    def confusion(self) -> NDArray[np.int64]:
        """The repetitions' confusion matrices added up."""
        total_KK: NDArray[np.int64] = np.sum([result.confusion_KK for result in self.results], axis=0)
        return total_KK

    def to_table(self, copied_N: NDArray[np.bool_]) -> dict[str, Any]:
        """Plain data for JSON, accuracies as shares of 1.

        copied_N: which test samples hold the very numbers of a training sample. top1_without_copies is the
        share of the others, None where there are no copies, or nothing else.
        """
        per_class_K = np.mean([result.per_class for result in self.results], axis=0)
        top5 = [result.top5 for result in self.results if result.top5 is not None]
        penalties = [result.penalty for result in self.results if result.penalty is not None]
        return {
            "mode": self.mode,
            "features": self.features,
            "k": self.k,
            "label_fraction": self.label_fraction,
            "labels": self.labels,
            "subset": self.subset,
            "fused": list(self.fused),
            "seeds": len(self.results),
            "penalties": penalties or None,
            "top1": _summary([result.top1 for result in self.results]),
            "top1_without_copies": self._top1_of(~copied_N) if copied_N.any() else None,
            "top5": _summary(top5) if top5 else None,
            "macro_f1": _summary([result.macro_f1 for result in self.results]),
            "per_class": [None if np.isnan(share) else float(share) for share in per_class_K],
            "confusion": self.confusion.tolist(),
        }

    def _top1_of(self, chosen_N: NDArray[np.bool_]) -> dict[str, Any] | None:
        """On some of the test samples; None of none."""
        if not chosen_N.any():
            return None
        return _summary([float(result.hit_N[chosen_N].mean()) for result in self.results])


def _summary(values: list[float]) -> dict[str, Any]:
    """Mean and sample standard deviation; the latter is None of a single value."""
    deviation = float(np.std(values, ddof=1)) if len(values) > 1 else None
    return {"mean": float(np.mean(values)), "deviation": deviation, "by_seed": values}


def headlines_of(rows: Iterable[Row], facts: Callable[[Row], tuple[str, str, int]]) -> list[Row]:
    """Those that may stand for a run, the first one before all: as HEADLINES, and of one kind the most labels
    first. facts: a row's mode, features and labels."""
    found = sorted(rows, key=lambda row: -facts(row)[2])
    return [row for kind in HEADLINES for row in found if facts(row)[:2] == kind]


def result_of_scores(scores_NK: Tensor, labels_N: Tensor, penalty: float | None = None) -> Result:
    """From the score of every class for each test sample: float, the higher the likelier; of a class that the
    classifier does not know -inf.

    labels_N: int64.  penalty: of the classifier. There is no top-5 of five classes or fewer.
    """
    num_classes, top5 = scores_NK.shape[1], None
    if num_classes > 5:
        score_NF, class_NF = scores_NK.topk(5, dim=1)
        found_NF = (class_NF == labels_N[:, None]) & (score_NF > -torch.inf)
        top5 = float(found_NF.any(1).float().mean())
    return _result(scores_NK.argmax(1), labels_N, num_classes, top5, penalty)


def result_of_classes(predicted_N: Tensor, labels_N: Tensor, num_classes: int) -> Result:
    """From the one class that was named for each test sample; both int64 class indices. No top-5."""
    return _result(predicted_N, labels_N, num_classes, None, None)


def _result(
    predicted_N: Tensor, labels_N: Tensor, num_classes: int, top5: float | None, penalty: float | None
) -> Result:
    hit_N = (predicted_N == labels_N).cpu().numpy()
    return Result(hit_N, top5, count_confusion(predicted_N, labels_N, num_classes), penalty)


def count_confusion(predicted_N: Tensor, labels_N: Tensor, num_classes: int) -> NDArray[np.int64]:
    """Counts, true class down, predicted across: int64 (K, K). Both arguments int64 class indices."""
    pairs = torch.bincount(labels_N * num_classes + predicted_N, minlength=num_classes**2)
    return pairs.reshape(num_classes, num_classes).cpu().numpy()
