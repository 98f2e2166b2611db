"""The paper's Table 5 as data, and a table that is trained: nothing done twice, lost or mixed up."""

import dataclasses
import errno
import json
import shutil
from collections.abc import Iterator
from contextlib import AbstractContextManager, closing, nullcontext
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pandas as pd
import pytest
import torch

from model.ablate import Ablation, Line, Trial, ablate, plan, save_ablation
from model.calibrate import calibrated
from model.checkpoint import load_checkpoint, new_model
from model.cpstn import CPSTN
from model.evaluate import evaluate
from model.features import Features, encoder_features
from model.finetune import finetune
from model.objective import Pretraining
from model.question import Question, read_parts
from model.recipe import load_recipe
from model.run import Run
from model.scores import INPUT_STATISTICS, TRAINED, UNTRAINED, Result
from model.share import share_out
from model.table5 import Row, all_rows, choose_rows, find_row, tables
from model.train import OnProgress, Progress
from pipeline.loader import train_batches
from pipeline.samples import Samples, split_samples
from pipeline.store.shards import Shards

CPU = torch.device("cpu")
TINY = (
    "epochs=1",
    "batch_size=16",
    "model.encoder.widths=[4, 4, 8]",
    "model.encoder.strides=[2, 1, 1]",
    "model.decoder.widths=[4, 4, 4, 4, 4]",
    "model.projection=[8, 6]",
    "model.recurrent.hidden=5",
)
Given = tuple[Features, Features, int, list[str]]
# Table 5 as it is printed. Half-C "-": there is no pretext.
PRINTED = """
    RNN     S x T x - 0.4355
    BiLSTM  S x T x - 0.5714
    BiGRU   S x T x - 0.5738
    A+B     S x T x - 0.4424
    A+C     S x T x - 0.6407
    A+B+C   S x T x - 0.6306
    A       S x T x - 0.6734
    A       S v T v x 0.6846
    A       S v S v v 0.6815
    A       S v T v v 0.6937
"""


def test_the_table_is_the_papers() -> None:
    """A slip in a row would compare with a number that belongs to another."""
    sign = {True: "v", False: "x", None: "-"}
    rows = [
        [
            row.encoder,
            row.aug1,
            sign[row.pre1],
            row.aug2,
            sign[row.pre2],
            sign[row.half_c],
            f"{row.paper:.4f}",
        ]
        for row in choose_rows("table5")
    ]
    assert rows == [line.split() for line in PRINTED.strip().splitlines()]


@pytest.mark.parametrize("base", ["paper", "compact"])
@pytest.mark.parametrize("row", all_rows().values(), ids=lambda row: row.name)
def test_every_row_is_a_recipe_that_does_what_its_columns_say(base: str, row: Row) -> None:
    """`train --recipe paper:ROW` has to train what the table will say of it, and leave the base's rest."""
    recipe = load_recipe(f"{base}:{row.name}")
    assert tuple(kind[0].upper() for kind in recipe.views) == (row.aug1, row.aug2)
    assert (recipe.spatial_weight > 0, recipe.temporal_weight > 0) == (row.pre1, row.pre2)
    assert row.encoder.lower() in (recipe.model.backbone, recipe.model.encoder.adaptive.lower())
    if row.half_c is not None:
        assert recipe.model.split_channels == row.half_c
    if not (row.pre1 or row.pre2):  # whatever network the base has
        assert load_recipe(f"best:{row.name}").model.backbone == recipe.model.backbone
    whole = load_recipe(base)
    assert (recipe.epochs, recipe.lr, recipe.model.encoder.widths) == (
        whole.epochs,
        whole.lr,
        whole.model.encoder.widths,
    )
    assert load_recipe(f"{base}:{row.name}", ("epochs=3",)).epochs == 3


def test_rows_stand_once_and_in_the_papers_order() -> None:
    """However they are typed: two tables of the same rows are to be laid side by side."""
    assert choose_rows("table5", ("cp-stn", "rnn", "cp-stn")) == [find_row("rnn"), find_row("cp-stn")]


