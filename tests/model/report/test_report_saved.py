"""Evaluations are read as they were written, and damaged ones never get further than their file."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from model.report.saved import saved_evaluations
from tests.model.report.made_up import (
    evaluation_table,
    full_scores,
    made_from,
    read_table,
    score_table,
    write_evaluation,
    write_run,
)


def test_every_number_is_read(tmp_path: Path) -> None:
    table = evaluation_table()
    found = read_table(table, tmp_path)
    assert (found.dataset, found.protocol, found.step) == ("ucla", "xview3", 40)
    for score, row in zip(found.scores, table["scores"], strict=True):
        assert (score.mode, score.features, score.k, score.label_fraction) == (
            row["mode"],
            row["features"],
            row["k"],
            row["label_fraction"],
        )
        assert score.top1.mean == row["top1"]["mean"]
        assert score.top1.deviation == row["top1"]["deviation"]
        assert (score.top5 is None) == (row["top5"] is None)
        assert score.confusion_KK.tolist() == row["confusion"]


def test_a_class_without_test_samples_has_no_accuracy(tmp_path: Path) -> None:
    score = score_table()
    score["per_class"][3] = None
    score["confusion"][3] = [0] * 10
    found = read_table(evaluation_table([score]), tmp_path)
    assert np.isnan(found.scores[0].per_class_K[3])
    assert found.scores[0].test_counts().tolist() == [9, 10, 11, 0, 13, 14, 15, 16, 17, 18]


@pytest.mark.parametrize(
    ("scores", "mode", "fraction"),
    [
        (full_scores(), "linear", 1.0),
        (
            [score_table("semi", fraction=0.1), score_table("semi", fraction=0.5), score_table("finetune")],
            "semi",
            0.5,
        ),
        (
            [score_table("knn", k=1), score_table("linear", fraction=0.1), score_table("linear")],
            "linear",
            1.0,
        ),
        ([score_table(), score_table("supervised", "encoder and linear layer")], "supervised", 1.0),
        ([score_table("knn", k=1), score_table("supervised", "encoder and linear layer")], "supervised", 1.0),
        ([score_table("semi", "untrained encoder", fraction=0.1), score_table()], "linear", 1.0),
        ([score_table("linear", "trained encoder, whitened"), score_table("knn", k=1)], "linear", 1.0),
    ],
)
def test_the_headline_is_of_what_was_trained(
    tmp_path: Path, scores: list[dict[str, Any]], mode: str, fraction: float
) -> None:
    headline = read_table(evaluation_table(scores), tmp_path).headlines[0]
    assert (headline.mode, headline.label_fraction) == (mode, fraction)


@pytest.mark.parametrize(
    ("mode", "protocol", "trained_on", "share"),
    [
        ("linear", "xsub", "other", 0.4),
        ("supervised", "", "same", 0.4),
        ("supervised", "xview3", "same", 0.4),
        ("supervised", "xsub", "same", 0.1),
        ("supervised", "xview3", "other", 0.1),
    ],
)
def test_a_share_is_of_the_samples_that_the_labels_are_of(
    tmp_path: Path, mode: str, protocol: str, trained_on: str, share: float
) -> None:
    """A supervised run evaluated by another protocol or on other shards learnt from other samples."""
    of_run = made_from({"protocol": protocol}, shards="same") | {"trained_on": trained_on}
    row = score_table(mode, fraction=0.1) | {"labels": 60}
    found = read_table(evaluation_table([row], train_samples=150, made_from=of_run), tmp_path)
    assert (found.scores[0].label_fraction, found.scores[0].share) == (0.1, share)


def test_the_evaluated_shards_are_read(tmp_path: Path) -> None:
    of_run = made_from({}, shards="abc") | {"trained_on": "xyz"}
    assert read_table(evaluation_table(made_from=of_run), tmp_path).evaluated_on == "abc"
    found = read_table(evaluation_table(shards={"name": "ucla", "frames": 200}), tmp_path)
    assert (found.shards_name, found.frames) == ("ucla", 200)


def test_counts_over_seeds_are_divided_by_them(tmp_path: Path) -> None:
    found = read_table(evaluation_table([score_table(by_seed=[0.1, 0.2, 0.3])]), tmp_path)
    assert found.scores[0].test_counts().tolist() == list(range(9, 19))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"version": 1}, "version 1; expected 5"),
        ({"version": None}, "version None; expected 5"),
        ({"scores": []}, "no scores"),
        ({"scores": [score_table() | {"confusion": [[1]]}]}, "confusion of shape \\(1, 1\\)"),
        ({"scores": [score_table() | {"per_class": [0.5]}]}, "per_class has 1 entries for 10"),
        ({"scores": [score_table() | {"label_fraction": 10}]}, "10 where a share of 1 belongs"),
        ({"scores": [score_table() | {"top1": 0.5}]}, "not what it should be"),
        ({"scores": [score_table() | {"top1": {"mean": 0.5}}]}, "the key 'deviation' is missing"),
        ({"classes": None}, "not what it should be"),
        ({"made_from": {}}, "the key 'recipe' is missing"),
        ({"made_from": {"recipe": {}}}, "the key 'trained_on' is missing"),
        ({"train_samples": 1019}, "1,020 labels of 1,019 training samples"),
    ],
)
def test_what_is_wrong_with_a_file_is_named(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"eval-x.json: .*{message}"):
        read_table(evaluation_table() | change, tmp_path)


@pytest.mark.parametrize("text", ["", "{", "[]", "3", "\ufffe", '{"version": 5}'])
def test_a_file_that_is_no_evaluation_is_named(tmp_path: Path, text: str) -> None:
    run = write_run(tmp_path / "run", steps=1)
    write_evaluation(run, evaluation_table())
    (run.folder / "eval-ucla-xsub.json").write_bytes(text.encode("utf-16" if text == "\ufffe" else "utf-8"))
    found, problems = saved_evaluations(run.folder)
    assert len(found) == len(problems) == 1
    assert "eval-ucla-xsub.json" in problems[0]


def test_a_file_of_the_first_version_says_so(tmp_path: Path) -> None:
    table = evaluation_table()
    del table["version"]
    with pytest.raises(ValueError, match="version 1; expected 5"):
        read_table(table, tmp_path)
