"""A recipe is read, changed, checked and saved without a key getting lost or misspelt in silence."""

import math
import re
import tomllib
from pathlib import Path

import pytest

from model.config import all_keys, flat
from model.recipe import (
    BUILT_IN_FOLDER,
    Recipe,
    built_in_recipes,
    load_recipe,
    recipe_from,
)


def test_paper_recipe_is_the_papers_setting() -> None:
    recipe = load_recipe("paper")
    assert (recipe.epochs, recipe.batch_size, recipe.lr) == (100, 256, 5e-5)
    assert (recipe.contrast_weight, recipe.spatial_weight, recipe.temporal_weight) == (1, 1, 1)
    assert len(recipe.model.encoder.widths) == 6
    assert len(recipe.model.decoder.widths) == 5
    assert recipe.model.decoder.dropout == 0.2
    assert recipe.model.encoder.adaptive == "A"
    assert recipe.model.split_channels
    assert recipe.model.streams == ("joint",)
    assert recipe.model.pool.statistics == recipe.model.contrast_pool.statistics == ("mean",)
    assert recipe.views == ("spatial", "temporal")
    assert recipe.view.rotation == math.pi / 6
    assert (recipe.view.shear, recipe.view.jitter_probability) == (1, 0.2)
    assert (recipe.objective, recipe.schedule, recipe.reduction) == ("cpstn", "linear", "mean")
    assert load_recipe("paper", ("batch_size=64",)).batch_size == 64


def test_paper_recipe_writes_out_every_key_that_cpstn_has() -> None:
    """Whoever reads it sees all that was decided; what belongs to other methods is not the paper's."""
    others = re.compile(
        r"(as_cal|pc|ms2l)_like\.|model\.(recurrent|statistics)\.|supervised_view|label_fraction"
    )
    of_one_run = {"seed", "protocol", "accumulate", "objective"}
    written = set(flat(tomllib.loads((BUILT_IN_FOLDER / "paper.toml").read_text())))
    assert {key for key in all_keys(Recipe) if not others.match(key)} - of_one_run == written


@pytest.mark.parametrize("name", built_in_recipes())
def test_saved_recipe_reads_back(name: str, tmp_path: Path) -> None:
    recipe = load_recipe(name, ("model.encoder.kernel=17", "views=['temporal', 'temporal']", "lr=1"))
    recipe.save(tmp_path / "recipe.toml")
    assert load_recipe(str(tmp_path / "recipe.toml")) == recipe
    assert recipe_from(recipe.to_table()) == recipe
    assert recipe.model.encoder.kernel == 17
    assert recipe.lr == 1.0


