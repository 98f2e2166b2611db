"""The report's pictures, judged by their pixels.

Axes: Y X pixel, C colour, N sample, S step.
"""

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from model.report.curves import Curve
from model.report.embedding import Embedding, dense_place, free_place, most_frequent, on_a_plane
from model.report.figures import (
    CLASS_COLOURS,
    GAIN,
    LOSS,
    MOST_BARS,
    RUN_COLOURS,
    by_fraction,
    draw_curves,
    draw_embedding,
    draw_fractions,
    draw_gains,
    has_fractions,
)
from model.report.saved import SavedEvaluation
from tests.model.report.made_up import evaluation_table, full_scores, read_table, score_table


def read(path: Path) -> NDArray[np.uint8]:
    with Image.open(path, formats=["PNG"]) as picture:
        return np.asarray(picture.convert("RGB"))


def where(path: Path, colour: str) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """(y, x) of the pixels of exactly this colour."""
    rgb = [int(colour[start : start + 2], 16) for start in (1, 3, 5)]
    y, x = np.nonzero((read(path) == np.array(rgb)).all(axis=2))
    return y, x


def curve(level: float) -> Curve:
    steps_S = np.arange(1, 101)
    return Curve(steps_S, level + 1 / steps_S)


@pytest.fixture
def evaluation(tmp_path: Path) -> SavedEvaluation:
    return read_table(evaluation_table(full_scores()), tmp_path)


def test_every_run_has_its_colour_and_the_higher_loss_is_above(tmp_path: Path) -> None:
    path = tmp_path / "x.png"
    draw_curves(path, {"low $_{run": {"total": curve(1)}, "_high": {"total": curve(5)}})
    (low_y, low_x), (high_y, _) = where(path, RUN_COLOURS[0]), where(path, RUN_COLOURS[1])
    assert np.median(high_y) < np.median(low_y)
    assert low_x.max() - low_x.min() > 400


def test_losses_have_a_panel_each_and_runs_need_not_have_the_same(tmp_path: Path) -> None:
    one, both = tmp_path / "one.png", tmp_path / "both.png"
    draw_curves(one, {"run": {"total": curve(1)}})
    draw_curves(both, {"run": {"total": curve(1)}, "other": {"total": curve(2), "cross_entropy": curve(2)},
                       "third": {"total": curve(2), "contrast": curve(1)}})  # fmt: skip
    assert read(both).shape[0] > 1.5 * read(one).shape[0]


def test_a_gain_is_blue_to_the_right_and_a_loss_orange_to_the_left(tmp_path: Path) -> None:
    path = tmp_path / "x.png"
    draw_gains(path, [("sit down", 0.2), ("stand_up $", -0.1)], title="b over $a_{")
    (gain_y, gain_x), (loss_y, loss_x) = where(path, GAIN), where(path, LOSS)
    assert gain_x.min() > loss_x.max()
    assert gain_y.max() < loss_y.min()
    assert np.ptp(gain_x) == pytest.approx(2 * np.ptp(loss_x), rel=0.02)


def test_of_many_classes_the_outermost_are_drawn(tmp_path: Path) -> None:
    path, few = tmp_path / "x.png", tmp_path / "few.png"
    draw_gains(path, [(f"class {n} " * 6, 0.6 - 0.01 * n) for n in range(120)], title="t")
    draw_gains(few, [("all alike", 0.0)], title="t")
    bars = (np.diff(np.unique(where(path, GAIN)[0])) > 1).sum() + 1
    assert bars == MOST_BARS // 2
    assert len(where(few, LOSS)[0]) == 0


def test_accuracy_over_labels_is_drawn_where_there_are_several_fractions(
    tmp_path: Path, evaluation: SavedEvaluation
) -> None:
    draw_fractions(tmp_path / "x.png", {"run": evaluation, "other": evaluation}, paper="paper")
    assert all(len(where(tmp_path / "x.png", colour)[0]) > 200 for colour in RUN_COLOURS[1:2])
    assert has_fractions(evaluation)
    table = evaluation_table([score_table(), score_table("semi", fraction=0.1)])
    assert not has_fractions(read_table(table, tmp_path))


def test_few_labels_are_drawn_at_the_share_that_they_are(tmp_path: Path) -> None:
    """60 of 177 labels were asked for as a tenth: one a class at least."""
    rows = [score_table(fraction=fraction) | {"labels": labels} for fraction, labels in
            ((0.01, 60), (0.1, 60), (1.0, 177))]  # fmt: skip
    evaluation = read_table(evaluation_table(rows, train_samples=177), tmp_path)
    scores = by_fraction(evaluation, "linear", "trained encoder")
    assert [score.share for score in scores] == [60 / 177, 1]


