"""What scores are called, for a reader."""

from pathlib import Path
from typing import Any

import pytest

from model.report.saved import SavedScore
from model.report.words import details_text, feature_notes, feature_text, listed, percent_text, score_text
from model.scores import COORDINATES, INPUT_STATISTICS, MORE_STATISTICS
from tests.model.report.made_up import evaluation_table, read_table, score_table


def score(tmp_path: Path, row: dict[str, Any]) -> SavedScore:
    return read_table(evaluation_table([row]), tmp_path).scores[0]


def test_details_say_of_which_classifier_and_accuracy_they_are(tmp_path: Path) -> None:
    first = score(tmp_path, score_table())
    assert (
        details_text({"run": first})
        == "Of the linear classifier on the trained encoder, with all 1,020 labels; top-1 75.0\xa0%."
    )
    other = score(tmp_path, score_table(by_seed=(0.5, 0.6)))
    semi = score(tmp_path, score_table("semi", fraction=0.1))
    assert details_text({"a": first, "b": other, "c": semi}) == (
        "Of the linear classifier on the trained encoder, with all 1,020 labels; top-1 75.0\xa0% (a), "
        "55.0\xa0% (b, mean of 2 seeds). Of the semi-supervised classifier on the trained encoder, with 102 "
        "labels (10 %); top-1 75.0\xa0% (c)."
    )
    layer = score(tmp_path, score_table("supervised", "encoder and linear layer"))
    assert details_text({"a": layer}).startswith("Of the supervised classifier, with all")


def test_a_score_says_its_share_of_the_labels_as_it_came_out(tmp_path: Path) -> None:
    row = score_table("semi", fraction=0.1) | {"labels": 346}
    assert score_text(score(tmp_path, row)) == "semi-supervised, trained encoder, 33.9 % of the labels"
    assert score_text(score(tmp_path, score_table("semi"))) == "semi-supervised, trained encoder"
    many = evaluation_table([row | {"labels": 1346}], train_samples=3970)
    details = details_text({"run": read_table(many, tmp_path).scores[0]})
    assert "with 1,346 labels (33.9 %)" in details


@pytest.mark.parametrize(
    ("subset", "said"),
    [
        (None, "raw coordinates"),
        ("a.txt", "raw coordinates, labels of a.txt"),
        ("a,b.txt", "raw coordinates, labels of a,b.txt"),
        ("a.txt, b.txt", "raw coordinates, labels of 2 files, a.txt and so on"),
        ("a.txt, b.txt, c.txt", "raw coordinates, labels of 3 files, a.txt and so on"),
    ],
)
def test_of_several_id_files_the_first_is_named(subset: str | None, said: str) -> None:
    assert feature_text("raw coordinates", None, subset) == said
    nearest = said.replace("coordinates", "coordinates, k\xa0=\xa020")
    assert feature_text("raw coordinates", 20, subset) == nearest


def test_only_what_stands_in_the_table_is_explained() -> None:
    assert feature_notes(["trained encoder", "untrained encoder"]) == []
    parts = [part for part, _ in feature_notes(["trained encoder and input statistics, whitened"])]
    assert parts == ["input statistics", "whitened", "encoder and input statistics"]


@pytest.mark.parametrize(
    ("features", "parts"),
    [
        (COORDINATES, [COORDINATES]),
        (MORE_STATISTICS, [INPUT_STATISTICS, "with distances"]),
        ("trained encoders, fused with ucla-002", ["fused"]),
        ("trained encoders, fused with whitened-1 + raw coordinates", ["fused"]),
    ],
)
def test_rows_that_are_no_encoder_alone_are_explained(features: str, parts: list[str]) -> None:
    """Nobody can tell from their names what they are, nor that two of them have no network."""
    assert [part for part, _ in feature_notes([features])] == parts


def test_shares_have_no_digits_that_say_nothing() -> None:
    assert [percent_text(share) for share in (1, 0.1, 10 / 1020, 60 / 177)] == ["100", "10", "0.98", "33.9"]


def test_names_are_listed_as_in_a_sentence() -> None:
    assert [listed("abc"[:count]) for count in range(4)] == ["", "a", "a and b", "a, b and c"]