def test_rate_falls_to_zero() -> None:
    for schedule, half in (("linear", 0.5), ("cosine", 0.5)):
        recipe = Recipe(lr=2.0, schedule=schedule)
        assert recipe.lr_at(0, 10) == 2.0
        assert recipe.lr_at(5, 10) == pytest.approx(2.0 * half)
        assert recipe.lr_at(10, 10) == pytest.approx(0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("epoch=3", "unknown key 'epoch'; did you mean 'epochs'?"),
        (
            "model.encoder.kernal=3",
            "unknown key 'model.encoder.kernal'; did you mean 'model.encoder.kernel'?",
        ),
        (
            "model.decoder.kernal=3",
            "unknown key 'model.decoder.kernal'; did you mean 'model.decoder.kernel'?",
        ),
        ("model.epochs=3", "unknown key 'model.epochs'; did you mean 'epochs'?"),
        ("model.encoder.widths=[8, 4.5]", "model.encoder.widths[1] is 4.5; expected a whole number"),
        ("lr=true", "lr is True; expected a number"),
        ("label_fraction=1.5", "label_fraction is 1.5; expected at most 1"),
        ("finetune.epochs=0", "finetune.epochs is 0; expected a finite number above 0"),
        ("finetune.batch_size=0", "finetune.batch_size is 0; expected a finite number above 0"),
        ("=3", "expected key=value"),
        ("kernel=3", "unknown key 'kernel'; did you mean 'model.encoder.kernel'?"),
        ("epochs=many", "epochs is 'many'; expected a whole number"),
        ("epochs=1.5", "epochs is 1.5; expected a whole number"),
        ("epochs=true", "epochs is True; expected a whole number"),
        ("epochs=0", "epochs is 0; expected a finite number above 0"),
        ("temperature=inf", "temperature is inf; expected a finite number above 0"),
        ("model.recurrent.layers=101", "model.recurrent.layers is 101; expected at most 100"),
        ("model.statistics.layers=101", "model.statistics.layers is 101; expected at most 100"),
        ("model.encoder.kernel=10000000000000001", "model.encoder.kernel has 17 digits; expected at most"),
        ("batch_size=0", "batch_size is 0; expected a finite number above 0"),
        ("accumulate=0", "accumulate is 0; expected a finite number above 0"),
        ("lr=0", "lr is 0.0; expected a finite number above 0"),
        ("label_fraction=0", "label_fraction is 0.0; expected a finite number above 0"),
        ("weight_decay=-1", "weight_decay is -1.0; expected a finite number, at least 0"),
        ("contrast_weight=-1", "contrast_weight is -1.0; expected a finite number, at least 0"),
        ("spatial_weight=-1", "spatial_weight is -1.0; expected a finite number, at least 0"),
        ("temporal_weight=-1", "temporal_weight is -1.0; expected a finite number, at least 0"),
        ("seed=-1", "seed is -1; expected at least 0"),
        ("seed=4294967296", "seed is 4294967296; expected at least 0, below"),
        ("finetune.lr=0", "finetune.lr is 0.0; expected a finite number above 0"),
        ("finetune.schedule=step", "finetune.schedule is 'step'; expected one of linear, cosine"),
        ("precision=fp16", "precision is 'fp16'; expected one of float32, bf16"),
        ("reduction=max", "reduction is 'max'; expected one of mean, sum"),
        ("supervised_view=both", "supervised_view is 'both'; expected one of"),
        ("views=['spatial', 'mixed']", "views is 'mixed'; expected one of"),
        ("objective=supervized", "objective is 'supervized'; expected one of cpstn, supervised"),
        ("veiw.rotation=0.1", "unknown key 'veiw'; did you mean 'view'?"),
        ("model.pol.over=global", "unknown key 'model.pol'; did you mean 'model.pool'?"),
        ("fitting.epochs=3", "unknown key 'fitting'; known groups: view, model.encoder"),
        ("epochs=20\nlr=0.5", "expected a value on one line"),
        ("lr=1" + 400 * "0", "lr has 401 digits; expected a number that a float can hold"),
        ("schedule=step", "schedule is 'step'; expected one of linear, cosine"),
        ("positives=friend", "positives is 'friend'; expected one of recording, camera"),
        ("views=['spatial']", "views has 1 entries; expected two"),
        ("views=spatial", "views is 'spatial'; expected a list"),
        ("model=3", "model is 3; expected a group of keys"),
        ("epochs.most=3", "epochs is a value, not a group of keys"),
        ("epochs", "expected key=value"),
    ],
)
def test_a_wrong_change_says_so(change: str, message: str) -> None:
    with pytest.raises(ValueError, match=message.replace("?", "\\?").replace("[", "\\[")):
        load_recipe("compact", (change,))


def test_spaces_about_a_key_and_its_value_do_not_count() -> None:
    """Whoever writes a change as it stands in a file would read of an unknown key that looks like a known
    one."""
    assert load_recipe("compact", (" schedule = cosine ",)).schedule == "cosine"


def test_what_a_mask_teaches_needs_a_mask() -> None:
    nothing_hidden = ("view.mask_min=0", "view.mask_max=0")
    with pytest.raises(ValueError, match=r"view\.mask_max is 0\.0; expected above 0"):
        load_recipe("compact", nothing_hidden)
    with pytest.raises(ValueError, match=r"view\.mask_max is 0\.0"):
        load_recipe("ms2l-like", nothing_hidden)
    load_recipe("compact", (*nothing_hidden, "temporal_weight=0"))


def test_whichever_decoder_has_the_masked_view_needs_a_mask() -> None:
    """The first view is the spatial decoder's, the second the temporal one's, whatever their kinds."""
    first_hidden = ("view.mask_min=0", "view.mask_max=0", "views=['temporal', 'spatial']")
    with pytest.raises(ValueError, match=r"view\.mask_max is 0\.0.*; or set spatial_weight=0"):
        load_recipe("compact", (*first_hidden, "temporal_weight=0"))
    load_recipe("compact", (*first_hidden, "spatial_weight=0"))
    # A combined view is rebuilt as a whole.
    load_recipe("compact", ("view.mask_min=0", "view.mask_max=0", "views=['combined', 'spatial']"))


