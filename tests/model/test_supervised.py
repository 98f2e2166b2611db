"""Supervised training from scratch, Table 4's ST-GCN: the same loop, with labels.

Axes: N sample, P packed present body, C coordinate, T frame, V joint, K class.
"""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from model.checkpoint import load_checkpoint, new_model
from model.evaluate import evaluate
from model.question import Question
from model.recipe import load_recipe
from model.run import Run
from model.share import share_out
from model.supervised import Supervised, head_scores, labelled_keys
from model.train import Progress, train
from model.training_set import training_samples
from pipeline.batch import Batch, View
from pipeline.samples import in_any_order, split_samples
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


@pytest.mark.parametrize(("parts", "seen"), [(1, "none"), (3, "none"), (1, "spatial")])
def test_a_step_is_the_mean_cross_entropy_of_the_batch(shards: Shards, parts: int, seen: str) -> None:
    """However the batch is cut, and of the view where the recipe names one: with that key without effect, a
    figure for training on views would be one for training without."""
    N, P, C, T, V, K = 5, 6, 3, 16, 20, 10
    sample_P, label_N = torch.tensor([0, 1, 1, 2, 3, 4]), torch.tensor([4, 0, 9, 4, 7])
    random = torch.Generator().manual_seed(0)
    original_PCTV, view_PCTV = torch.randn(2, P, C, T, V, generator=random)
    views = () if seen == "none" else (View(seen, view_PCTV, torch.full((N,), T)),)
    batch = Batch(original_PCTV, views, sample_P, torch.arange(N), label_N, torch.arange(N), N)
    recipe = load_recipe("compact", TINY)
    objective = Supervised(new_model(shards.spec, recipe), recipe, K).eval()
    losses_L = objective.backward(share_out(batch, parts, CPU), step=0)
    shown_PCTV = view_PCTV if views else original_PCTV

    def loss_of(sample: int) -> Tensor:
        q_PCtV = objective.model.encode(shown_PCTV[sample_P == sample])
        bodies = len(q_PCtV)
        h_ND = objective.model.represent(q_PCtV, torch.zeros(bodies, dtype=torch.int64), 1)
        return F.cross_entropy(objective.head(h_ND), label_N[sample : sample + 1])

    expected = torch.stack([loss_of(sample) for sample in range(N)]).mean()
    torch.testing.assert_close(losses_L, expected.detach().repeat(2))
    (gradient,) = torch.autograd.grad(expected, [objective.head.weight])
    torch.testing.assert_close(objective.head.weight.grad, gradient)


def test_test_samples_do_not_change_each_others_scores(shards: Shards) -> None:
    """In training, batch normalisation asks the others of the batch: a score would be that of a batch."""
    recipe = load_recipe("compact", TINY)
    objective = Supervised(new_model(shards.spec, recipe), recipe, len(shards.spec.classes))
    (samples,) = in_any_order(split_samples(shards, "xview", "test"))
    found_NK = head_scores(objective.model.train(), objective.head, samples, CPU)
    assert not objective.model.training
    alone = [
        head_scores(objective.model, objective.head, samples.take(np.array([index])), CPU)
        for index in range(len(samples))
    ]
    torch.testing.assert_close(found_NK, torch.cat(alone), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("protocol", ["xview1", "xsub"])
def test_labels_are_those_of_the_recipes_own_protocol(shards: Shards, protocol: str) -> None:
    """Taken from the data set's default one, labels of its test samples would be trained on, and those that
    were would not be told at its evaluation."""
    recipe = load_recipe("compact", (*TINY, f"protocol={protocol}", "label_fraction=0.3"))
    samples, keys = training_samples(shards, recipe), labelled_keys(shards, recipe)
    assert set(keys) < set(shards.split(protocol, "train")["key"])
    table = shards.table.set_index("row")
    assert table.loc[samples.rows_N, "key"].tolist() == keys


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
