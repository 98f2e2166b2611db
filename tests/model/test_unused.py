"""Keys that are said to decide nothing of a recipe decide nothing."""

from pathlib import Path
from typing import Any

import pytest
import torch

from model.checkpoint import load_checkpoint
from model.config import all_keys, flat
from model.recipe import Recipe, load_recipe
from model.run import Run
from model.train import train
from model.unused import unused_keys
from pipeline.store.shards import Shards

TINY = (
    "epochs=1",
    "batch_size=40",
    "model.encoder.widths=[4, 4, 8]",
    "model.encoder.strides=[2, 1, 1]",
    "model.decoder.widths=[4, 4, 4, 4, 4]",
    "model.projection=[8, 6]",
    "model.recurrent.hidden=8",
    "model.statistics.hidden=8",
    "model.statistics.whitened=16",
)
KINDS: dict[str, tuple[str, tuple[str, ...]]] = {
    "cp-stn": ("compact", ()),
    "contrast alone": ("compact", ("spatial_weight=0", "temporal_weight=0")),
    "pretexts alone": ("compact", ("contrast_weight=0",)),
    "random first weights": ("compact", ("model.encoder.first_weights=random",)),
    "one unit": (
        "compact",
        ("model.encoder.widths=[8]", "model.encoder.strides=[1]", "model.encoder.first_kernel=7"),
    ),
    "two spatial views": ("compact", ("views=['spatial', 'spatial']", "temporal_weight=0")),
    "combined views": ("compact", ("views=['combined', 'combined']",)),
    "recurrent": ("paper:bigru", ()),
    "statistics, whitened": ("best", ()),
    "statistics alone": ("best", ("model.statistics.graph_streams=[]", "model.statistics.whitened=0")),
    "supervised": ("compact", ("objective=supervised",)),
    "supervised on views": ("compact", ("objective=supervised", "supervised_view=temporal")),
    "as-cal-like": ("as-cal-like", ()),
    "pc-like": ("pc-like", ()),
    "ms2l-like": ("ms2l-like", ()),
    "autoencoder": ("lstm-autoencoder", ()),
}
# Of what is chosen among words, or is bound to others, two values each.
OTHERS: dict[str, tuple[Any, Any]] = {
    "reduction": ("sum", "mean"),
    "supervised_view": ("combined", "none"),
    "views": (["temporal", "spatial"], ["spatial", "spatial"]),
    "model.encoder.widths": ([6, 6, 4], []),
    "model.encoder.strides": ([1, 2, 2], []),
    "model.encoder.graph": ("st_gcn", "inward_outward"),
    "model.encoder.adaptive": ("A+B+C", "A"),
    "model.encoder.input_scale": ("joint", "stream"),
    "model.encoder.shortcut_frames": ("first", "mean"),
    "model.encoder.first_weights": ("looks_linear", "random"),
    "model.encoder.motion_frames": (2, 1),
    "model.encoder.kernel": (9, 11),
    "model.encoder.first_kernel": (11, 0),
    "model.decoder.widths": ([6, 6, 6, 6, 6], []),
    "model.decoder.kernel": (3, 7),
    "model.decoder.upsampling": ("linear", "nearest"),
    "model.decoder.output": ("metres", "deviations"),
    "model.decoder.first_weights": ("random", "looks_linear"),
    "model.statistics.graph_streams": (["joint"], []),
    "model.statistics.graph_statistics": (["covariance"], ["mean"]),
    "pc_like.weakened": ("states", "weights"),
    "view.mask_min": (0.3, 0.35),
    "view.mask_max": (0.6, 0.65),
    "view.mirror": (0.25, 0.35),
}


def recipe_of(kind: str, *changes: str) -> Recipe:
    name, more = KINDS[kind]
    return load_recipe(name, (*TINY, *more, *changes))


