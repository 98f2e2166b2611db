"""From a recipe's objective to the baseline of that name."""

from collections.abc import Callable

from model.baselines.as_cal import AsCalLike
from model.baselines.autoencoder import Autoencoder
from model.baselines.baseline import Baseline
from model.baselines.ms2l import MS2LLike
from model.baselines.predict_cluster import PCLike
from model.baselines.settings import AS_CAL, AUTOENCODER, MS2L, PC
from model.cpstn import CPSTN
from model.parallel import ALONE, Ranks
from model.recipe import Recipe

KINDS: dict[str, Callable[[CPSTN, Recipe, Ranks], Baseline]] = {
    AS_CAL: AsCalLike,
    PC: PCLike,
    MS2L: MS2LLike,
    AUTOENCODER: Autoencoder,
}


def new_baseline(model: CPSTN, recipe: Recipe, ranks: Ranks = ALONE) -> Baseline:
    """The recipe's baseline on this model; what it has beside gets its weights from torch's generator."""
    return KINDS[recipe.objective](model, recipe, ranks)