def test_ten_classes_have_ten_colours(tmp_path: Path) -> None:
    labels_N = np.repeat(np.arange(10), 7)
    random = np.random.default_rng(0)
    points_NX = random.normal(size=(70, 2)) + 9 * np.stack([labels_N % 4, labels_N // 4], axis=1)
    path = tmp_path / "x.png"
    draw_embedding(path, Embedding(points_NX, labels_N, (*"abcdefghi", "$j_{")), title="t")
    assert len(set(CLASS_COLOURS)) == 10
    assert all(len(where(path, colour)[0]) > 100 for colour in CLASS_COLOURS)


def test_the_same_input_gives_the_same_bytes(tmp_path: Path, evaluation: SavedEvaluation) -> None:
    for name in ("a", "b"):
        draw_curves(tmp_path / f"{name}1", {"run": {"total": curve(1)}})
        draw_fractions(tmp_path / f"{name}2", {"run": evaluation}, paper="paper")
        draw_gains(tmp_path / f"{name}3", [("x", 0.1)], title="t")
    for number in (1, 2, 3):
        assert (tmp_path / f"a{number}").read_bytes() == (tmp_path / f"b{number}").read_bytes()
        assert b"Software" not in (tmp_path / f"a{number}").read_bytes()


def test_the_classes_are_those_with_the_most_samples() -> None:
    labels_N = np.repeat([7, 3, 5, 1], [4, 2, 9, 2])
    assert most_frequent(labels_N, 2).tolist() == [5, 7]
    assert most_frequent(labels_N, 3).tolist() == [1, 5, 7]
    assert most_frequent(labels_N, 10).tolist() == [1, 3, 5, 7]


def test_groups_that_are_apart_stay_apart_and_the_plane_repeats() -> None:
    random = np.random.default_rng(1)
    x_ND = random.normal(size=(60, 70)) + 8 * (np.arange(60)[:, None] < 20)
    plane = on_a_plane(x_ND, seed=0)
    np.testing.assert_array_equal(plane, on_a_plane(x_ND, seed=0))
    distance_NN = np.linalg.norm(plane[:, None] - plane, axis=2) + np.diag(np.full(60, np.inf))
    assert ((distance_NN.argmin(axis=1) < 20) == (np.arange(60) < 20)).all()


def test_a_class_in_two_groups_is_named_in_the_larger() -> None:
    """Between them, its number would lie among the points of others."""
    points_NX = np.concatenate([np.zeros((7, 2)), np.full((5, 2), 10.0)])
    points_NX[:, 0] += 0.1 * np.arange(12)
    assert np.linalg.norm(dense_place(points_NX)) < 1
    assert dense_place(np.array([[3.0, 4.0]])).tolist() == [3, 4]


@pytest.mark.parametrize("order", [[0, 1, 2], [2, 0, 1], [1, 2, 0]])
def test_a_class_of_three_is_named_where_two_of_them_are(order: list[int]) -> None:
    """A point is no neighbour of itself: then any of them would be as good."""
    points_NX = np.array([[9.0, 9.0], [0.0, 0.0], [1.0, 0.0]])[order]
    assert np.linalg.norm(dense_place(points_NX)) <= 1


def test_a_number_stands_beside_its_point_where_nothing_is_or_least() -> None:
    point_X = np.zeros(2)
    taken_NX = np.array([[0.0, 0.0], [5.0, 0.0], [0.0, 5.0], [-5.0, 0.0], [0.0, -5.0]])
    taken_NX = np.concatenate([taken_NX, [[4.0, 4.0], [-4.0, 4.0], [-4.0, -4.0]]])
    place_X = free_place(point_X, taken_NX, reaches=(5.0, 50.0), room=3.0)
    np.testing.assert_allclose(place_X, [5 / np.sqrt(2), -5 / np.sqrt(2)])
    assert np.linalg.norm(free_place(point_X, taken_NX, reaches=(5.0, 50.0), room=9.0)) == pytest.approx(50)
    np.testing.assert_allclose(free_place(point_X, taken_NX, reaches=(5.0,), room=9.0), place_X)


def test_no_number_hides_a_sample(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As many pixels of every class show as without numbers."""
    labels_N = np.arange(30) % 3
    points_NX = np.random.default_rng(0).normal(size=(30, 2)) + 5 * labels_N[:, None]
    embedding = Embedding(points_NX, labels_N, ("a", "b", "c"))
    draw_embedding(tmp_path / "with.png", embedding, title="t")
    monkeypatch.setattr("model.report.figures._draw_numbers", lambda *_: None)
    draw_embedding(tmp_path / "without.png", embedding, title="t")
    assert (read(tmp_path / "with.png") != read(tmp_path / "without.png")).any()
    for colour in CLASS_COLOURS[:3]:
        assert len(where(tmp_path / "with.png", colour)[0]) == len(where(tmp_path / "without.png", colour)[0])
