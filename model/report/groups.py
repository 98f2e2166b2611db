"""What a report shows of each data set and protocol, on which several runs may have been evaluated.

Axes: K class.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from model.pictures.confusion import draw_confusion, of_occurring
from model.published import (
    PublishedCurve,
    PublishedRow,
    is_curves_split,
    own_row,
    published_curves,
    published_rows,
    same_split,
)
from model.report.album import Album, Picture
from model.report.datasets import split_title
from model.report.evaluated_shards import copies_text, difference_text, parts_text, sizes_text
from model.report.figures import draw_fractions, draw_gains, has_fractions
from model.report.runs import ReportedRun
from model.report.saved import SavedEvaluation, SavedScore, Spread
from model.report.tables import (
    ClassLine,
    Line,
    Pair,
    accuracy_lines,
    class_gains,
    class_lines,
    has_deviations,
    most_confused,
    shared_headlines,
)
from model.report.words import details_text, feature_notes, mode_title, score_text
from model.scores import INPUT_STATISTICS, LINEAR, MORE_STATISTICS, SUPERVISED, UNTRAINED

# Differences that chance alone makes less often are coloured.
SIGNIFICANT = 0.05


@dataclass(frozen=True)
class Reference:
    """What a run's accuracy is measured against. ahead: points of per cent, below 0 where behind. p: how
    likely chance alone would do that, where it was asked."""

    name: str
    percent: str
    ahead: float
    p: float | None = None

    @property
    def standing(self) -> str:
        """Which side a difference falls on that is more than chance; "level" also where nobody asked."""
        if self.p is None or self.p >= SIGNIFICANT:
            return "level"
        return "ahead" if self.ahead > 0 else "behind"


@dataclass(frozen=True)
class Card:
    """The one number of a run, and what stands beside it. without_copies: None where there are none."""

    run: str
    what: str
    top1: Spread
    without_copies: Spread | None
    references: tuple[Reference, ...]


@dataclass(frozen=True)
class Confusion:
    """A run's confusion matrix in its headline score."""

    run: str
    picture: Picture
    pairs: list[Pair]


@dataclass(frozen=True)
class Gain:
    """How every class fared in one run, measured by another."""

    run: str
    reference: str
    picture: Picture


@dataclass(frozen=True, eq=False)
class Group:
    """Everything on one data set and protocol.

    evaluations: by run, in the order of the runs.  sizes: how many samples train and test.  copies: how many
    test samples are copies, "" where none is.  parts: how many test samples are a part only of the split, ""
    where all are.  shards_differ: that runs were evaluated on different shards, "" where they were not.
    headlines: of which classifiers the confusions and the classes' accuracies are and what these have, in
    words: of one kind where the runs have one in common.
    """

    title: str
    anchor: str
    dataset: str
    protocol: str
    evaluations: dict[str, SavedEvaluation]
    cards: list[Card]
    sizes: str
    copies: str
    parts: str
    shards_differ: str
    lines: list[Line]
    published: list[PublishedRow]
    curves: tuple[PublishedCurve, ...]
    confusions: list[Confusion]
    classes: list[ClassLine]
    headlines: str
    gains: list[Gain]
    fractions: Picture | None

    @property
    def split(self) -> str:
        """Which samples train and which test, where the protocol is a built-in one."""
        return split_title(self.dataset, self.protocol)

    @property
    def significant(self) -> bool:
        """Whether any difference on a card says how likely chance makes it."""
        return any(reference.p is not None for card in self.cards for reference in card.references)

    @property
    def notes(self) -> list[tuple[str, str]]:
        """What the names of features hold that not everybody knows, and what it says."""
        found = [score.features for evaluation in self.evaluations.values() for score in evaluation.scores]
        return feature_notes(found)

    @property
    def deviations(self) -> bool:
        """Whether any score was repeated."""
        return has_deviations(self.lines)

    def has_copies(self, places: Sequence[int]) -> bool:
        """Whether any of the runs in these places was tested on copies of training samples."""
        found = list(self.evaluations.values())
        return any(found[place].copied for place in places)

    def modes(self, run: int | None = None) -> dict[str, list[Line]]:
        """The lines by their mode, in words. run: by its place; then those alone in which it has a score."""
        found: dict[str, list[Line]] = {}
        for line in self.lines:
            if run is None or line.scores[run] is not None:
                found.setdefault(mode_title(line.mode), []).append(line)
        return found


