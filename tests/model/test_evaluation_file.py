"""What an evaluation leaves beside its run."""

import json
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from model.evaluate import Evaluation
from model.evaluation_file import save_evaluation
from model.scores import MODES, Result, Score
from model.subset import Labelled, read_subset
from pipeline.store.publish import publish_bytes

CONFUSION = np.array([[3, 1], [0, 4]])
KEYS = ("a", "b", "c", "d")


def score(mode: str, features: str = "trained encoder", labels: int = 4, top1: float = 0.5) -> Score:
    result = Result(np.arange(10) < 10 * top1, None, CONFUSION)
    return Score(mode, features, 1 if mode == "knn" else None, labels / 4, labels, (result,))


def evaluation(*scores: Score) -> Evaluation:
    return Evaluation(
        dataset="ucla",
        title="NW-UCLA",
        pretrained_on="ucla",
        protocol="xview3",
        classes=("sit down", "stand up"),
        train_samples=4,
        test_samples=10,
        seen_in_training=0,
        copied_N=np.arange(10) < 4,
        shards_name="ucla-64",
        frames=64,
        made_from={"step": 7, "evaluated_on": "digest"},
        fused={},
        labelled=(Labelled(1.0, (np.arange(4),)), Labelled(0.5, (np.array([0, 2]), np.array([1, 3])))),
        keys=KEYS,
        scores=scores,
    )


def test_a_run_has_its_name_wherever_it_was_named_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "run").mkdir()
    monkeypatch.chdir(tmp_path / "run")
    save_evaluation(evaluation(score("linear")), Path())
    assert json.loads(Path("eval-ucla-xview3.json").read_text())["run"] == "run"


def test_everything_lies_beside_the_run(tmp_path: Path) -> None:
    saved = save_evaluation(evaluation(score("linear")), tmp_path / "run")
    table = json.loads((tmp_path / "run/eval-ucla-xview3.json").read_text())
    assert table["run"] == "run"
    assert table["classes"] == ["sit down", "stand up"]
    assert table["scores"][0]["confusion"] == CONFUSION.tolist()
    assert table["copied"] == 4
    assert table["shards"] == {"name": "ucla-64", "frames": 64}
    assert table["scores"][0]["top1"]["mean"] == 0.5  # the first five are hit, four of them copies
    assert table["scores"][0]["top1_without_copies"]["mean"] == pytest.approx(1 / 6)
    assert saved.picture is not None
    assert saved.picture.read_bytes()[:4] == b"\x89PNG"
    assert [path.name for path in saved.subsets] == [f"ucla-xview3-0.5-seed-{seed}.txt" for seed in (0, 1)]
    assert read_subset(saved.subsets[1], KEYS).tolist() == [1, 3]
    assert all(path.exists() for path in saved.paths)


def test_modes_measured_one_by_one_make_one_table(tmp_path: Path) -> None:
    save_evaluation(evaluation(score("knn"), score("linear", top1=0.4)), tmp_path)
    save_evaluation(evaluation(score("semi", labels=2), score("linear")), tmp_path)
    rows = json.loads((tmp_path / "eval-ucla-xview3.json").read_text())["scores"]
    assert [(row["mode"], row["top1"]["mean"]) for row in rows] == [
        ("linear", 0.5),  # measured again
        ("knn", 0.5),
        ("semi", 0.5),
    ]


def test_of_evaluations_at_once_no_row_is_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both read the table, and who writes last would write over the other's rows."""

    def slowly(path: Path, content: bytes) -> None:
        time.sleep(0.05)
        publish_bytes(path, content)

    monkeypatch.setattr("model.evaluation_file.publish_bytes", slowly)
    with ThreadPoolExecutor() as pool:
        list(pool.map(partial(save_evaluation, folder=tmp_path), map(evaluation, map(score, MODES[:3]))))
    rows = json.loads((tmp_path / "eval-ucla-xview3.json").read_text())["scores"]
    assert [row["mode"] for row in rows] == list(MODES[:3])


def test_rows_that_differ_in_one_thing_alone_stand_side_by_side(tmp_path: Path) -> None:
    """A fine-tuned encoder's row, or the untrained one's, in the place of the headline would pass for it."""
    rows = [
        score("linear"),
        score("linear", "untrained encoder"),
        score("knn"),
        replace(score("knn"), k=20),
        score("finetune"),
    ]
    save_evaluation(evaluation(*rows), tmp_path)
    save_evaluation(evaluation(score("linear", top1=0.4)), tmp_path)
    found = json.loads((tmp_path / "eval-ucla-xview3.json").read_text())["scores"]
    assert [(row["mode"], row["features"], row["k"], row["top1"]["mean"]) for row in found] == [
        ("linear", "trained encoder", None, 0.4),
        ("linear", "untrained encoder", None, 0.5),
        ("knn", "trained encoder", 1, 0.5),
        ("knn", "trained encoder", 20, 0.5),
        ("finetune", "trained encoder", None, 0.5),
    ]


