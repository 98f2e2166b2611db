"""What is compared on one protocol: features of a run's encoder, of the same untrained, and of no network.

Axes: N sample, P packed present body, C channel, T frame, V joint.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache, cached_property, partial

import torch

from model.calibrate import calibrated
from model.checkpoint import Checkpoint
from model.cpstn import CPSTN
from model.feature_cache import FeatureCache, cache_of
from model.features import (
    FLOOR_STREAMS,
    Extractor,
    Features,
    Pair,
    check_finite,
    coordinates_extractor,
    encoder_extractor,
    extract_features,
    statistics_extractor,
)
from model.question import Parts
from model.run import Run
from model.scores import COORDINATES, ENCODERS, INPUT_STATISTICS, MORE_STATISTICS, TRAINED
from model.whitening import Whitening, join, whitening_of
from pipeline.samples import Samples
from pipeline.store.shards import Shards

# Beside whitened statistics; chosen with the changes of model.whitening.
ENCODER_WEIGHT = 0.3


@dataclass(frozen=True, eq=False)
class Bench:
    """A run on one protocol of some shards. keep: the run in whose folder features are kept; None: nowhere.

    on_stage hears what is being done.
    """

    shards: Shards
    checkpoint: Checkpoint
    parts: Parts
    device: torch.device
    keep: Run | None
    on_stage: Callable[[str], None]

    @cached_property
    def trained(self) -> CPSTN:
        """The trained encoder, its batch normalisation measured as the untrained one's; nobody changes it."""
        return self._calibrated(self.checkpoint.build_model())

    @cached_property
    def untrained(self) -> CPSTN:
        """The same with its initial weights; nobody changes it."""
        return self._calibrated(self.checkpoint.build_model(trained=False))

    def _calibrated(self, model: CPSTN) -> CPSTN:
        return calibrated(model.to(self.device), self.parts.train, self.device)

    def model(self, kind: str) -> CPSTN:
        """TRAINED or UNTRAINED."""
        return self.trained if kind == TRAINED else self.untrained

    @property
    def encoders(self) -> dict[str, Extractor]:
        """What the encoders see, by the kind of features. A model is built when it is first asked: where all
        its features are stored, never."""

        def extractor(kind: str) -> Extractor:
            return lambda *bodies: encoder_extractor(self.model(kind))(*bodies)

        return {kind: extractor(kind) for kind in ENCODERS}

    @property
    def extractors(self) -> dict[str, Extractor]:
        """Of every kind of features, by its name."""
        extractors = self.encoders
        extractors[INPUT_STATISTICS] = statistics_extractor(self.shards.spec.skeleton)
        if "distance" in self.checkpoint.recipe().model.streams:
            # Else the encoder would be compared with what had less to go by.
            skeleton = self.checkpoint.spec().skeleton
            extractors[MORE_STATISTICS] = statistics_extractor(skeleton, (*FLOOR_STREAMS, "distance"))
        extractors[COORDINATES] = coordinates_extractor(self.parts.train.source.shape[1])
        return extractors

    def pair(self, name: str, extractor: Extractor) -> Pair:
        """Of the training and of the test samples. Raises RuntimeError if a feature is no number."""
        self.on_stage(f"features: {name}")
        train, test = (self._extract(name, extractor, part) for part in (self.parts.train, self.parts.test))
        check_finite(name, train, test)
        return train, test

    def _extract(self, name: str, extractor: Extractor, samples: Samples) -> Features:
        if self._stored is None:
            return extract_features(extractor, samples, self.device)
        return self._stored.features(name, extractor, samples, self.device)

    @cached_property
    def _stored(self) -> FeatureCache | None:
        if self.keep is None:
            return None
        return cache_of(self.keep.features, self.shards, self.checkpoint, self.parts.train)


def whitened_features(
    extractors: Mapping[str, Extractor],
    features: Mapping[str, Callable[[], Pair]],
    parts: Parts,
    device: torch.device,
    on_stage: Callable[[str], None],
) -> dict[str, Callable[[], Pair]]:
    """These features whitened by the views' scatter, and each encoder's joined with the input's statistics.

    By name, each to be asked for; nothing is done before. Learnt on the training samples, without labels.
    """

    @cache
    def fitted(name: str) -> Whitening:
        on_stage(f"scatter of the views: {name}")
        train, _ = features[name]()
        return whitening_of(extractors[name], train, parts.train, device)

    def through(name: str, weight: float = 1.0) -> Pair:
        train, test = features[name]()
        return fitted(name).apply(train, weight), fitted(name).apply(test, weight)

    def joined(name: str) -> Pair:
        train, test = (
            join(*pair) for pair in zip(through(INPUT_STATISTICS), through(name, ENCODER_WEIGHT), strict=True)
        )
        return train, test

    alone: dict[str, Callable[[], Pair]] = {f"{name}, whitened": partial(through, name) for name in features}
    return alone | {f"{name} and {INPUT_STATISTICS}, whitened": partial(joined, name) for name in ENCODERS}
