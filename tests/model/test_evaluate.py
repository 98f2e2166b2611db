"""The evaluation as a whole, on recordings whose classes differ: what must be found, what must not leak."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from data_specs.spec import load_spec
from model.checkpoint import Checkpoint, Run, load_checkpoint
from model.evaluate import (
    FINETUNED,
    FROM_SCRATCH,
    STATISTICS,
    TRAINED,
    UNTRAINED,
    calibrated,
    evaluate,
    finetune,
)
from model.recipe import load_recipe
from model.train import train
from pipeline.loader import split_samples
from pipeline.normalize import NormalizeConfig
from pipeline.preprocess import PreprocessConfig, prepare, run
from pipeline.raw.synthetic import synthesize
from pipeline.store.shards import Shards, open_shards

CPU = torch.device("cpu")
TINY = (
    "epochs=1",
    "batch_size=16",
    "model.encoder.widths=[4, 4, 4, 4, 8, 8]",
    "model.decoder.widths=[4, 4, 4, 4, 4]",
    "finetune.epochs=2",
)


@pytest.fixture(scope="module")
def checkpoint(shards: Shards, tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    recipe, new = load_recipe("compact", TINY), Run(tmp_path_factory.mktemp("runs") / "run")
    new.create(recipe, shards.folder, shards.manifest.digest)
    train(shards, recipe, new, device=CPU)
    return load_checkpoint(new)


def test_every_row_is_there_and_repeats_exactly(shards: Shards, checkpoint: Checkpoint) -> None:
    results = [
        evaluate(shards, checkpoint, protocol="xview", label_fraction=0.5, device=CPU).to_table()
        for _ in range(2)
    ]
    assert results[0] == results[1]
    rows = {(score["protocol"], score["features"]) for score in results[0]["scores"]}
    three = (TRAINED, UNTRAINED, STATISTICS)
    assert rows == {
        *(("linear", features) for features in three),
        *(("nearest neighbour", features) for features in three),
        ("semi-supervised", FINETUNED),
        ("semi-supervised", FROM_SCRATCH),
    }
    statistics = next(s for s in results[0]["scores"] if s["features"] == STATISTICS)
    assert statistics["top1"] > 0.5  # ten classes; the motions differ


def test_labels_of_test_samples_change_no_classifier(shards: Shards, checkpoint: Checkpoint) -> None:
    table = shards.table.copy()
    is_test = table["camera"] == 3
    table.loc[is_test, "label"] = (table.loc[is_test, "label"] + 1) % 10
    moved = replace(shards, table=table)
    plain = evaluate(shards, checkpoint, protocol="xview", label_fraction=0.5, device=CPU)
    shifted = evaluate(moved, checkpoint, protocol="xview", label_fraction=0.5, device=CPU)
    for one, other in zip(plain.scores, shifted.scores, strict=True):
        np.testing.assert_array_equal(np.roll(one.confusion_KK, 1, axis=0), other.confusion_KK)


def test_fine_tuning_moves_a_copy_of_the_encoder(shards: Shards, checkpoint: Checkpoint) -> None:
    model = checkpoint.build_model()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    samples = split_samples(shards, "xview", "train").take(np.arange(12))
    tuned = finetune(model, samples, 10, checkpoint.recipe().finetune, CPU, seed=0)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert not torch.equal(
        next(tuned.encoder.parameters()).detach(), next(model.encoder.parameters()).detach()
    )


def test_calibration_changes_statistics_and_no_weight(shards: Shards, checkpoint: Checkpoint) -> None:
    model = checkpoint.build_model(trained=False)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    after = calibrated(model, split_samples(shards, "xview", "train"), CPU).state_dict()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed
    assert all("running" in name or "num_batches" in name for name in changed)


def test_a_model_of_another_skeleton_is_refused(checkpoint: Checkpoint, tmp_path: Path) -> None:
    spec = load_spec("ntu60")
    synthesize(spec, tmp_path / "raw", 4)
    config = PreprocessConfig(NormalizeConfig(frames=16))
    run(prepare(spec, [tmp_path / "raw"], tmp_path / "shards", config, overwrite=False), workers=1)
    with pytest.raises(ValueError, match="skeletons of 25 joints; the run was trained on ucla with 20"):
        evaluate(
            open_shards(tmp_path / "shards"), checkpoint, protocol="xsub", label_fraction=None, device=CPU
        )


def test_test_samples_that_training_saw_are_counted(shards: Shards, checkpoint: Checkpoint) -> None:
    own = evaluate(shards, checkpoint, protocol="xview3", label_fraction=None, device=CPU)
    assert own.seen_in_training == 0  # another name of the protocol that was trained on
    other = evaluate(shards, checkpoint, protocol="xview1", label_fraction=None, device=CPU)
    assert other.seen_in_training == other.test_samples
