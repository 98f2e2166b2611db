"""What the page says in numbers: accuracies of all runs side by side, confused pairs, gains of every class.

Axes: K class.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from operator import attrgetter
from typing import NamedTuple

import numpy as np

from model.published import is_curves_split, own_curve, own_row
from model.report.saved import SavedEvaluation, SavedScore
from model.report.words import MODES, feature_text
from model.scores import LINEAR, SEMI

# By the name of the run.
Evaluations = Mapping[str, SavedEvaluation]


class Kind(NamedTuple):
    """What scores of several runs have in common that stand in one line. See `SavedScore`."""

    mode: str
    features: str
    k: int | None
    label_fraction: float
    labels: int
    share: float
    subset: str | None


kind_of = attrgetter(*Kind._fields)


@dataclass(frozen=True, eq=False)
class Line:
    """One row of the table of accuracies.

    share: of the training samples that have labels.  scores: of every run, None where it has no such score.
    paper: the paper's own method in this place.
    """

    mode: str
    features: str
    label_fraction: float
    labels: int
    share: float
    scores: tuple[SavedScore | None, ...]
    paper: Decimal | None

    def best(self) -> float | None:
        """The highest mean top-1 where runs differ; None of what no network has part in."""
        means = [score.top1.mean for score in self.scores if score is not None and score.of_network]
        return max(means) if len(set(means)) > 1 else None


@dataclass(frozen=True)
class Pair:
    """Samples of one class that were taken for another. share: of the true class, over all seeds."""

    true: str
    predicted: str
    samples: int
    of: int

    @property
    def share(self) -> float:
        return self.samples / self.of


@dataclass(frozen=True)
class ClassLine:
    """One class's accuracy in every run; None without test samples, or where a run has none.

    samples: that test, in every run.
    """

    name: str
    samples: tuple[int, ...]
    accuracies: tuple[float | None, ...]


def accuracy_lines(evaluations: Evaluations, dataset: str, protocol: str) -> list[Line]:
    """One line for each kind of score that any run has; by mode, the most labels first.

    Of several runs, what one alone has comes last: modes, and lines within a mode, run by run.
    """
    found: dict[Kind, dict[str, SavedScore]] = {}
    for name, evaluation in evaluations.items():
        for score in evaluation.scores:
            found.setdefault(Kind(*kind_of(score)), {})[name] = score
    modes = [*MODES, *dict.fromkeys(kind.mode for kind in found if kind.mode not in MODES)]
    features = list(dict.fromkeys(kind.features for kind in found))
    names = list(evaluations)
    runs_with = {mode: {run for kind in found if kind.mode == mode for run in found[kind]} for mode in modes}
    kinds = sorted(
        found,
        key=lambda kind: (
            len(runs_with[kind.mode]) == 1,
            modes.index(kind.mode),
            names.index(next(iter(found[kind]))) if len(found[kind]) == 1 else -1,
            -kind.labels,
            -kind.label_fraction,
            kind.subset or "",
            kind.k or 0,
            features.index(kind.features),
        ),
    )
    lines, comparable = [], all(evaluation.is_comparable for evaluation in evaluations.values())
    for kind in kinds:
        scores = tuple(found[kind].get(run) for run in evaluations)
        some = next(score for score in scores if score)
        paper = _paper(some, dataset, protocol) if comparable else None
        shown = feature_text(kind.features, kind.k, kind.subset)
        lines.append(Line(kind.mode, shown, kind.label_fraction, kind.labels, kind.share, scores, paper))
    return lines


def has_deviations(lines: Sequence[Line]) -> bool:
    """Whether any score was repeated, so that deviations need room."""
    scores = [score for line in lines for score in line.scores if score is not None]
    return any(score.top1.deviation is not None for score in scores)


def most_confused(score: SavedScore, classes: Sequence[str], most: int = 5) -> list[Pair]:
    """The pairs with the most samples of one class taken for the other; of equally many those first that are
    the larger share of their class, then by class."""
    wrong_KK = score.confusion_KK.copy()
    np.fill_diagonal(wrong_KK, 0)
    of_K = score.confusion_KK.sum(axis=1)
    of_KK = np.broadcast_to(of_K[:, None], wrong_KK.shape)
    order = np.lexsort((of_KK.ravel(), -wrong_KK.ravel()))[:most]
    pairs = []
    for true, predicted in zip(*np.unravel_index(order, wrong_KK.shape), strict=True):
        if wrong_KK[true, predicted]:
            samples, of = int(wrong_KK[true, predicted]), int(of_K[true])
            pairs.append(Pair(classes[true], classes[predicted], samples, of))
    return pairs


def class_lines(scores: Sequence[SavedScore], classes: Sequence[str]) -> list[ClassLine]:
    """Every class's accuracy in one score of each run."""
    counts = [score.test_counts().tolist() for score in scores]
    return [
        ClassLine(
            name,
            tuple(counts_K[label] for counts_K in counts),
            tuple(_accuracy(score, label) for score in scores),
        )
        for label, name in enumerate(classes)
    ]


def class_gains(reference: SavedScore, other: SavedScore, classes: Sequence[str]) -> list[tuple[str, float]]:
    """Accuracy of each class in `other` less that in `reference`, shares of 1, the largest gain first.

    Classes without test samples are left out.
    """
    gain_K = other.per_class_K - reference.per_class_K
    gains = [(name, float(gain)) for name, gain in zip(classes, gain_K, strict=True)]
    return sorted((pair for pair in gains if np.isfinite(pair[1])), key=lambda pair: -pair[1])


def shared_headlines(evaluations: Evaluations) -> list[SavedScore] | None:
    """One score of each run, all of one mode and share of labels so that they can be compared: the first of
    the first run's headlines that every run has. None where they have none in common."""
    heads = [evaluation.headlines for evaluation in evaluations.values()]
    kinds = [[(score.mode, score.label_fraction) for score in scores] for scores in heads]
    for kind in kinds[0]:
        if all(kind in found for found in kinds):
            return [scores[found.index(kind)] for scores, found in zip(heads, kinds, strict=True)]
    return None


def _accuracy(score: SavedScore, label: int) -> float | None:
    share = float(score.per_class_K[label])
    return None if np.isnan(share) else share


def _paper(score: SavedScore, dataset: str, protocol: str) -> Decimal | None:
    """What the paper's method has in the place of this score, in per cent."""
    if not score.of_trained:
        return None
    if score.mode == LINEAR and score.label_fraction == 1:
        row = own_row(dataset, protocol)
        return row.percent if row else None
    if score.mode == SEMI and is_curves_split(dataset, protocol):
        percent = round(100 * score.label_fraction, 6)
        return own_curve().top1.get(int(percent)) if percent == int(percent) else None
    return None
