"""Shards and recipes that do not go together are told before training, and not when the night is over."""

import re
from dataclasses import replace
from pathlib import Path

import pytest

from data_specs.read import parse_spec
from model.recipe import load_recipe
from model.training_set import training_samples
from pipeline.normalize import NormalizeConfig
from pipeline.preprocess import PreprocessConfig, prepare, run
from pipeline.store.shards import Shards, open_shards


def test_two_cameras_are_refused_where_they_do_not_meet(both_shards: Shards) -> None:
    """Tars are read in their own order; and before anything is read, not in the first step."""
    tars = replace(both_shards, manifest=replace(both_shards.manifest, format="webdataset"))
    with pytest.raises(
        ValueError, match="recordings of two cameras do not meet; preprocess with --format zarr"
    ):
        training_samples(tars, load_recipe("compact", ("positives=camera",)))


def test_two_cameras_are_refused_where_they_filmed_one_after_the_other(shards: Shards) -> None:
    """NW-UCLA's names pair recordings of one subject and action: that would be a label."""
    with pytest.raises(ValueError, match="the data set's cameras did not film at once"):
        training_samples(shards, load_recipe("compact", ("positives=camera",)))


def test_padded_shards_are_not_trained_on(shards: Shards, tmp_path: Path) -> None:
    config = PreprocessConfig(NormalizeConfig(frames=16, resample="pad"))
    raw = shards.folder.parent / "raw"
    run(prepare(shards.spec, [raw], tmp_path / "padded", config, overwrite=False), workers=1)
    with pytest.raises(ValueError, match="padded with zeros"):
        training_samples(open_shards(tmp_path / "padded"), load_recipe("compact"))


@pytest.mark.parametrize("name", ["pool", "contrast_pool"])
def test_more_spans_than_frames_are_refused_before_training(shards: Shards, name: str) -> None:
    """It would be found out when the run is evaluated, after the last epoch."""
    strides = "model.encoder.strides=[2, 2, 1, 1, 1, 1]"
    message = rf"model\.{name}\.spans holds 5; expected at most the 4 frames that the encoder leaves of 16"
    with pytest.raises(ValueError, match=message):
        training_samples(shards, load_recipe("compact", (strides, f"model.{name}.spans=[1, 5]")))
    statistics = load_recipe("best", (f"model.{name}.spans=[1, 5]",))
    with pytest.raises(ValueError, match=rf"model\.{name}\.spans holds 5; expected \[1\], as statistics"):
        statistics.model.check_frames(16)


@pytest.mark.parametrize("name", ["pool", "contrast_pool"])
@pytest.mark.parametrize("statistic", ["deviation", "covariance"])
def test_changes_of_a_single_frame_are_refused_before_training(
    shards: Shards, name: str, statistic: str
) -> None:
    """They are the same for every recording, and nothing would be learnt from them."""
    still, moving = ("model.encoder.strides=[4, 4, 1]", "model.encoder.strides=[4, 2, 1]")
    other = "pool" if name == "contrast_pool" else "contrast_pool"
    change = (
        "model.encoder.widths=[4, 4, 4]",
        f'model.{name}.statistics=["mean", "{statistic}"]',
        f'model.{other}.statistics=["mean"]',
    )
    assert training_samples(shards, load_recipe("contrast", (*change, moving)))
    found = (
        rf"model\.{name}\.statistics holds '\w+', which of one frame .* leaves 1 of 16; expected \['mean'\]"
    )
    with pytest.raises(ValueError, match=found):
        training_samples(shards, load_recipe("compact", (*change, still)))
    with pytest.raises(ValueError, match=found):
        training_samples(shards, load_recipe("best", change[1:]))
    # One span of several may be of a single frame, and nobody asks what nothing is contrasted by.
    both = load_recipe("compact", (*change, moving, f"model.{name}.spans=[1, 2]"))
    assert training_samples(shards, both)
    if name == "contrast_pool":
        for unweighted in ("as-cal-like", "ms2l-like"):  # contrast_weight is CP-STN's alone
            spans = ("model.contrast_pool.spans=[16]", 'model.contrast_pool.statistics=["deviation"]')
            with pytest.raises(ValueError, match=r"contrast_pool\.statistics holds 'deviation'"):
                training_samples(shards, load_recipe(unweighted, (*spans, "contrast_weight=0")))
        supervised = load_recipe("compact", (*change, still, "objective=supervised"))
        assert training_samples(shards, supervised)


def test_a_graphs_changes_of_a_single_frame_are_refused_before_training(shards: Shards) -> None:
    strides = "model.encoder.strides=[4, 4, 1, 1, 1, 1]"
    with pytest.raises(
        ValueError, match=r"model\.statistics\.graph_statistics holds 'deviation', which of one"
    ):
        training_samples(shards, load_recipe("best", (strides, "model.encoder.widths=[4, 4, 4, 4, 4, 4]")))


def test_statistics_of_single_bodies_are_refused_before_supervised_training(shards: Shards) -> None:
    """Their batch normalisation would go by what it has seen before, which is nothing."""

    def accepted(recipe: str, *changes: str, world: int = 1) -> bool:
        wanted = load_recipe(recipe, ("objective=supervised", *changes))
        return len(training_samples(shards, wanted, world)) > 0

    assert accepted("best", "batch_size=16", "accumulate=8")
    assert accepted("best", "batch_size=2", world=2)  # ranks normalise together
    assert accepted("best", "batch_size=8", "accumulate=2", world=4)
    assert accepted("compact", "batch_size=16", "accumulate=16")
    with pytest.raises(
        ValueError, match=r"in 9 parts: of a single one .*lower accumulate, or raise batch_size$"
    ):
        accepted("best", "batch_size=16", "accumulate=9")
    with pytest.raises(
        ValueError, match=r"a batch is 1 samples: of a single one .*together: raise batch_size$"
    ):
        accepted("best", "batch_size=1")
    # Two views of one body are two numbers, which are one above and one below their mean, whatever they are.
    with pytest.raises(ValueError, match=r"in 16 parts: of a single one"):
        training_samples(shards, load_recipe("best", ("batch_size=16", "accumulate=16")))
    # A rank's two samples are two parts, however many more were asked for, and each sees the other rank's.
    assert accepted("best", "batch_size=4", "accumulate=3", world=2)


def test_distances_from_unknown_ends_are_refused_before_training(shards: Shards, tmp_path: Path) -> None:
    """Shards from before specs named hands and head carry a spec that does not."""
    spec = parse_spec(re.sub(r"ends = .*\n", "", shards.spec.text))
    config = PreprocessConfig(NormalizeConfig(frames=16))
    raw, out = shards.folder.parent / "raw", tmp_path / "shards"
    run(prepare(spec, [raw], out, config, overwrite=False), workers=2)
    recipe = load_recipe("compact", ('model.streams=["joint", "distance"]',))
    assert len(training_samples(shards, recipe))
    with pytest.raises(ValueError, match=r'"distance" needs a skeleton with ends'):
        training_samples(open_shards(out), recipe)