def test_the_contrast_alone_needs_two_samples() -> None:
    with pytest.raises(ValueError, match="batch_size is 1; expected at least 2"):
        load_recipe("best", ("batch_size=1",))
    load_recipe("compact", ("batch_size=1",))


def test_a_mirrored_body_cannot_be_rebuilt() -> None:
    with pytest.raises(ValueError, match=r"view\.mirror is 0\.5; expected 0 .* or set spatial_weight=0"):
        load_recipe("compact", ("view.mirror=0.5",))
    combined = ("view.mirror=0.5", "spatial_weight=0", 'views=["spatial", "combined"]')
    with pytest.raises(ValueError, match=r"from its combined view.* or set temporal_weight=0"):
        load_recipe("compact", combined)
    load_recipe("compact", ("view.mirror=0.5", "spatial_weight=0"))
    load_recipe("as-cal-like", ("view.mirror=0.5",))


@pytest.mark.parametrize(
    ("recipe", "changes"),
    [
        ("best", ("contrast_weight=0",)),
        ("ms2l-like", tuple(f"ms2l_like.{task}_weight=0" for task in ("prediction", "jigsaw", "contrast"))),
    ],
)
def test_a_loss_of_nothing_is_refused(recipe: str, changes: tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match=r"contrast_weight.* all 0.* expected one above 0"):
        load_recipe(recipe, changes)


def test_what_an_objective_does_not_use_is_not_asked_of_its_recipe() -> None:
    """Whoever sets it to nothing, to be sure, would be sent to change what has no effect."""
    nothing = [f"{task}_weight=0" for task in ("contrast", "spatial", "temporal")]
    load_recipe("compact", (*nothing, "objective=supervised", "batch_size=1"))
    load_recipe("pc-like", ("as_cal_like.queue=1",))
    least = "as_cal_like.queue=12", "as_cal_like.momentum=0"
    load_recipe("as-cal-like", ("batch_size=12", *least))


def test_a_row_is_what_it_is_called() -> None:
    """On a recipe without pretexts CP-STN's row would be the contrast alone, under another name."""
    with pytest.raises(ValueError, match="row cp-stn: spatial_weight is 0 by recipe 'best'"):
        load_recipe("best:cp-stn")
    assert load_recipe("compact:cp-stn").spatial_weight > 0
    assert load_recipe("compact:graph-a").spatial_weight == 0
    assert load_recipe("best").model.backbone != load_recipe("best:graph-a").model.backbone == "st_gcn"


def test_a_row_is_changed_as_any_recipe(tmp_path: Path) -> None:
    """By --set after the row's own changes, and of a file whose path has a colon, too."""
    path = tmp_path / "mine:best.toml"
    load_recipe("best").save(path)
    row = load_recipe(f"{path}:bilstm", ("model.backbone=bigru",))
    assert row.model.backbone == "bigru"


def test_a_file_that_is_no_recipe_is_named(tmp_path: Path) -> None:
    for content in (b"epochs = \xff", b"epochs = "):
        (tmp_path / "mine.toml").write_bytes(content)
        with pytest.raises(ValueError, match=r"mine\.toml: not a readable recipe"):
            load_recipe(str(tmp_path / "mine.toml"))


def test_a_file_with_a_wrong_key_is_named(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    for content, found in (
        ("epochs = 'many'", "epochs is 'many'"),
        ("[model]\nencoder = 3", r"model\.encoder is 3"),
    ):
        file.write_text(content)
        with pytest.raises(ValueError, match=rf"mine\.toml: {found}; expected"):
            load_recipe(str(file))
    file.write_text("epochs = 3")
    with pytest.raises(ValueError, match=r"mine\.toml and --set: lr is 'fast'"):
        load_recipe(str(file), ("lr=fast",))
    with pytest.raises(ValueError, match=r"^lr is 'fast'"):
        load_recipe("compact", ("lr=fast",))
    with pytest.raises(ValueError, match="/: not a file: expected"):
        load_recipe(f"{tmp_path}/")


def test_unknown_recipe_lists_the_known_ones() -> None:
    with pytest.raises(
        ValueError, match="expected as-cal-like, best, compact, contrast, lstm-autoencoder, ms2l-like, paper"
    ):
        load_recipe("papr")


def test_every_key_can_be_set() -> None:
    assert {"epochs", "view.rotation", "model.encoder.widths", "model.decoder.dropout"} <= set(
        all_keys(Recipe)
    )