def other(key: str, value: Any) -> str:
    """The key with another value that it may have."""
    if key in OTHERS:
        return f"{key}={next(wanted for wanted in OTHERS[key] if wanted != value)}"
    if isinstance(value, bool):
        return f"{key}={str(not value).lower()}"
    if isinstance(value, list):
        return f"{key}={[number + 1 for number in value]}"
    return f"{key}={value + 1 if isinstance(value, int) else value / 2 + 0.07}"


def trained(recipe: Recipe, shards: Shards, folder: Path) -> dict[str, torch.Tensor]:
    run = Run(folder)
    run.create(recipe, shards.folder, shards.manifest.digest)
    train(shards, recipe, run, device=torch.device("cpu"), threads=1)
    state: dict[str, torch.Tensor] = load_checkpoint(run).content["model"]
    return state


@pytest.mark.parametrize("kind", KINDS)
def test_keys_that_decide_nothing_change_no_weight(shards: Shards, tmp_path: Path, kind: str) -> None:
    """Somebody told that a key decides nothing will not look at it again."""
    recipe = recipe_of(kind)
    table, unused = flat(recipe.to_table()), unused_keys(recipe)
    changed = recipe_of(kind, *(other(key, table[key]) for key in sorted(unused)))
    now = flat(changed.to_table())
    assert all(now[key] != table[key] for key in unused)
    before, after = trained(recipe, shards, tmp_path / "a"), trained(changed, shards, tmp_path / "b")
    assert before.keys() == after.keys()
    for name, weights in before.items():
        assert torch.equal(weights, after[name]), name


@pytest.mark.parametrize(
    ("kind", "used", "not_used"),
    [
        ("cp-stn", "view.mask_max view.shear view.crop temperature reduction", "model.recurrent.hidden"),
        ("cp-stn", "model.decoder.kernel views model.encoder.motion_frames", "as_cal_like.queue"),
        ("contrast alone", "temperature views model.pool.statistics", "model.split_channels reduction"),
        ("pretexts alone", "model.split_channels reduction model.decoder.widths", "temperature"),
        ("random first weights", "model.encoder.branch_gain", "model.encoder.motion_frames"),
        ("one unit", "model.encoder.first_kernel model.encoder.dropout", "model.encoder.branch_gain"),
        ("one unit", "model.decoder.kernel", "model.decoder.upsampling model.encoder.shortcut_frames"),
        ("two spatial views", "view.bones view.jitter_probability", "view.mask_min view.crop"),
        ("combined views", "view.crop view.rotation", "view.mask_max"),
        ("recurrent", "model.recurrent.layers", "model.encoder.kernel model.decoder.kernel"),
        (
            "statistics, whitened",
            "model.encoder.kernel model.statistics.graph_statistics",
            "model.encoder.dropout",
        ),
        ("statistics alone", "model.statistics.spans", "model.encoder.widths"),
        ("supervised", "label_fraction lr finetune.lr", "views view.rotation view.mask_min temperature"),
        ("supervised on views", "supervised_view view.mask_min", "view.rotation contrast_weight"),
        ("as-cal-like", "as_cal_like.queue views temperature", "ms2l_like.segments spatial_weight"),
        ("pc-like", "pc_like.weakened", "temperature views view.shear"),
        ("ms2l-like", "ms2l_like.segments temperature view.mask_max", "views view.shear"),
        ("autoencoder", "model.recurrent.hidden", "temperature pc_like.weakened view.crop"),
    ],
)
def test_what_decides_something_is_not_among_them(kind: str, used: str, not_used: str) -> None:
    """A note that a key decides nothing would keep a user from what they need."""
    recipe = recipe_of(kind)
    found, known = unused_keys(recipe), flat(recipe.to_table()).keys()
    assert known >= {*used.split(), *not_used.split()}
    assert found.isdisjoint(used.split())
    assert found.issuperset(not_used.split())


def test_every_key_of_some_recipe_decides_something() -> None:
    """A key that is unused everywhere is misspelt in the list, or has no business in a recipe."""
    everywhere = set(all_keys(Recipe)).intersection(*(unused_keys(recipe_of(kind)) for kind in KINDS))
    assert not everywhere
