"""What the page says in numbers, on scores with a known answer."""

from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from model.report.figures import by_fraction
from model.report.saved import SavedEvaluation
from model.report.tables import accuracy_lines, class_gains, class_lines, most_confused, shared_headlines
from tests.model.report.made_up import evaluation_table, full_scores, read_table, score_table

CLASSES = ["sit", "stand", "wave", "walk"]


def read(tmp_path: Path, scores: list[dict[str, Any]], **changes: Any) -> SavedEvaluation:
    return read_table(evaluation_table(scores, **changes), tmp_path)


def of_matrix(tmp_path: Path, confusion: list[list[int]]) -> SavedEvaluation:
    """An evaluation of four classes with this matrix."""
    score = score_table(classes=CLASSES)
    per_class = [row[label] / sum(row) if sum(row) else None for label, row in enumerate(confusion)]
    score |= {"confusion": confusion, "per_class": per_class}
    return read(tmp_path, [score], classes=CLASSES)


def test_runs_stand_side_by_side_and_a_missing_score_leaves_a_hole(tmp_path: Path) -> None:
    full, less = read(tmp_path, full_scores()), read(tmp_path, full_scores(0.01)[:3])
    lines = accuracy_lines({"full": full, "less": less}, "ucla", "xview3")
    assert [line.mode for line in lines] == ["linear"] * 6 + ["knn"] * 2 + ["semi"] * 6 + ["finetune"]
    assert [line.label_fraction for line in lines[:6]] == [1, 1, 1, 0.5, 0.1, 0.01]
    first = lines[0]
    assert [score.top1.mean for score in first.scores if score] == pytest.approx([0.7512, 0.7612])
    assert first.best() == pytest.approx(0.7612)
    assert lines[-1].scores[1] is None
    assert lines[-1].best() is None
    assert [line.features for line in lines[6:8]] == [
        "trained encoder, k\xa0=\xa01",
        "trained encoder, k\xa0=\xa020",
    ]


def test_labels_of_an_id_file_have_a_line_of_their_own(tmp_path: Path) -> None:
    scores = [score_table(fraction=0.1) | {"subset": subset} for subset in (None, "mine.txt")]
    evaluation = read(tmp_path, scores)
    lines = accuracy_lines({"run": evaluation}, "ucla", "xview3")
    assert [line.features for line in lines] == ["trained encoder", "trained encoder, labels of mine.txt"]
    assert [score.subset for score in by_fraction(evaluation, "linear", "trained encoder")] == [None]


def test_other_numbers_of_labels_have_lines_of_their_own(tmp_path: Path) -> None:
    """All labels of a part of the samples are not those of all, nor are as many labels the same share."""
    runs = {
        "whole": read(tmp_path, [score_table(), score_table(fraction=0.1)]),
        "part": read(
            tmp_path, [score_table(fraction=0.1), score_table() | {"labels": 900}], train_samples=900
        ),
        "again": read(tmp_path, [score_table()]),
    }
    lines = accuracy_lines(runs, "ucla", "xview3")
    assert [(line.labels, line.share) for line in lines] == [
        (1020, 1),
        (102, 0.1),
        (900, 1),
        (102, 102 / 900),
    ]
    having = [[place for place, score in enumerate(line.scores) if score] for line in lines]
    assert having == [[0, 2], [0], [1], [1]]


def test_what_one_run_alone_has_comes_last_run_by_run(tmp_path: Path) -> None:
    """Between rows that compare, it would tear these apart."""
    both = [score_table(), score_table(fraction=0.1), score_table("semi", fraction=0.1)]
    first = read(tmp_path, [*both, score_table("knn", k=1), score_table(fraction=0.01)])
    other = read(tmp_path, [score_table(features="trained encoder, whitened"), *both])
    lines = accuracy_lines({"first": first, "other": other}, "ucla", "xview3")
    assert [(line.mode, line.features, line.label_fraction) for line in lines] == [
        ("linear", "trained encoder", 1),
        ("linear", "trained encoder", 0.1),
        ("linear", "trained encoder", 0.01),
        ("linear", "trained encoder, whitened", 1),
        ("semi", "trained encoder", 0.1),
        ("knn", "trained encoder, k\xa0=\xa01", 1),
    ]


@pytest.mark.parametrize(
    "features", ["input statistics", "input statistics, with distances, whitened", "raw coordinates"]
)
def test_no_run_is_best_in_what_no_network_has_part_in(tmp_path: Path, features: str) -> None:
    """Such rows differ by the runs' shards only."""
    runs = {name: read(tmp_path, [score_table(features=features, by_seed=(top1,))])
            for name, top1 in (("a", 0.5), ("b", 0.6))}  # fmt: skip
    assert [line.best() for line in accuracy_lines(runs, "ucla", "xview3")] == [None]


def test_the_share_of_labels_is_what_it_came_to(tmp_path: Path) -> None:
    """A tenth of 177 samples is less than one of each of 60 classes."""
    score = score_table(fraction=0.1) | {"labels": 60}
    (line,) = accuracy_lines({"run": read(tmp_path, [score], train_samples=177)}, "ucla", "xview3")
    assert (line.labels, line.share) == (60, 60 / 177)


