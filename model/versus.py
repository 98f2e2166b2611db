"""Whether training made a difference that chance would not make: one encoder, trained and untrained, asked
about the same test samples.

Axes: N test sample.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from scipy.stats import binomtest

from model.scores import TRAINED, UNTRAINED, Score


@dataclass(frozen=True)
class Versus:
    """Of the test samples on which the two disagree, how many training won and how many it lost.

    Copies of training samples count, too; one that both remember is among neither.
    """

    won: int
    lost: int

    @property
    def p(self) -> float:
        """McNemar's exact test, two-sided: how often coins would share the samples out as unevenly."""
        return float(binomtest(self.won, self.won + self.lost).pvalue) if self.won + self.lost else 1.0

    def to_table(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return {"won": self.won, "lost": self.lost, "p": self.p}


def versus_untrained(score: Score, scores: Sequence[Score]) -> Versus | None:
    """A score of a trained encoder beside that of the same one untrained.

    None of other scores, without such a counterpart, or where either was repeated: over several sets of
    labels or seeds, the spread says what chance does.
    """
    if not score.features.startswith(TRAINED):
        return None
    wanted = _kind(replace(score, features=UNTRAINED + score.features.removeprefix(TRAINED)))
    other = next((one for one in scores if _kind(one) == wanted), None)
    if other is None or len(score.results) > 1 or len(other.results) > 1:
        return None
    hit_N, other_hit_N = score.results[0].hit_N, other.results[0].hit_N
    return Versus(int(np.sum(hit_N & ~other_hit_N)), int(np.sum(other_hit_N & ~hit_N)))


def _kind(score: Score) -> tuple[object, ...]:
    return score.mode, score.features, score.k, score.label_fraction, score.labels