@pytest.mark.parametrize("row", all_rows().values(), ids=lambda row: row.name)
def test_every_row_can_be_trained(shards: Shards, row: Row) -> None:
    """A row that breaks shows here, not after the nine others were trained."""
    recipe = load_recipe(f"paper:{row.name}", TINY)
    samples = split_samples(shards, "xview", "train")
    batches = train_batches(
        samples, batch_size=6, seed=0, start_step=0, end_step=1, views=recipe.views, config=recipe.view
    )
    model = new_model(shards.spec, recipe).train()
    objective = Pretraining(model, recipe)
    with closing(batches):
        losses_L = objective.backward(share_out(next(batches), 1, CPU), step=0)
    pretexts = ["spatial"] * bool(row.pre1) + ["temporal"] * bool(row.pre2)
    assert objective.loss_names == ("contrast", *pretexts, "total")
    assert losses_L.isfinite().all()
    assert (losses_L > 0).all()
    for name, weight in model.named_parameters():
        assert weight.grad is not None, name
        assert weight.grad.isfinite().all(), name
        # What the first shortcut gives is multiplied with 0 at first, a factor that learns (`first_weights`).
        assert weight.grad.any() or name == "encoder.units.0.shortcut.weight", name


def test_no_two_rows_are_the_same_training() -> None:
    """A row that changes nothing would be measured against itself."""
    recipes = [json.dumps(load_recipe(f"compact:{name}").to_table()) for name in all_rows()]
    assert len(set(recipes)) == len(recipes)
    assert set(all_rows()) == {name for names in tables().values() for name in names}


@pytest.fixture(scope="module", autouse=True)
def _one_penalty() -> Iterator[None]:
    """How the classifier chooses its penalty is tested elsewhere; here it would be most of the time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("model.classify.PENALTIES", (1e-2,))
        yield


@pytest.fixture(scope="module")
def trained(shards: Shards, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Ablation]:
    """Two rows with two seeds each, and what was found."""
    folder = tmp_path_factory.mktemp("runs") / "table"
    rows = [find_row("bigru"), find_row("cp-stn")]
    trials = plan(rows, folder, shards, recipe="compact", changes=TINY, seeds=2)
    return folder, ablate(shards, trials, folder, device=CPU)


def test_a_table_has_every_row_seed_and_baseline(shards: Shards, trained: tuple[Path, Ablation]) -> None:
    """The untrained encoders and the input's statistics stand beneath: without them no row says anything."""
    folder, result = trained
    assert [line.name for line in result.lines] == [
        "bigru",
        "cp-stn",
        "untrained BiGRU",
        "untrained A",
        INPUT_STATISTICS,
    ]
    assert [sorted(line.top1) for line in result.lines] == [[0, 1]] * 4 + [[0]]
    # No number of the paper stands beside what the paper has not.
    beneath = [(line.encoder, line.row) for line in result.lines[2:]]
    assert beneath == [("BiGRU", None), ("A", None), ("", None)]
    assert not result.failed
    assert sorted(path.name for path in folder.iterdir() if (path / "run.json").is_file()) == [
        "bigru-0",
        "bigru-1",
        "cp-stn-0",
        "cp-stn-1",
    ]
    assert (result.train_samples, result.test_samples) == (
        len(split_samples(shards, "xview", "train")),
        len(split_samples(shards, "xview", "test")),
    )


@pytest.mark.parametrize("name", ["bigru", "cp-stn"])
def test_the_accuracies_are_those_of_eval(shards: Shards, trained: tuple[Path, Ablation], name: str) -> None:
    """A row of the table and `eval --run` of its run must say the same, for every kind of encoder."""
    folder, result = trained
    checkpoint = load_checkpoint(Run(folder / f"{name}-1"))
    scores = evaluate(shards, checkpoint, Question(("linear",), "xview"), device=CPU).scores
    linear = {score.features: score.top1 for score in scores if score.mode == "linear"}
    by_name = {line.name: line for line in result.lines}
    assert by_name[name].top1[1] == linear[TRAINED]
    assert by_name[f"untrained {find_row(name).encoder}"].top1[1] == linear[UNTRAINED]
    assert by_name[INPUT_STATISTICS].top1[0] == linear[INPUT_STATISTICS]


