"""What is shown of a sample is what training made of it, and what the decoders gave for it."""

import copy
import dataclasses

import numpy as np
import pytest
import torch

from data_specs.read import load_spec
from model.checkpoint import Checkpoint, new_model
from model.objective import batch_losses
from model.recipe import Recipe, load_recipe
from model.report.scene import scene_of
from model.sample_views import Sample, make_views, read_sample
from pipeline.augment import ViewConfig
from pipeline.batch import Batch
from pipeline.loader import train_batches
from pipeline.samples import split_samples
from pipeline.store.shards import Shards

TINY = (
    "batch_size=8",
    "model.encoder.widths=[4, 4, 4, 4, 8, 8]",
    "model.decoder.widths=[4, 4, 4, 4, 4]",
    "model.projection=[8, 6]",
)
CHANGED = ("view.crop=0.4", "view.bones=0.2", "view.rotation=1.0")


def checkpoint_of(shards: Shards, recipe: Recipe, spec_name: str | None = None) -> Checkpoint:
    """With other weights than those it began with."""
    spec = load_spec(spec_name) if spec_name else shards.spec
    weights = new_model(spec, recipe).state_dict()
    content = {
        "model": {
            name: 1.1 * weight if weight.is_floating_point() else weight for name, weight in weights.items()
        },
        "recipe": recipe.to_table(),
        "spec": spec.text,
        "step": 7,
        "steps": 1234,
    }
    return Checkpoint(content)


def training_batch(shards: Shards, recipe: Recipe, seed: int) -> Batch:
    """The first batch of a training on one sample, with memory of its own."""
    batches = train_batches(
        split_samples(shards, "xview", "train").take(np.array([3])),
        batch_size=1,
        seed=seed,
        start_step=0,
        end_step=1,
        views=recipe.views,
        config=recipe.view,
        threads=1,
    )
    batch = copy.deepcopy(next(batches))
    batches.close()
    return batch


def key_of(shards: Shards, batch: Batch) -> str:
    return str(shards.table.loc[shards.table["row"] == int(batch.ids_N[0]), "key"].iloc[0])


@pytest.mark.parametrize(
    "views",
    [
        '["spatial", "temporal"]',
        '["temporal", "temporal"]',
        '["combined", "combined"]',
        '["combined", "temporal"]',
    ],
)
def test_the_views_are_those_of_training(shards: Shards, views: str) -> None:
    recipe = load_recipe("compact", (*TINY, *CHANGED, f"views={views}"))
    batch = training_batch(shards, recipe, seed=5)
    sample = read_sample(shards, key_of(shards, batch))
    made = make_views(sample, recipe.views, recipe.view, skeleton=shards.spec.skeleton, seed=5)
    for view, trained in zip(made, batch.views, strict=True):
        assert view.kind == trained.kind
        assert view.visible == int(trained.visible_N[0])
        np.testing.assert_array_equal(view.x_PCTV, trained.x_PCTV.numpy())
        wanted_PCTV = batch.target_of(trained)
        np.testing.assert_array_equal(view.target_PCTV, wanted_PCTV.numpy())


@pytest.mark.parametrize("crop", ["0.0", "0.5"])
@pytest.mark.parametrize("views", ['["spatial", "temporal"]', '["combined", "combined"]'])
def test_what_is_rebuilt_is_what_the_losses_are_taken_of(shards: Shards, crop: str, views: str) -> None:
    recipe = load_recipe("compact", (*TINY, f"view.crop={crop}", f"views={views}"))
    checkpoint = checkpoint_of(shards, recipe)
    batch = training_batch(shards, recipe, seed=2)
    with torch.no_grad():
        losses = batch_losses(checkpoint.build_model().eval(), batch, recipe, torch.device("cpu"))
    scene = scene_of(shards, key_of(shards, batch), checkpoint=checkpoint, seed=2)
    for panel, loss in zip(scene.panels[3:], (losses.spatial, losses.temporal), strict=True):
        assert panel.target_MTVC is not None
        asked = slice(panel.rebuilt_from, None)
        off_MTVC = panel.x_MTVC[:, asked] - panel.target_MTVC[:, asked]
        assert np.square(off_MTVC).mean() == pytest.approx(loss.item(), rel=1e-4)
        assert np.isnan(panel.x_MTVC[:, : panel.rebuilt_from]).all()
    assert scene.panels[3].rebuilt_from == 0
    assert scene.panels[4].rebuilt_from == (scene.panels[2].hidden_from or 0)
    assert scene.note == "rebuilt after step 7 of 1,234"


