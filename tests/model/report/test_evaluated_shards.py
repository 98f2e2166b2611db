"""What is known of the shards that runs were evaluated on, and what the page makes of it."""

import json
from pathlib import Path

from model.report.evaluated_shards import EvaluatedShards, difference_text, evaluated_shards
from model.report.saved import SavedEvaluation, read_evaluation
from model.run import Run
from pipeline.store.shards import Shards
from tests.model.report.made_up import evaluation_table, score_table, write_run


def evaluation(tmp_path: Path, evaluated_on: str) -> SavedEvaluation:
    made_from = {"step": 1, "steps": 1, "recipe": {}, "evaluated_on": evaluated_on}
    path = tmp_path / "eval-x.json"
    path.write_text(json.dumps(evaluation_table([score_table()], made_from=made_from)), encoding="utf-8")
    return read_evaluation(path)


def test_they_are_found_among_opened_ones_and_where_the_run_was_trained(
    tmp_path: Path, shards: Shards, trained_run: Run
) -> None:
    digest = shards.manifest.digest
    expected = EvaluatedShards(digest, shards.folder.name, shards.manifest.shape[3])
    found = evaluation(tmp_path, digest)
    elsewhere = write_run(tmp_path / "elsewhere", steps=1)
    assert evaluated_shards(elsewhere, found, [shards]) == expected
    assert evaluated_shards(trained_run, found, []) == expected
    assert evaluated_shards(elsewhere, found, []) == EvaluatedShards(digest)


def test_the_name_stays_where_the_folder_is_gone_or_behind_a_server(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", steps=1)
    assert evaluated_shards(run, evaluation(tmp_path, "digest"), []) == EvaluatedShards("digest", "no-shards")
    (run.folder / "run.json").write_text(json.dumps({"shards": "http://host/ucla-64/", "manifest": "digest"}))
    assert evaluated_shards(run, evaluation(tmp_path, "digest"), []) == EvaluatedShards("digest", "ucla-64")


def test_other_shards_that_took_the_folders_place_do_not_count(tmp_path: Path, shards: Shards) -> None:
    run = write_run(tmp_path / "run", steps=1)
    (run.folder / "run.json").write_text(json.dumps({"shards": str(shards.folder), "manifest": "before"}))
    found = evaluated_shards(run, evaluation(tmp_path, "before"), [])
    assert found == EvaluatedShards("before", shards.folder.name)


def test_an_evaluation_that_does_not_say_knows_nothing(tmp_path: Path, trained_run: Run) -> None:
    assert evaluated_shards(trained_run, evaluation(tmp_path, ""), []) == EvaluatedShards("")


def test_runs_on_shards_of_different_lengths_are_told_apart() -> None:
    long, short = EvaluatedShards("a", "ucla-64", 64), EvaluatedShards("b", "ucla-32", 32)
    assert difference_text({"compact": long, "best": short, "paper": short}) == (
        "compact was evaluated on shards of 64 frames, best and paper of 32: their baselines differ for that "
        "reason."
    )
    assert difference_text({"compact": long, "best": long}) == ""
    assert difference_text({"compact": long, "old": EvaluatedShards("")}) == ""


def test_different_shards_are_said_where_their_lengths_are_not_known_or_equal() -> None:
    one, other = EvaluatedShards("a", "ucla", 32), EvaluatedShards("b", "raw")
    assert difference_text({"x": one, "y": other}) == (
        "x was evaluated on the shards ucla, y on raw: their baselines may differ for that reason."
    )
    assert difference_text({"x": one, "y": EvaluatedShards("b", "ucla", 32)}) == (
        "x and y were evaluated on different shards: their baselines may differ for that reason."
    )
