"""Several runs as one classifier, fused late: each encoder has a linear classifier of its own, and the mean
of their probabilities decides, as results of several streams are made (joints, bones and motion, say).

Axes: N sample, K class.
"""

from collections.abc import Callable, Sequence

import torch

from model.classify import fit_chosen
from model.features import Pair
from model.scores import LINEAR, Score, result_of_scores
from model.subset import Labelled


def fused_scores(
    kind: str,
    features: Sequence[Pair],
    others: Sequence[str],
    labelled: Sequence[Labelled],
    performances: Sequence[str],
    num_classes: int,
    on_stage: Callable[[str], None] = lambda _: None,
) -> list[Score]:
    """Linear evaluation of all runs' features of one kind together, on every set of labels.

    kind: what the features are, such as "trained encoder".  features: of this run and of the others, whose
    names are given; all of the same samples in the same order.  performances: of the training samples.
    """
    name = f"{kind}s, fused with {' + '.join(others)}"
    scores = []
    for labels in labelled:
        count = len(labels.sets[0])
        on_stage(f"linear classifiers on {count:,} labels, {name}")
        results = []
        for chosen in labels.sets:
            shown = [performances[index] for index in chosen]
            log_probabilities = [
                fit_chosen(train.take(chosen), num_classes, shown).scores(test.x_ND).log_softmax(1)
                for train, test in features
            ]
            _, test = features[0]
            total_NK = torch.stack(log_probabilities).logsumexp(0)
            results.append(result_of_scores(total_NK, test.labels_N))
        row = Score(LINEAR, name, None, labels.fraction, count, tuple(results), labels.subset, tuple(others))
        scores.append(row)
    return scores
