"""What the page makes of runs that were evaluated on different shards, or on other samples of them."""

from pathlib import Path

from model.report.evaluated_shards import copies_text, difference_text, parts_text, sizes_text
from model.report.saved import SavedEvaluation
from tests.model.report.made_up import evaluation_table, made_from, read_table


def evaluated(tmp_path: Path, digest: str, **shards: object) -> SavedEvaluation:
    """On shards of that digest."""
    return read_table(evaluation_table(made_from=made_from({}, shards=digest), shards=shards), tmp_path)


def test_runs_on_shards_of_different_lengths_are_told_apart(tmp_path: Path) -> None:
    long = evaluated(tmp_path, "a", name="ucla-64", frames=64)
    short = evaluated(tmp_path, "b", name="ucla-32", frames=32)
    assert difference_text({"compact": long, "best": short, "paper": short}) == (
        "compact was evaluated on shards of 64 frames, best and paper of 32: their baselines differ for that "
        "reason."
    )
    assert difference_text({"compact": long, "best": long}) == ""


def test_different_shards_are_said_where_their_lengths_are_equal(tmp_path: Path) -> None:
    one, other = (evaluated(tmp_path, name, name=name, frames=32) for name in ("ucla", "raw"))
    assert difference_text({"x": one, "y": other}) == (
        "x was evaluated on the shards ucla, y on raw: their baselines may differ for that reason."
    )
    assert difference_text({"x": one, "y": evaluated(tmp_path, "b", name="ucla", frames=32)}) == (
        "x and y were evaluated on different shards: their baselines may differ for that reason."
    )


def test_counts_are_told_of_the_runs_that_have_them(tmp_path: Path) -> None:
    """Those of the first run would be taken for everybody's."""
    whole = read_table(evaluation_table(), tmp_path)
    part = read_table(evaluation_table(test_samples=400, copied=95), tmp_path)
    assert sizes_text({"a": whole, "c": whole}) == "1,020 training and 464 test samples"
    assert copies_text({"a": whole}) == parts_text({"a": whole}) == ""
    assert copies_text({"b": part}) == "95 of the 400 test samples"
    assert parts_text({"b": part}) == "400 test samples"
    runs = {"a": whole, "b": part, "c": whole}
    assert sizes_text(runs) == (
        "1,020 training and 464 test samples for a and c; 1,020 training and 400 test samples for b"
    )
    assert copies_text(runs) == "95 of the 400 test samples for b"
    assert parts_text(runs) == "400 test samples for b"
