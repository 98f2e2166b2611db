"""What a recipe trains on, and whether these shards have it."""

from collections.abc import Iterator

from model.baselines.settings import AS_CAL, MS2L
from model.cpstn import STATISTICS
from model.parallel import check_share
from model.recipe import CPSTN_OBJECTIVE, SUPERVISED_OBJECTIVE, Recipe
from model.streams import check_ends
from model.supervised import labelled_samples
from pipeline.samples import Samples, check_positives, split_samples
from pipeline.store.shards import Shards


def training_samples(shards: Shards, recipe: Recipe, world: int = 1) -> Samples:
    """The samples that a recipe trains on, on `world` ranks together.

    Raises ValueError if these shards do not have any, or are padded, which temporal masking would take for
    motion, if they have too few frames or no joints that a stream needs, if a batch is too small for the
    contrast or for batch normalisation, or if the ranks cannot share one.
    """
    check_share(recipe.batch_size, world)
    _check_recordings(shards, recipe)
    if recipe.objective == SUPERVISED_OBJECTIVE:
        samples = labelled_samples(shards, recipe)
    else:
        samples = split_samples(shards, recipe.protocol_on(shards.spec), "train")
        check_positives(samples, recipe.positives)
    in_a_batch = min(len(samples), recipe.batch_size)
    if in_a_batch == 1 and recipe.objective == CPSTN_OBJECTIVE and recipe.contrast_weight:
        raise ValueError(
            f"a batch is one sample (batch_size {recipe.batch_size}, {len(samples):,} training samples), "
            f"which the contrast can compare with nothing; expected at least two, or contrast_weight=0"
        )
    _check_parts(recipe, in_a_batch, world)
    return samples


def _check_recordings(shards: Shards, recipe: Recipe) -> None:
    """Raises ValueError if they are too short, padded, or without joints that a stream needs."""
    frames = shards.source.shape[3]
    recipe.model.check_frames(frames)
    of_weight = recipe.objective == CPSTN_OBJECTIVE and recipe.contrast_weight > 0
    recipe.model.check_changes(frames, contrast=of_weight or recipe.objective in (AS_CAL, MS2L))
    check_ends(recipe.model.streams, shards.spec.skeleton)
    if recipe.objective == MS2L:
        recipe.ms2l_like.check_frames(frames)
    if shards.manifest.settings["resample"] == "pad":
        raise ValueError(
            f"{shards.location}: padded with zeros, which temporal masking would take for motion; "
            f"train on shards made with --resample linear or nearest"
        )


def _check_parts(recipe: Recipe, in_a_batch: int, world: int) -> None:
    """Of a body by itself, or of two views of it, the batch normalisation of statistics measures nothing
    (`statistics.BodyNorm`). Raises ValueError where it would see no others. in_a_batch: samples, on all
    ranks, which normalise together."""
    of_a_rank = in_a_batch // world
    together = world * (of_a_rank // min(recipe.accumulate, of_a_rank))
    if recipe.model.backbone != STATISTICS or together >= 2:
        return
    parts = f", worked on in {recipe.accumulate:,} parts" if recipe.accumulate > 1 else ""
    way_out = "lower accumulate, or raise batch_size" if parts else "raise batch_size"
    raise ValueError(
        f"a batch is {in_a_batch:,} samples{parts}: of a single one the batch normalisation of statistics "
        f"measures nothing; expected at least two together: {way_out}"
    )


def notes_on_training(shards: Shards, recipe: Recipe, samples: Samples) -> Iterator[str]:
    """What to know before a run is trained on these samples."""
    if recipe.batch_size > len(samples):
        yield f"batch_size is {recipe.batch_size:,}; a batch is all {len(samples):,} training samples"
    protocol = recipe.protocol_on(shards.spec)
    if len(shards.split(protocol, "test")) == 0:
        yield (
            f"protocol {protocol} finds no test samples in these shards; eval will need other shards, or "
            f"another protocol"
        )
