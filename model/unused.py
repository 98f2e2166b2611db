"""Which keys of a recipe decide nothing of its training, as they are of a part that it does not have."""

from model.baselines.settings import AS_CAL, AUTOENCODER, MS2L, PC
from model.config import flat
from model.cpstn import ST_GCN, STATISTICS
from model.first_weights import AS_STREAMS
from model.recipe import CPSTN_OBJECTIVE, SUPERVISED_OBJECTIVE, Recipe, views_of
from model.recurrent import RECURRENT

# What each kind of view is made by.
SPATIAL = ("rotation", "shear", "jitter_std", "jitter_probability", "bones", "mirror")
OF_VIEWS = {"spatial": SPATIAL, "combined": (*SPATIAL, "crop"), "temporal": ("mask_min", "mask_max", "crop")}


def unused_keys(recipe: Recipe) -> frozenset[str]:
    """Keys, by their path with dots, whose other values would leave training as it is, bit by bit."""
    parts = _unused_of_model(recipe) + _unused_of_objective(recipe)
    seen = {f"view.{name}" for kind in _kinds_of_views(recipe) for name in OF_VIEWS[kind]}
    return frozenset(
        key
        for key in flat(recipe.to_table())
        if key.startswith(tuple(parts)) or (key.startswith("view.") and key not in seen)
    )


def _unused_of_model(recipe: Recipe) -> list[str]:
    """Keys, and beginnings of keys."""
    model = recipe.model
    has_graph = model.backbone == ST_GCN or (
        model.backbone == STATISTICS and bool(model.statistics.graph_streams)
    )
    found = []
    if model.backbone not in RECURRENT:
        found.append("model.recurrent.")
    if model.backbone != STATISTICS:
        found.append("model.statistics.")
    if not has_graph:
        found += ["model.encoder.", "model.statistics.graph_statistics"]
    return found + [f"model.encoder.{name}" for name in _unused_of_encoder(recipe)]


def _unused_of_encoder(recipe: Recipe) -> list[str]:
    """Of the ST-GCN, be it the encoder or one that keeps its first weights."""
    encoder, found = recipe.model.encoder, []
    if encoder.first_weights != AS_STREAMS:
        found.append("motion_frames")
    if recipe.model.backbone == STATISTICS:  # it is never in training
        found.append("dropout")
    if len(encoder.widths) == 1:
        found.append("branch_gain")
        if encoder.first_kernel:
            found.append("kernel")
    if max(encoder.strides) == 1 or not encoder.residual:
        found.append("shortcut_frames")
    return found


def _unused_of_objective(recipe: Recipe) -> list[str]:
    """Keys, and beginnings of keys."""
    objective, found = recipe.objective, []
    pretrains = objective == CPSTN_OBJECTIVE
    if not (pretrains and (recipe.spatial_weight or recipe.temporal_weight)):
        found += ["model.decoder.", "model.split_channels", "reduction"]
    elif max(recipe.model.encoder.strides) == 1:
        found.append("model.decoder.upsampling")
    if not pretrains:
        found += ["contrast_weight", "spatial_weight", "temporal_weight"]
    if objective in (SUPERVISED_OBJECTIVE, PC, AUTOENCODER) or (pretrains and not recipe.contrast_weight):
        found.append("temperature")
    if objective not in (CPSTN_OBJECTIVE, AS_CAL):
        found.append("views")
    if objective != SUPERVISED_OBJECTIVE:
        found.append("supervised_view")
    return found + [f"{name}." for name in (AS_CAL, PC, MS2L) if name != objective]


def _kinds_of_views(recipe: Recipe) -> set[str]:
    """That the recipe's strengths of the views are used for: whitening learns from copies, too."""
    statistics = recipe.model.statistics
    whitens = recipe.model.backbone == STATISTICS and statistics.whitened > 0
    return {*views_of(recipe), *(["combined"] if whitens else [])}