def test_a_share_that_takes_every_label_does_not_replace_all_labels(tmp_path: Path) -> None:
    """The headline would be gone after the second evaluation, and no longer be of label fraction 1."""
    nearly = replace(score("linear", top1=0.4), label_fraction=0.95)
    for _ in range(2):
        save_evaluation(evaluation(score("linear"), nearly), tmp_path)
    rows = json.loads((tmp_path / "eval-ucla-xview3.json").read_text())["scores"]
    assert [row["label_fraction"] for row in rows] == [1.0, 0.95]


def test_labels_of_id_files_stand_beside_those_that_were_drawn(tmp_path: Path) -> None:
    """An id file that is given back must neither write over the others nor pass for all of their draws."""
    drawn = save_evaluation(evaluation(score("linear", labels=2)), tmp_path)
    given_back = replace(
        evaluation(replace(score("linear", labels=2, top1=0.4), subset="seed-1.txt")),
        labelled=(Labelled(0.5, (np.array([1, 3]),), ("seed-1.txt",)),),
    )
    assert save_evaluation(given_back, tmp_path).subsets == ()
    assert [read_subset(path, KEYS).tolist() for path in drawn.subsets] == [[0, 2], [1, 3]]
    rows = json.loads((tmp_path / "eval-ucla-xview3.json").read_text())["scores"]
    found = {(row["subset"], row["top1"]["mean"]) for row in rows}
    assert found == {(None, 0.5), ("seed-1.txt", 0.4)}


def test_rows_of_a_name_that_stood_for_another_are_left_out(tmp_path: Path) -> None:
    """ids.txt of another folder, and a run that was trained anew, are not what the rows before speak of."""

    def rows(**now: Any) -> list[str]:
        """The modes and features that stand in the table after another linear evaluation."""
        save_evaluation(replace(evaluation(score("linear")), **now), tmp_path)
        scores = json.loads((tmp_path / "eval-ucla-xview3.json").read_text())["scores"]
        return [f"{row['mode']}: {row['features']}" for row in scores]

    def ids(*indices: int) -> tuple[Labelled]:
        return (Labelled(0.5, (np.array(indices),), ("ids.txt",)),)

    of_file = replace(score("knn", "on ids.txt", labels=2), subset="ids.txt")
    of_both = replace(score("knn", "with bone"), fused=("bone",))
    measured = replace(
        evaluation(of_file, of_both), labelled=ids(0, 2), fused={"bone": "weights"}, seen_in_training=3
    )
    save_evaluation(measured, tmp_path)
    kept = ["linear: trained encoder", "knn: with bone", "knn: on ids.txt"]
    assert rows(labelled=ids(0, 2), fused={"bone": "weights"}) == kept
    assert rows(labelled=(), fused={}) == kept  # what is not named is as it was
    table = json.loads((tmp_path / "eval-ucla-xview3.json").read_text())
    assert table["seen_in_training"] == 3
    assert rows(labelled=ids(1, 3)) == kept[:2]
    save_evaluation(replace(evaluation(of_file), labelled=ids(1, 3)), tmp_path)
    assert rows(labelled=ids(1, 3)) == kept  # it stands for these now
    assert rows(labelled=ids(0, 2)) == kept[:2]
    assert rows(fused={"bone": "trained anew"}) == kept[:1]


@pytest.mark.parametrize("earlier", ["{", "[]", '{"version": 1}', '{"version": 3, "made_from": 1}'])
def test_what_belongs_to_something_else_is_replaced(tmp_path: Path, earlier: str) -> None:
    (tmp_path / "eval-ucla-xview3.json").write_text(earlier)
    save_evaluation(evaluation(score("linear")), tmp_path)
    further = replace(evaluation(score("knn")), made_from={"step": 8, "evaluated_on": "digest"})
    save_evaluation(further, tmp_path)
    rows = json.loads((tmp_path / "eval-ucla-xview3.json").read_text())["scores"]
    assert [row["mode"] for row in rows] == ["knn"]


@pytest.mark.parametrize(("key", "other"), [("version", 3), ("classes", ["sit", "stand"])])
def test_rows_that_were_measured_otherwise_are_replaced(tmp_path: Path, key: str, other: Any) -> None:
    """All else may be the same, and a penalty chosen otherwise gives up to three points more or less."""
    path = save_evaluation(evaluation(score("knn")), tmp_path).table
    path.write_text(json.dumps(json.loads(path.read_text()) | {key: other}))
    save_evaluation(evaluation(score("linear")), tmp_path)
    assert [row["mode"] for row in json.loads(path.read_text())["scores"]] == ["linear"]


def test_without_anything_trained_there_is_no_picture(tmp_path: Path) -> None:
    saved = save_evaluation(evaluation(score("linear", "input statistics")), tmp_path)
    assert saved.picture is None
    assert [path.suffix for path in saved.paths] == [".json", ".txt", ".txt"]
