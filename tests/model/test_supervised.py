"""Supervised training from scratch, Table 4's ST-GCN: the same loop, with labels."""

from pathlib import Path

import pytest
import torch

from model.checkpoint import load_checkpoint
from model.evaluate import evaluate
from model.question import Question
from model.recipe import load_recipe
from model.run import Run
from model.train import Progress, train, training_samples
from pipeline.store.shards import Shards

CPU = torch.device("cpu")
TINY = (
    "epochs=8",
    "batch_size=16",
    "lr=5e-3",
    "objective=supervised",
    "model.encoder.widths=[4, 4, 4, 4, 8, 8]",
    "model.decoder.widths=[4, 4, 4, 4, 4]",
    "model.projection=[8, 6]",
)


def test_labels_are_learnt_and_the_head_is_evaluated(shards: Shards, tmp_path: Path) -> None:
    """Table 4's first row would be an untrained network, or leave its own classifier behind."""
    recipe, run = load_recipe("compact", TINY), Run(tmp_path / "run")
    run.create(recipe, shards.location, shards.manifest.digest)
    heard: list[Progress] = []
    train(shards, recipe, run, device=CPU, on_progress=heard.append)
    assert set(heard[0].losses) == {"cross_entropy", "total"}
    assert heard[-1].losses["total"] < 0.9 * heard[0].losses["total"]
    result = evaluate(shards, load_checkpoint(run), Question(("knn",), "xview"), device=CPU)
    (own,) = [score for score in result.scores if score.mode == "supervised"]
    assert own.labels == len(training_samples(shards, recipe))
    assert own.confusion.sum() == result.test_samples
    assert own.top1 == pytest.approx(own.confusion.trace() / result.test_samples)


def test_only_the_labelled_share_is_used(shards: Shards) -> None:
    """A tenth of the labels must mean a tenth, of every class, and the same one everywhere."""
    whole = training_samples(shards, load_recipe("compact", TINY))
    few = training_samples(shards, load_recipe("compact", (*TINY, "label_fraction=0.3")))
    assert 0 < len(few) < 0.5 * len(whole)
    assert set(few.rows_N) < set(whole.rows_N)
    assert set(few.labels_N) == set(whole.labels_N)


def test_a_run_that_was_stopped_ends_at_the_same_weights(shards: Shards, tmp_path: Path) -> None:
    """Its head and its optimiser must be in the checkpoint as well."""
    recipe = load_recipe("compact", (*TINY, "epochs=2", "supervised_view=spatial", "accumulate=2"))
    runs = [Run(tmp_path / name) for name in ("whole", "stopped")]
    for run in runs:
        run.create(recipe, shards.location, shards.manifest.digest)
    train(shards, recipe, runs[0], device=CPU)

    def stop_in_second_epoch(progress: Progress) -> None:
        if progress.epoch == 1:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        train(shards, recipe, runs[1], device=CPU, on_progress=stop_in_second_epoch)
    train(shards, recipe, runs[1], device=CPU, resume=True)
    expected, found = (load_checkpoint(run).content for run in runs)
    for part in ("model", "head"):
        for name, weights in expected[part].items():
            assert torch.equal(weights, found[part][name]), name
