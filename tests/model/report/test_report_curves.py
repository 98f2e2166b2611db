"""Training curves from the logs of runs that were stopped, killed and resumed."""

from pathlib import Path

import numpy as np

from model.report.curves import Curve, read_curves
from model.report.runs import gather
from tests.model.report.made_up import evaluation_table, log, score_table, write_run


def test_every_step_of_every_loss_is_read_the_total_first(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", steps=40)
    curves = read_curves(run.folder)
    assert list(curves) == ["total", "contrast"]
    assert curves["contrast"].steps_S.tolist() == list(range(1, 41))
    np.testing.assert_allclose(curves["total"].values_S, 2 / np.arange(1, 41), rtol=1e-6)


def test_a_resumed_run_has_one_curve_and_what_was_redone_counts(tmp_path: Path) -> None:
    """Killed after step 9, whose checkpoint was of step 6: steps 7 to 9 were done twice."""
    run = write_run(tmp_path / "run", steps=9)
    log(run, range(7, 21), value=3.0, purge_step=7)
    curve = read_curves(run.folder)["contrast"]
    assert curve.steps_S.tolist() == list(range(1, 21))
    expected = np.where(np.arange(1, 21) < 7, 1.0, 3.0) / np.arange(1, 21)
    np.testing.assert_allclose(curve.values_S, expected, rtol=1e-6)


def test_the_order_of_the_files_names_does_not_matter(tmp_path: Path) -> None:
    """One process that starts its tenth log within a second names it so that it comes before the ninth."""
    run = write_run(tmp_path / "run", steps=9)
    (first,) = run.folder.glob("*tfevents*")
    first.rename(run.folder / "events.out.tfevents.9999999999.vm.1.9")
    log(run, range(7, 21), value=3.0, purge_step=7)
    values_S = read_curves(run.folder)["contrast"].values_S
    np.testing.assert_allclose(values_S[6:], 3.0 / np.arange(7, 21), rtol=1e-6)


def test_a_loss_without_weight_has_no_curve(tmp_path: Path) -> None:
    """It is logged as 0, and has no part in the total."""
    scores = evaluation_table([score_table()])
    without = ("contrast_weight=0.0", "temporal_weight=0.5")
    runs = [write_run(tmp_path / "with", scores), write_run(tmp_path / "without", scores, changes=without)]
    assert [list(run.curves) for run in gather(runs, "cpstn")] == [["total", "contrast"], ["total"]]
    recipe = runs[1].folder / "recipe.toml"
    recipe.write_text(recipe.read_text().replace('objective = "cpstn"', 'objective = "ms2l_like"'))
    assert list(gather(runs, "cpstn")[1].curves) == ["total", "contrast"]


def test_a_folder_without_logs_or_with_damaged_ones_gives_no_curves(tmp_path: Path) -> None:
    assert read_curves(tmp_path) == {}
    (tmp_path / "events.out.tfevents.1.vm.1.0").write_bytes(b"nothing that TensorBoard wrote")
    assert read_curves(tmp_path) == {}


def test_a_log_cut_off_in_the_middle_gives_what_is_whole(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", steps=30)
    (path,) = run.folder.glob("*tfevents*")
    path.write_bytes(path.read_bytes()[:-700])
    steps = read_curves(run.folder)["contrast"].steps_S
    assert 5 < len(steps) < 30
    assert steps.tolist() == list(range(1, len(steps) + 1))


def test_the_mean_about_a_step_is_of_its_neighbours() -> None:
    values_S = np.random.default_rng(0).normal(size=47)
    curve = Curve(np.arange(47), values_S)
    slow = [values_S[max(index - 3, 0) : index + 4].mean() for index in range(47)]
    np.testing.assert_allclose(curve.smoothed(parts=7), slow)
    np.testing.assert_allclose(curve.smoothed(parts=60), values_S)