def make_groups(reported: list[ReportedRun], album: Album) -> list[Group]:
    """One for each data set and protocol, by whichever name of it, in the order of the runs."""
    found: dict[tuple[str, str], dict[str, SavedEvaluation]] = {}
    for run in reported:
        for evaluation in run.evaluations:
            keys = [key for key in found if key[0] == evaluation.dataset]
            same = [key for key in keys if same_split(key[0], key[1], evaluation.protocol)]
            # What a run measured under another name of the split stands apart: both files hold rows.
            apart = not same or run.name in found[same[0]]
            key = (evaluation.dataset, evaluation.protocol) if apart else same[0]
            found.setdefault(key, {})[run.name] = evaluation
    return [_group(dataset, protocol, runs, album) for (dataset, protocol), runs in found.items()]


def _group(dataset: str, protocol: str, evaluations: dict[str, SavedEvaluation], album: Album) -> Group:
    first = next(iter(evaluations.values()))
    title, name = f"{first.title}, {protocol}", f"{dataset}-{protocol}"
    same_classes = {run: found for run, found in evaluations.items() if found.classes == first.classes}
    heads = shared_headlines(evaluations) or [found.headlines[0] for found in evaluations.values()]
    over_fractions = {run: found for run, found in evaluations.items() if has_fractions(found)}
    is_table4 = is_curves_split(dataset, protocol)
    fractions = None
    if over_fractions:
        paper = "paper" if is_table4 else "paper, on NTU-120 X-Sub"
        fractions = album.add(
            f"fractions-{name}",
            f"Top-1 accuracy over the fraction of labels on {title}",
            partial(draw_fractions, evaluations=over_fractions, paper=paper),
        )
    return Group(
        title=title,
        anchor=re.sub(r"[^\w-]+", "-", name),
        dataset=dataset,
        protocol=protocol,
        evaluations=evaluations,
        cards=[_card(run, found, dataset, protocol) for run, found in evaluations.items()],
        sizes=sizes_text(evaluations),
        copies=copies_text(evaluations),
        parts=parts_text(evaluations),
        shards_differ=difference_text(evaluations),
        lines=accuracy_lines(evaluations, dataset, protocol),
        published=published_rows(dataset, protocol),
        curves=published_curves() if is_table4 else (),
        confusions=[
            _confusion(run, score, found.classes, title, name, album)
            for (run, found), score in zip(evaluations.items(), heads, strict=True)
        ],
        classes=class_lines(heads, first.classes) if len(same_classes) == len(evaluations) else [],
        headlines=details_text(dict(zip(evaluations, heads, strict=True))),
        gains=_gains(same_classes, title, name, album),
        fractions=fractions,
    )


def _card(run: str, evaluation: SavedEvaluation, dataset: str, protocol: str) -> Card:
    score = evaluation.headlines[0]
    references = []
    for name in (UNTRAINED, INPUT_STATISTICS, MORE_STATISTICS):
        other = evaluation.linear(name, score.labels)
        if other is not None and score.mode in (LINEAR, SUPERVISED):
            ahead = 100 * (score.top1.mean - other.top1.mean)
            p = score.p_untrained if name == UNTRAINED else None
            references.append(Reference(name, f"{100 * other.top1.mean:.1f}", ahead, p))
    own = own_row(dataset, protocol)
    if own is not None and evaluation.is_comparable and (score.mode, score.label_fraction) == (LINEAR, 1):
        ahead = 100 * score.top1.mean - float(own.percent)
        references.append(Reference(f"paper, Table {own.table}", str(own.percent), ahead))
    return Card(run, score_text(score), score.top1, score.top1_without_copies, tuple(references))


def _confusion(
    run: str, score: SavedScore, classes: tuple[str, ...], title: str, name: str, album: Album
) -> Confusion:
    counts_KK, occurring = of_occurring(score.confusion_KK, classes)
    what = score_text(score)
    picture = album.add(
        f"confusion-{name}-{run}",
        f"Confusion matrix of {run} on {title}: {what}",
        partial(
            draw_confusion,
            counts_KK=counts_KK,
            classes=occurring,
            title=f"{run}: {what}",
        ),
    )
    return Confusion(run, picture, most_confused(score, classes))


def _gains(evaluations: dict[str, SavedEvaluation], title: str, name: str, album: Album) -> list[Gain]:
    """Of every other run over the first, in the first score that both have of one kind."""
    (first, reference), *others = evaluations.items()
    found = []
    for run, evaluation in others:
        both = shared_headlines({first: reference, run: evaluation})
        if both is None:
            continue
        gains = class_gains(both[0], both[1], reference.classes)
        if not gains:
            continue
        kind = score_text(both[0])
        picture = album.add(
            f"gains-{name}-{run}",
            f"Gain in accuracy of every class, {run} over {first}, on {title}: {kind}",
            partial(draw_gains, gains=gains, title=f"{run} over {first}\n{kind}"),
        )
        found.append(Gain(run, first, picture))
    return found