def test_the_papers_number_stands_in_its_own_place_only(tmp_path: Path) -> None:
    """Beside an untrained encoder, or on fewer labels, it would be another protocol's."""
    own = {"run": read(tmp_path, full_scores())}
    papers = [line.paper for line in accuracy_lines(own, "ucla", "xview")]
    assert papers == [Decimal("85.12"), *[None] * 14]
    assert not any(line.paper for line in accuracy_lines(own, "ucla", "xview1"))
    whitened = [score_table(), score_table(features="trained encoder, whitened")]
    lines = accuracy_lines({"run": read(tmp_path, whitened)}, "ucla", "xview")
    assert [line.paper for line in lines] == [Decimal("85.12"), None]
    lines = accuracy_lines(own, "ntu120", "xsub")
    semi = {line.label_fraction: line.paper for line in lines if line.mode == "semi" and line.paper}
    assert semi == {0.01: Decimal("48.8"), 0.1: Decimal("56.1"), 0.5: Decimal("67.8")}


def test_one_run_on_a_part_of_a_split_takes_the_papers_number_from_all(tmp_path: Path) -> None:
    """It stands once in a line, beside the scores of every run."""
    runs = {
        "whole": read(tmp_path, [score_table()]),
        "part": read(tmp_path, [score_table()], test_samples=177),
    }
    assert [line.paper for line in accuracy_lines(runs, "ucla", "xview3")] == [None]


def test_confused_pairs_are_those_with_the_most_samples(tmp_path: Path) -> None:
    matrix = [[5, 4, 0, 0], [1, 90, 9, 0], [0, 0, 0, 0], [0, 4, 0, 6]]
    found = of_matrix(tmp_path, matrix)
    pairs = most_confused(found.headlines[0], found.classes, most=3)
    assert [(pair.true, pair.predicted, pair.samples, pair.of) for pair in pairs] == [
        ("stand", "wave", 9, 100),
        ("sit", "stand", 4, 9),
        ("walk", "stand", 4, 10),
    ]
    assert pairs[0].share == 0.09
    found = of_matrix(tmp_path, [[5, 4, 0, 0], [4, 0, 0, 0], [0, 0, 0, 0], [0, 4, 0, 6]])
    first, *_ = most_confused(found.headlines[0], found.classes)
    assert (first.true, first.predicted, first.share) == ("stand", "sit", 1.0)  # of equally many


def test_a_perfect_score_confuses_nothing(tmp_path: Path) -> None:
    found = of_matrix(tmp_path, [[3, 0, 0, 0], [0, 4, 0, 0], [0, 0, 5, 0], [0, 0, 0, 6]])
    assert most_confused(found.headlines[0], found.classes) == []


def test_gains_are_of_the_other_run_over_the_first(tmp_path: Path) -> None:
    first = of_matrix(tmp_path, [[4, 0, 0, 0], [2, 2, 0, 0], [0, 0, 0, 0], [2, 0, 0, 6]])
    other = of_matrix(tmp_path, [[3, 1, 0, 0], [0, 4, 0, 0], [0, 0, 0, 0], [2, 0, 0, 6]])
    scores = [first.headlines[0], other.headlines[0]]
    assert class_gains(scores[0], scores[1], CLASSES) == [("stand", 0.5), ("walk", 0.0), ("sit", -0.25)]
    lines = class_lines(scores, CLASSES)
    assert [(line.name, line.samples, line.accuracies) for line in lines] == [
        ("sit", (4, 4), (1.0, 0.75)),
        ("stand", (4, 4), (0.5, 1.0)),
        ("wave", (0, 0), (None, None)),
        ("walk", (8, 8), (0.75, 0.75)),
    ]


def test_test_samples_of_a_class_are_counted_run_by_run(tmp_path: Path) -> None:
    first, other = (of_matrix(tmp_path, [[n, 0, 0, 0], *[[0, 1, 0, 0]] * 3]) for n in (4, 7))
    lines = class_lines([first.headlines[0], other.headlines[0]], CLASSES)
    assert [line.samples for line in lines] == [(4, 7), (1, 1), (1, 1), (1, 1)]


def test_runs_are_compared_by_class_in_the_best_score_that_both_have(tmp_path: Path) -> None:
    """A gain of fine-tuning over a linear classifier would be taken for one of the pre-training."""
    semi = read(tmp_path, [score_table("semi", fraction=share) for share in (0.1, 0.5)])
    linear, full = read(tmp_path, [score_table()]), read(tmp_path, full_scores())
    less = read(tmp_path, [*full_scores(0.01), score_table("semi", fraction=0.7)])

    def kinds(*evaluations: SavedEvaluation) -> list[tuple[str, float]]:
        found = shared_headlines(dict(zip("abc", evaluations, strict=False)))
        return [(score.mode, score.label_fraction) for score in found or []]

    assert kinds(full, full) == kinds(linear, full) == kinds(full, linear) == [("linear", 1.0)] * 2
    assert kinds(full, less, full) == [("linear", 1.0)] * 3
    assert kinds(semi, less, full) == [("semi", 0.5)] * 3
    assert kinds(linear, semi) == []
    assert kinds(linear, read(tmp_path, [score_table("linear", fraction=0.1)])) == []