def test_a_recurrent_encoder_can_be_fine_tuned(shards: Shards, trained: tuple[Path, Ablation]) -> None:
    """The semi-supervised protocol takes any backbone."""
    model = load_checkpoint(Run(trained[0] / "bigru-0")).build_model()
    samples = split_samples(shards, "xview", "train").take(np.arange(12))
    config = load_recipe("compact", ("finetune.epochs=1",)).finetune
    tuned, _ = finetune(model, samples, 10, config, CPU, seed=0)
    for name, weights in model.encoder.named_parameters():
        assert not torch.equal(weights, tuned.encoder.get_parameter(name)), name


def test_a_second_call_trains_nothing_and_says_the_same(
    shards: Shards, trained: tuple[Path, Ablation], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A table takes days: started again, it must not begin anew."""
    folder, first = trained
    rows = [find_row("bigru"), find_row("cp-stn")]
    trials = plan(rows, folder, shards, recipe="compact", changes=TINY, seeds=2)

    def refuse(*_: object) -> NoReturn:
        raise AssertionError("trained or measured again")

    monkeypatch.setattr("model.ablate.linear_evaluation", refuse)
    assert ablate(shards, trials, folder, device=CPU, watch=refuse).to_table() == first.to_table()


@pytest.mark.parametrize("version", ["LINEAR_VERSION", "FEATURES_VERSION"])
def test_what_another_kind_of_classifier_found_or_on_other_features_is_measured_again(
    shards: Shards, trained: tuple[Path, Ablation], monkeypatch: pytest.MonkeyPatch, version: str
) -> None:
    """A table must not put accuracies of two kinds side by side; the training behind them stays."""
    folder, _ = trained
    trials = plan([find_row("bigru")], folder, shards, recipe="compact", changes=TINY)
    measured: list[int] = []

    def measure(train: Features, *_: object) -> Result:
        measured.append(len(train.labels_N))
        return Result(np.ones(4, bool), None, np.eye(2, dtype=np.int64))

    monkeypatch.setattr("model.ablate.linear_evaluation", measure)
    assert [line.top1[0] for line in ablate(shards, trials, folder, device=CPU).lines] != [1, 1, 1]
    assert not measured
    monkeypatch.setattr(f"model.ablate.{version}", 1)

    def watch(_: Trial) -> AbstractContextManager[OnProgress]:
        raise AssertionError("trained again")

    with pytest.MonkeyPatch.context() as patch:  # what is written now must not stay for the other tests
        patch.setattr("model.ablate.publish_bytes", lambda *_: None)
        again = ablate(shards, trials, folder, device=CPU, watch=watch)
    assert [line.top1[0] for line in again.lines] == [1, 1, 1]
    assert len(measured) == 3


@pytest.mark.parametrize(
    ("row", "changes", "on_others", "expected"),
    [
        ("graph-a", ("protocol=xview1",), False, 3),
        ("graph-a", (), True, 3),
        ("graph-a", ("model.encoder.kernel=3",), False, 2),
        ("graph-a", ("model.pool.spans=[1, 2]",), False, 2),
        ("graph-a", ("model.streams=['joint', 'bone']",), False, 2),
        ("bigru", ("model.recurrent.hidden=4",), False, 2),
    ],
    ids=["protocol", "shards", "encoder", "pool", "streams", "recurrent"],
)
def test_what_belongs_to_something_else_is_measured_again(
    shards: Shards,
    both_shards: Shards,
    trained: tuple[Path, Ablation],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    row: str,
    changes: tuple[str, ...],
    on_others: bool,
    expected: int,
) -> None:
    """A row that is added later must not stand above a floor, or an untrained encoder, of another table."""
    folder, these = tmp_path / "table", both_shards if on_others else shards
    shutil.copytree(trained[0], folder, ignore=shutil.ignore_patterns(f"{row}-*"))
    trials = plan([find_row(row)], folder, these, recipe="compact", changes=(*TINY, *changes))
    measured: list[int] = []

    def measure(train: Features, *_: object) -> Result:
        measured.append(len(train.labels_N))
        return Result(np.ones(4, bool), None, np.eye(2, dtype=np.int64))

    monkeypatch.setattr("model.ablate.linear_evaluation", measure)
    ablate(these, trials, folder, device=CPU)
    assert len(measured) == expected  # the row, its encoder untrained and, but for the recipe's, the floor


def test_an_untrained_encoder_is_measured_once_whatever_its_rows_are_trained_by(
    shards: Shards, tmp_path: Path, classified: list[Given]
) -> None:
    """Of other rows of a table, asked for later, only what is new is done."""
    heads = (
        "model.projection=[8, 7]",
        "model.decoder.widths=[4, 4, 4, 4, 6]",
        "model.contrast_pool.statistics=['mean', 'deviation']",
    )
    rows = (("cp-stn", (), 3), ("graph-a", (), 4), ("graph-ac", (), 6))
    for row, changes, expected in (*rows, ("whole-channels", (), 7), ("spatial-pretext", heads, 8)):
        trials = plan([find_row(row)], tmp_path, shards, recipe="compact", changes=(*TINY, *changes))
        ablate(shards, trials, tmp_path, device=CPU)
        assert len(classified) == expected, row
        if row == "graph-ac":
            continue
        # Without decoders, or with other ones, the encoder begins like that of cp-stn all the same.
        of_these = ((find_row("cp-stn"), ()), (find_row(row), changes))
        recipes = [load_recipe("compact", (*TINY, *more, *one.changes())) for one, more in of_these]
        encoders = [new_model(shards.spec, recipe).encoder.state_dict() for recipe in recipes]
        assert all(torch.equal(encoders[0][name], encoders[1][name]) for name in encoders[0]), row
    (first_ND, other_ND) = (classified[index][0].x_ND for index in (1, 5))
    assert not torch.equal(first_ND, other_ND)


@pytest.fixture
def classified(monkeypatch: pytest.MonkeyPatch) -> list[Given]:
    """What the classifier was given each time; it finds every class."""
    given: list[Given] = []

    def measure(*arguments: Any) -> Result:
        given.append(arguments)
        return Result(np.ones(4, bool), None, np.eye(2, dtype=np.int64))

    monkeypatch.setattr("model.ablate.linear_evaluation", measure)
    return given


def test_a_row_is_of_the_encoder_that_was_trained(
    shards: Shards, tmp_path: Path, classified: list[Given]
) -> None:
    """And the line beneath of what it began as: exchanged, or one of them twice, they would look alike."""
    trials = plan([find_row("cp-stn")], tmp_path, shards, recipe="compact", changes=TINY)
    ablate(shards, trials, tmp_path, device=CPU)
    checkpoint, parts = load_checkpoint(trials[0].run), read_parts(shards, "xview")
    for (train_on, test_on, *_), is_trained in zip(classified, (True, False), strict=False):
        model = calibrated(checkpoint.build_model(trained=is_trained), parts.train, CPU)
        assert torch.equal(train_on.x_ND, encoder_features(model, parts.train, CPU).x_ND)
        assert torch.equal(test_on.x_ND, encoder_features(model, parts.test, CPU).x_ND)
    assert not torch.allclose(classified[0][0].x_ND, classified[1][0].x_ND, rtol=1e-3)


def test_a_table_is_of_the_recipes_protocol(shards: Shards, tmp_path: Path, classified: list[Given]) -> None:
    """Or another protocol's accuracies and copies would stand under its name. Penalties are chosen by the
    performances of its training samples, as `eval` does."""
    table = shards.table.copy()
    seen = table.index[table["camera"] != 3]  # the default protocol trains on all of these
    train, test = (seen[table.loc[seen, "subject"] % 2 == odd] for odd in (1, 0))
    table.loc[test[:3], "content"] = table.loc[train[0], "content"]
    these = dataclasses.replace(shards, table=table)
    trials = plan([find_row("rnn")], tmp_path, these, recipe="compact", changes=(*TINY, "protocol=xsub"))
    result = ablate(these, trials, tmp_path, device=CPU)
    parts = read_parts(these, "xsub")
    sizes = len(parts.train), len(parts.test)
    assert (result.protocol, result.train_samples, result.test_samples) == ("xsub", *sizes)
    assert result.copied == 3
    assert [(len(train.labels_N), len(test.labels_N)) for train, test, *_ in classified] == [sizes] * 3
    assert [performances for *_, performances in classified] == [parts.performances] * 3


def test_encoders_are_calibrated_on_the_training_samples(
    shards: Shards, trained: tuple[Path, Ablation], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What batch normalisation measured on test samples would be known before they are tested."""
    seen: list[int] = []

    def calibrate(_: CPSTN, samples: Samples, __: torch.device) -> None:
        seen.append(len(samples))
        raise RuntimeError("nothing more is needed")

    monkeypatch.setattr("model.ablate.calibrated", calibrate)
    monkeypatch.setattr("model.ablate.publish_bytes", lambda *_: None)  # not to stay for the other tests
    monkeypatch.setattr("model.ablate.LINEAR_VERSION", 1)  # so that it is asked again
    trials = plan([find_row("bigru")], trained[0], shards, recipe="compact", changes=TINY)
    result = ablate(shards, trials, trained[0], device=CPU)
    assert seen == [result.train_samples] * 2


@pytest.mark.parametrize("content", ["", "[]", "{}"])
def test_an_accuracy_that_cannot_be_read_is_measured_again(
    shards: Shards,
    trained: tuple[Path, Ablation],
    tmp_path: Path,
    classified: list[Given],
    content: str,
) -> None:
    """It takes seconds; a table that ends there would be a loss."""
    folder = tmp_path / "table"
    shutil.copytree(trained[0], folder)
    (folder / "bigru-0/linear.json").write_text(content)
    trials = plan([find_row("bigru")], folder, shards, recipe="compact", changes=TINY)
    for _ in range(2):
        assert ablate(shards, trials, folder, device=CPU).lines[0].top1 == {0: 1}
    assert len(classified) == 1


def test_seeds_count_from_the_recipes_own(shards: Shards, tmp_path: Path) -> None:
    changes = (*TINY, "seed=7")
    trials = plan([find_row("rnn")], tmp_path, shards, recipe="compact", changes=changes, seeds=2)
    found = [(trial.recipe.seed, trial.run.folder.name) for trial in trials]
    assert found == [(7, "rnn-7"), (8, "rnn-8")]


def test_a_change_holds_in_the_rows_that_do_not_set_it(shards: Shards, tmp_path: Path) -> None:
    """A row keeps what it is, whatever is changed for the others."""
    rows, changes = [find_row("graph-a"), find_row("cp-stn")], (*TINY, "spatial_weight=2")
    trials = plan(rows, tmp_path, shards, recipe="compact", changes=changes)
    assert [trial.recipe.spatial_weight for trial in trials] == [0, 2]


def test_a_row_that_the_shards_are_too_short_for_is_told_before_any_is_trained(
    shards: Shards, tmp_path: Path
) -> None:
    """A recurrent encoder leaves all frames, an ST-GCN few: the first row would train for hours."""
    rows, changes = (
        [find_row("rnn"), find_row("graph-a")],
        (*TINY, "model.pool.spans=[1, 9]", "model.pool.statistics=['mean']"),
    )
    with pytest.raises(ValueError, match=r"model\.pool\.spans holds 9; expected at most the \d frames"):
        plan(rows, tmp_path, shards, recipe="compact", changes=changes)
    with pytest.raises(ValueError, match="changes compact row by row; give --recipe compact"):
        plan(rows, tmp_path, shards, recipe="compact:rnn", changes=TINY)


class Stop(Exception):  # noqa: N818
    """Stands for Ctrl-C."""


def test_a_table_that_was_stopped_goes_on(shards: Shards, tmp_path: Path) -> None:
    """What was stopped in the middle of a run ends at the same accuracies as what never stopped."""
    rows = [find_row("rnn"), find_row("graph-a")]
    changes = (*TINY, "epochs=3")

    def stop_late(progress: Progress) -> None:
        if progress.epoch == 2:
            raise Stop

    def watch(trial: Trial) -> AbstractContextManager[OnProgress]:
        return nullcontext(stop_late if trial.row.name == "graph-a" else lambda _: None)

    trials = plan(rows, tmp_path / "stopped", shards, recipe="compact", changes=changes)
    with pytest.raises(Stop):
        ablate(shards, trials, tmp_path / "stopped", device=CPU, watch=watch)
    trained_again = []

    def note(trial: Trial) -> AbstractContextManager[OnProgress]:
        return nullcontext(lambda progress: trained_again.append((trial.row.name, progress.epoch)))

    trials = plan(rows, tmp_path / "stopped", shards, recipe="compact", changes=changes)
    stopped = ablate(shards, trials, tmp_path / "stopped", device=CPU, watch=note)
    assert {name for name, _ in trained_again} == {"graph-a"}
    assert min(epoch for _, epoch in trained_again) == 2
    trials = plan(rows, tmp_path / "whole", shards, recipe="compact", changes=changes)
    assert stopped.to_table() == ablate(shards, trials, tmp_path / "whole", device=CPU).to_table()


def test_a_row_that_fails_does_not_take_the_others_with_it(shards: Shards, tmp_path: Path) -> None:
    """One row out of memory at night must not cost the nine others."""
    rows = [find_row("rnn"), find_row("graph-a")]
    trials = plan(rows, tmp_path, shards, recipe="compact", changes=TINY)
    heard: list[str] = []

    def watch(trial: Trial) -> AbstractContextManager[OnProgress]:
        if trial.row.name == "rnn":
            raise RuntimeError("no memory left\nand a long story")
        return nullcontext(lambda _: None)

    result = ablate(shards, trials, tmp_path, device=CPU, watch=watch, on_stage=heard.append)
    assert [line.name for line in result.failed] == ["rnn"]
    assert result.failed[0].problems == {0: "no memory left"}
    assert "failed: no memory left" in heard
    assert heard[0] == f"1 of 5: {tmp_path / 'rnn-0'}"
    assert heard[-1] == f"5 of 5: {INPUT_STATISTICS}"
    assert [line.name for line in result.lines if line.top1] == [
        "graph-a",
        "untrained RNN",
        "untrained A",
        INPUT_STATISTICS,
    ]
    frame = result.to_frame().set_index("row")
    assert np.isnan(frame.loc["rnn", "top1"])  # type: ignore[arg-type]
    assert ablate(shards, trials, tmp_path, device=CPU).failed == []


@pytest.mark.parametrize(
    ("error", "problem"),
    [
        (ValueError("features are no numbers"), "features are no numbers"),
        (OSError(errno.EIO, "Input/output error", "x.pt"), "x.pt: Input/output error"),
        (MemoryError(), "MemoryError"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else "",
)
def test_whatever_it_is_that_fails(
    shards: Shards,
    trained: tuple[Path, Ablation],
    monkeypatch: pytest.MonkeyPatch,
    error: Exception,
    problem: str,
) -> None:
    """A full disk or a server that is gone is no reason either to leave the others undone."""

    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr("model.ablate.linear_evaluation", fail)
    monkeypatch.setattr("model.ablate.LINEAR_VERSION", 1)  # so that it is asked again
    trials = plan([find_row("bigru")], trained[0], shards, recipe="compact", changes=TINY)
    result = ablate(shards, trials, trained[0], device=CPU)
    assert [line.problems for line in result.lines] == [{0: problem}] * 3


@pytest.fixture
def uneven() -> Ablation:
    """One row with three seeds, another of which two failed, and statistics, which have one."""
    lines = (
        Line("cp-stn", "A", find_row("cp-stn"), {3: 0.1, 4: 0.2, 5: 0.6}),
        Line("whole-channels", "A", find_row("whole-channels"), {4: 0.5}, {3: "no memory", 5: "no disk"}),
        Line(INPUT_STATISTICS, "", None, {3: 0.4}),
    )
    return Ablation("ucla", "xview", 70, 30, 4, lines)


def test_a_row_is_the_mean_of_the_seeds_that_it_has(uneven: Ablation) -> None:
    """A single seed has no deviation, which is not one of 0."""
    frame = uneven.to_frame()
    np.testing.assert_allclose(frame["top1"], [0.3, 0.5, 0.4])
    np.testing.assert_allclose(frame["deviation"], [0.07**0.5, np.nan, np.nan])
    assert frame["seeds"].tolist() == [3, 1, 1]
    assert frame["half_c"].tolist() == [True, False, None]


def test_a_row_that_failed_with_one_seed_has_failed(uneven: Ablation, tmp_path: Path) -> None:
    """A mean over fewer seeds than were asked for must not pass for the whole."""
    assert [line.name for line in uneven.failed] == ["whole-channels"]
    content = json.loads(save_ablation(uneven, tmp_path, "table5", {})[0].read_text())
    assert [line["problems"] for line in content["lines"]] == [{}, {"3": "no memory", "5": "no disk"}, {}]
    assert content["copied"] == 4


def test_the_files_hold_mean_and_deviation_over_seeds(trained: tuple[Path, Ablation], tmp_path: Path) -> None:
    """What a paper would quote, in a form that a spreadsheet opens."""
    table, lines = save_ablation(trained[1], tmp_path, "table5", {"recipe": "compact"})
    content = json.loads(table.read_text())
    frame = pd.read_csv(lines).set_index("row")
    assert content["made_from"] == {"recipe": "compact"}
    for line in content["lines"]:
        found = list(line["top1"].values())
        assert frame.loc[line["row"], "top1"] == pytest.approx(np.mean(found), abs=1e-4)
        assert frame.loc[line["row"], "seeds"] == len(found)
        if len(found) > 1:
            assert frame.loc[line["row"], "deviation"] == pytest.approx(np.std(found, ddof=1), abs=1e-4)
    assert frame.loc["cp-stn", "paper"] == 0.6937
    assert list(frame.loc["cp-stn", ["encoder", "aug1", "pre1", "aug2", "pre2"]]) == [
        "A",
        "S",
        True,
        "T",
        True,
    ]


def test_a_table_of_failures_only_still_has_its_form(trained: tuple[Path, Ablation], tmp_path: Path) -> None:
    """The report must not fail because everything else did."""
    lines = tuple(dataclasses.replace(line, top1={}, problems={0: "no memory"}) for line in trained[1].lines)
    _, path = save_ablation(dataclasses.replace(trained[1], lines=lines), tmp_path, "table5", {})
    frame = pd.read_csv(path)
    assert frame["top1"].isna().all()
    assert (frame["seeds"] == 0).all()


@pytest.mark.parametrize(
    ("row", "changes", "message"),
    [
        ("cp-stn", "views=['spatial', 'spatial']", "views is set by every row already; leave it out"),
        ("cp-stn", "views = ['spatial', 'spatial']", "views is set by every row already"),
        ("graph-a", "spatial_weight=2", "spatial_weight is set by every row already"),
        ("graph-a", "model.encoder.adaptive=A+C", "model.encoder.adaptive is set by every row already"),
        ("cp-stn", "spatial_weight=0", "row cp-stn: spatial_weight is 0 .* expected above 0"),
        ("cp-stn", "epoch=3", "did you mean 'epochs'"),
        (
            "bigru",
            "objective=supervised",
            "objective is 'supervised' by recipe 'compact' .*; expected 'cpstn'",
        ),
        ("cp-stn", "protocol=xset", "no protocol 'xset'"),
        ("bigru", "epochs=2", r"bigru-0: another recipe \(epochs: 1 there, 2 now\); choose another --name"),
    ],
)
def test_mistakes_show_before_anything_is_trained(
    shards: Shards, trained: tuple[Path, Ablation], row: str, changes: str, message: str
) -> None:
    """A wrong setting told after a night of training is a lost night."""
    changed = (*TINY, changes)
    with pytest.raises(ValueError, match=message):
        plan([find_row(row)], trained[0], shards, recipe="compact", changes=changed)


def test_a_table_does_not_mix_with_a_run(shards: Shards, tmp_path: Path) -> None:
    """By a slip of --name its rows would lie among the run's checkpoints."""
    Run(tmp_path).folder.joinpath("run.json").write_text("{}")
    with pytest.raises(ValueError, match="holds a run of its own; give the table another folder by --name"):
        plan([find_row("bigru")], tmp_path, shards, recipe="compact", changes=TINY)


def test_a_table_that_cannot_be_written_is_told_before_anything_is_trained(
    shards: Shards, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trials, stages = (
        plan([find_row("bigru")], tmp_path / "new", shards, recipe="compact", changes=TINY),
        list[str](),
    )
    monkeypatch.setattr("os.access", lambda *_: False)
    with pytest.raises(PermissionError) as error:
        ablate(shards, trials, tmp_path / "new", device=CPU, on_stage=stages.append)
    assert stages == []
    assert error.value.filename == str(tmp_path)


def test_a_change_that_some_rows_undo_and_all_others_pass_by_is_refused(
    shards: Shards, tmp_path: Path
) -> None:
    """Recurrent rows have no graph: the table would come out as without the change."""
    rows = [find_row(name) for name in ("rnn", "graph-ab", "graph-a")]
    told = r"model\.encoder\.adaptive is set by graph-ab, graph-a already; leave it out"
    for change in ("model.encoder.adaptive=A+C", "model.encoder.adaptive = 'A+C'"):
        for changes in ((*TINY, change), (change, *TINY)):
            with pytest.raises(ValueError, match=told):
                plan(rows, tmp_path, shards, recipe="compact", changes=changes)
    assert plan(rows, tmp_path, shards, recipe="compact", changes=TINY)  # a graph's widths, for one
    assert plan(rows[:1], tmp_path, shards, recipe="compact", changes=(*TINY, "model.encoder.kernel=3"))


def test_a_run_of_a_later_row_is_checked_before_the_first_is_trained(
    shards: Shards, trained: tuple[Path, Ablation]
) -> None:
    rows, changes = [find_row("rnn"), find_row("bigru")], (*TINY, "epochs=2")
    with pytest.raises(ValueError, match="bigru-0: another recipe"):
        plan(rows, trained[0], shards, recipe="compact", changes=changes)


def test_runs_on_other_shards_are_not_mixed_in(shards: Shards, trained: tuple[Path, Ablation]) -> None:
    """Rows of one table are comparable only if they saw the same data."""
    other = dataclasses.replace(shards, manifest=dataclasses.replace(shards.manifest, files={}))
    with pytest.raises(ValueError, match="was trained on other shards than"):
        plan([find_row("bigru")], trained[0], other, recipe="compact", changes=TINY)


def test_unknown_tables_and_rows_list_the_known_ones() -> None:
    """A misspelt name is mended in one look."""
    with pytest.raises(ValueError, match="no table 'table6': expected one of table5, encoders, pretexts"):
        choose_rows("table6")
    with pytest.raises(ValueError, match="no table 'table6'"):
        choose_rows("table6", ("rnn",))
    with pytest.raises(ValueError, match="no row 'gru': expected one of rnn, bilstm, bigru"):
        choose_rows("table5", ("gru",))
    with pytest.raises(ValueError, match="no row 'gru'"):
        load_recipe("paper:gru")
    with pytest.raises(ValueError, match="no recipe 'papr:bigru'"):
        load_recipe("papr:bigru")


def test_a_table_is_not_started_by_torchrun(
    shards: Shards, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every process would train the same rows into the same folders."""
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ValueError, match="start it without torchrun"):
        plan([find_row("rnn")], tmp_path, shards, recipe="compact", changes=TINY)