def test_without_a_run_there_are_the_sample_and_two_views(shards: Shards) -> None:
    scene = scene_of(shards, None)
    assert [panel.name for panel in scene.panels] == ["original", "spatial view", "temporal view"]
    assert scene.shape == (1, 16, 20)
    assert (scene.title, scene.note) == ("Northwestern-UCLA", "")
    facts = shards.table.iloc[0]
    assert scene.key == facts["key"]
    assert scene.class_name == shards.spec.classes[facts["label"]]
    stored_MTVC = shards.source.read(int(facts["row"]))[:1].transpose(0, 2, 3, 1)
    np.testing.assert_array_equal(scene.panels[0].x_MTVC, stored_MTVC)
    hidden = scene.panels[2].hidden_from
    assert hidden is not None
    np.testing.assert_array_equal(scene.panels[2].x_MTVC[:, :hidden], stored_MTVC[:, :hidden])
    assert np.isnan(scene.panels[2].x_MTVC[:, hidden:]).all()
    assert scene.frame_seconds == pytest.approx((facts["num_frames"] - 1) / 15 / 12)
    sides = dict(zip(scene.joints, scene.sides, strict=True))
    assert (sides["left knee"], sides["right knee"], sides["head"]) == (0, 1, 2)


def test_settings_and_seed_decide_the_views(shards: Shards) -> None:
    still = scene_of(shards, None, config=ViewConfig(rotation=0, shear=0, jitter_probability=0))
    np.testing.assert_allclose(still.panels[1].x_MTVC, still.panels[0].x_MTVC, atol=1e-6)
    one, other = (scene_of(shards, None, seed=seed).panels[1].x_MTVC for seed in (1, 2))
    assert np.abs(one - other).max() > 0.01


def test_a_body_that_is_absent_is_no_number(shards: Shards, monkeypatch: pytest.MonkeyPatch) -> None:
    x_PCTV = np.random.default_rng(0).normal(size=(2, 3, 16, 20)).astype(np.float32)
    x_PCTV[1, :, 5:7] = 0
    sample = Sample("two", row=3, label=0, num_frames=16, x_PCTV=x_PCTV)
    monkeypatch.setattr("model.report.scene.read_sample", lambda *_: sample)
    recipe = load_recipe("compact", TINY)
    scene = scene_of(shards, "two", checkpoint=checkpoint_of(shards, recipe))
    for panel in scene.panels:
        absent_MT = np.isnan(panel.x_MTVC).all(axis=(2, 3))
        expected_MT = np.zeros((2, 16), bool)
        expected_MT[1, 5:7] = True
        expected_MT[:, : panel.rebuilt_from] = True
        expected_MT[:, panel.hidden_from or 16 :] = True
        np.testing.assert_array_equal(absent_MT, expected_MT)
        np.testing.assert_array_equal(np.isnan(panel.x_MTVC).any(axis=(2, 3)), absent_MT)


@pytest.mark.parametrize(
    "changes",
    [
        ("model.backbone=bilstm", "spatial_weight=0", "temporal_weight=0", "model.recurrent.hidden=4"),
        ("spatial_weight=0", "temporal_weight=0"),
        ("objective=supervised",),
    ],
)
def test_a_run_without_decoders_rebuilds_nothing(shards: Shards, changes: tuple[str, ...]) -> None:
    recipe = load_recipe("compact", (*TINY, *changes))
    scene = scene_of(shards, None, checkpoint=checkpoint_of(shards, recipe))
    assert len(scene.panels) == 3
    assert scene.note == ""


def test_one_decoder_rebuilds_alone(shards: Shards) -> None:
    recipe = load_recipe("compact", (*TINY, "spatial_weight=0", 'views=["spatial", "spatial"]'))
    scene = scene_of(shards, None, checkpoint=checkpoint_of(shards, recipe))
    names = ["original", "first spatial view", "second spatial view", "rebuilt by the temporal decoder"]
    assert [panel.name for panel in scene.panels] == names
    assert not np.isnan(scene.panels[3].x_MTVC).any()


def test_errors_say_what_to_do(shards: Shards) -> None:
    with pytest.raises(ValueError, match=r"no sample 'nobody'; samples.csv lists them, such as a"):
        scene_of(shards, "nobody")
    with pytest.raises(ValueError, match="20 joints; the run was trained on ntu60 with 25"):
        scene_of(shards, None, checkpoint=checkpoint_of(shards, load_recipe("compact", TINY), "ntu60"))
    skeleton = dataclasses.replace(shards.spec.skeleton, bones=shards.spec.skeleton.bones[::-1], root=2)
    child, parent = skeleton.bones[0]
    others = (*skeleton.bones[1:], (child, skeleton.root if parent != skeleton.root else skeleton.centre))
    spec = dataclasses.replace(shards.spec, skeleton=dataclasses.replace(skeleton, bones=others))
    hung = dataclasses.replace(shards, spec=spec)
    with pytest.raises(ValueError, match="joints hang together otherwise than in ucla"):
        scene_of(hung, None, checkpoint=checkpoint_of(shards, load_recipe("compact", TINY)))
