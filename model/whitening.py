"""Whitening by the views' own scatter: what only tells two views of one recording apart counts less.

Contrastive training pulls the views of a sample together by a network's weights. For features that are fixed
there is a closed form: copies of every training sample are changed as views are. How their features scatter
around each sample's own mean is what a change of viewpoint, body or speed does to them, and these directions
are divided by their scatter (within-class covariance normalisation, with each sample as a class). No label is
used, and no test sample. Evaluation whitens any features like that (`eval --whiten`), an encoder of
statistics may begin with it, and what any encoder gives may end with it (`model.whitened`).

Axes: K copy, N sample, D feature, E number that an encoder sees.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from model.cpstn import CPSTN, MOST_WHITENED
from model.device import float64
from model.features import (
    Extractor,
    Features,
    batch_norms,
    enough_to_fit,
    extract_features,
    extractor_of,
    measure_norms,
)
from model.parallel import ALONE, Ranks
from model.recipe import Recipe
from model.statistics import StatisticsEncoder, WhitenedInput, mapped
from pipeline.augment import ViewConfig
from pipeline.loader import changed_copy, sequential_batches
from pipeline.samples import Samples, in_any_order

CPU = torch.device("cpu")
COPIES = 4
# Chosen on splits of NW-UCLA's training views and an NTU-60 subset's training subjects: docs/experiments.md.
CHANGES = ViewConfig(rotation=math.pi / 6, shear=0.3, jitter_std=0.03, bones=0.2, mirror=0.5, crop=0.5)
# Increased by one whenever whitening gives other numbers than before. 2: what never varies is left out.
WHITENING_VERSION = 2
# Of a feature: what varies by less over the samples as they are stored is taken for rounding errors.
LEAST_DEVIATION = 1e-4
# Of the largest variance, or of a standardised feature's: what is below is rounding errors.
LEAST_SPREAD = 1e-10


@dataclass(frozen=True)
class Whitening:
    """A linear map of features: (x - mean_D) @ map_DE, float32."""

    mean_D: Tensor
    map_DE: Tensor

    def __call__(self, x_ND: Tensor) -> Tensor:
        """(N, D) -> (N, E)."""
        return mapped(x_ND, self.mean_D, self.map_DE)

    def apply(self, features: Features, weight: float = 1.0) -> Features:
        """The features through the map, times a weight; from here on their scale matters."""
        return Features(self(features.x_ND) * weight, features.labels_N, scaled=True)


@torch.no_grad()
def view_scatter(
    extractor: Extractor,
    samples: Samples,
    device: torch.device,
    *,
    changes: ViewConfig = CHANGES,
    seed: int = 0,
    batch_size: int = 64,
) -> Tensor:
    """The features' mean scatter around each sample's mean over its changed copies: float64 (D, D).

    samples: from a source that can be read in any order; at most MOST_FITTED are read.
    """
    samples = enough_to_fit(samples)
    total_DD, count = torch.empty(0), 0
    for batch in sequential_batches(samples, batch_size):
        sample_P = batch.sample_P.to(device)
        copies = [
            changed_copy(batch, samples.skeleton, changes, seed=seed, copy=copy).to(device)
            for copy in range(COPIES)
        ]
        features_KND = float64(
            torch.stack([extractor(x_PCTV, sample_P, batch.num_samples) for x_PCTV in copies])
        )
        apart_RD = (features_KND - features_KND.mean(dim=0)).flatten(0, 1)
        total_DD = total_DD.addmm_(apart_RD.T, apart_RD) if count else apart_RD.T @ apart_RD
        count += len(apart_RD)
    return total_DD / count


def whitening_of(
    extractor: Extractor,
    train: Features,
    samples: Samples,
    device: torch.device,
    *,
    changes: ViewConfig = CHANGES,
    seed: int = 0,
) -> Whitening:
    """`fit_whitening` by `view_scatter` of any number of features; of more than MOST_WHITENED, of that many
    principal components.

    train: what the extractor makes of the training samples.  samples: these, as for `view_scatter`.
    """
    if train.x_ND.shape[1] <= MOST_WHITENED:
        return fit_whitening(train, view_scatter(extractor, samples, device, changes=changes, seed=seed))
    first = _projection(train)
    scatter_EE = view_scatter(
        lambda *bodies: first(extractor(*bodies)), samples, device, changes=changes, seed=seed
    )
    then = fit_whitening(first.apply(train), scatter_EE)
    return Whitening(first.mean_D, first.map_DE @ then.map_DE)


def whitened(extractor: Extractor, samples: Samples, device: torch.device) -> Extractor:
    """What the extractor gives, whitened as `eval --whiten` does it: `whitening_of` on these samples."""
    whitening = whitening_of(extractor, extract_features(extractor, samples, device), samples, device)
    return lambda *bodies: whitening(extractor(*bodies))


@torch.no_grad()
def fit_whitening(train: Features, scatter_DD: Tensor) -> Whitening:
    """Standardise what is not scaled, multiply by (S / mean(diag S) + 1) to the power of -1/2, where S is the
    scatter of what was standardised, and scale so that the training features' mean square length is 1.

    A feature that varies in copies alone, as the depth of flat poses, is left out. Raises ValueError if
    nothing varies.
    """
    mean_D, deviation_D = _mean_and_deviation(train)
    z_ND = float64((train.x_ND - mean_D) / deviation_D)
    scatter_DD = scatter_DD / float64(torch.outer(deviation_D, deviation_D))
    if not (z_ND.any() and scatter_DD.diagonal().mean() > LEAST_SPREAD):
        raise ValueError(
            "whitening: the training samples' features, or those of their changed copies, are all alike; "
            "expected at least two samples that differ, and views that change them"
        )
    values_D, vectors_DD = torch.linalg.eigh(scatter_DD / scatter_DD.diagonal().mean())
    whiten_DD = (vectors_DD * (values_D.clamp_min(0) + 1) ** -0.5) @ vectors_DD.T
    length = (z_ND @ whiten_DD).square().sum(1).mean().sqrt()
    return Whitening(mean_D, (whiten_DD / float64(deviation_D)[:, None] / length).to(mean_D))


def _mean_and_deviation(train: Features) -> tuple[Tensor, Tensor]:
    """What standardises features: of what does not vary the deviation is infinite, so that it becomes 0."""
    mean_D, deviation_D = train.x_ND.mean(0), train.x_ND.std(0, correction=0)
    if train.scaled:
        return mean_D, torch.ones_like(deviation_D)
    return mean_D, deviation_D.masked_fill(deviation_D <= LEAST_DEVIATION, math.inf)


def _projection(train: Features) -> Whitening:
    """Of features to MOST_WHITENED principal components of what they are when standardised."""
    mean_D, deviation_D = _mean_and_deviation(train)
    components_DE = _principal_directions(float64((train.x_ND - mean_D) / deviation_D), MOST_WHITENED)
    return Whitening(mean_D, (components_DE / float64(deviation_D)[:, None]).to(mean_D))


@torch.no_grad()
def even_whitening(
    extractor: Extractor,
    train: Features,
    samples: Samples,
    device: torch.device,
    kept: int,
    *,
    changes: ViewConfig = CHANGES,
    seed: int = 0,
) -> Whitening:
    """As `whitening_of`, and then to `kept` numbers: the principal directions of what is whitened, turned at
    random, so that each number has as large a share of them as any other, and a classifier that standardises
    them changes nothing."""
    whitening = whitening_of(extractor, train, samples, device, changes=changes, seed=seed)
    components_DE = _principal_directions(float64(whitening(train.x_ND)), kept)
    turned_EE = _random_turn(kept, seed)[: components_DE.shape[1]].to(components_DE)
    # The mean square length was 1: now that of each number is, less what was cut off, the same for all.
    map_DE = float64(whitening.map_DE) @ components_DE @ turned_EE * math.sqrt(kept)
    return Whitening(whitening.mean_D, map_DE.to(whitening.map_DE))


def _principal_directions(z_ND: Tensor, most: int) -> Tensor:
    """Orthonormal (D, E), the largest first: at most so many, and no more than samples have spread in."""
    count, size = z_ND.shape
    values, vectors = torch.linalg.eigh(z_ND.T @ z_ND if count >= size else z_ND @ z_ND.T)
    spread = int((values > values[-1] * LEAST_SPREAD).sum())
    values, vectors = values.flip(0)[:spread], vectors.flip(1)[:, :spread]
    directions_DE: Tensor = vectors if count >= size else z_ND.T @ vectors / values.sqrt()
    return directions_DE[:, :most]


def join(*parts: Features) -> Features:
    """Features of the same samples, one behind the other; their scales are kept."""
    return Features(torch.cat([part.x_ND for part in parts], dim=1), parts[0].labels_N, scaled=True)


@torch.no_grad()
def fit_encoder(
    model: CPSTN,
    samples: Samples,
    recipe: Recipe,
    ranks: Ranks = ALONE,
    on_note: Callable[[str], None] = lambda _: None,
) -> None:
    """Fit, in place, what an encoder of statistics sees; nothing happens to any other encoder.

    First the batch normalisation of a graph network that keeps its first weights, on the samples as they are
    stored. Then the whitening of all statistics, whose copies are changed as the recipe's "combined" views
    are; see `even_whitening`. The first rank fits for all, and tells `on_note`, as it takes a while.
    """
    if not model.fitted:
        return
    found: dict[str, Tensor] = {}
    if ranks.is_first:
        what = "whitening" if "input_norm" in model.fitted else "measuring"
        on_note(f"{what} the statistics of {len(enough_to_fit(samples)):,} samples before the first step")
        found = _fitted(model, samples, recipe).state_dict()
    ranks.wait_for_first()
    for name, tensor in model.fitted.state_dict().items():
        tensor.copy_(ranks.sum(found[name].to(tensor.device) if found else torch.zeros_like(tensor)))


def _fitted(model: CPSTN, samples: Samples, recipe: Recipe) -> nn.ModuleDict:
    """The fitted parts of an encoder of the same weights, which knows no other rank; on the CPU, as GPUs of
    some makers have no float64."""
    config = recipe.model
    encoder = StatisticsEncoder(model.skeleton, config.statistics, config.streams, config.encoder)
    encoder.load_state_dict(model.encoder.state_dict())
    (samples,) = in_any_order(enough_to_fit(samples))
    extract = extractor_of(encoder.measure, model.skeleton, config.streams)
    if encoder.graph is not None:
        measure_norms(batch_norms(encoder.graph), extract, samples, CPU)
    if isinstance(encoder.input_norm, WhitenedInput):
        whitening = even_whitening(
            extract,
            extract_features(extract, samples, CPU),
            samples,
            CPU,
            config.statistics.whitened,
            changes=recipe.view,
            seed=recipe.seed,
        )
        encoder.input_norm.mean_D.copy_(whitening.mean_D)
        encoder.input_norm.map_DE.copy_(whitening.map_DE)
    return encoder.fitted


def _random_turn(size: int, seed: int) -> Tensor:
    """A random orthogonal matrix, float64."""
    generator = torch.Generator().manual_seed(seed)
    turn: Tensor = torch.linalg.qr(torch.randn(size, size, dtype=torch.float64, generator=generator)).Q
    return turn
