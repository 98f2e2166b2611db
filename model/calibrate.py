"""What is measured of a frozen encoder before it is asked, on training samples as they are stored and without
labels: its batch normalisation, and what whitens its representation.
"""

import copy

import torch

from model.cpstn import CPSTN
from model.features import (
    batch_norms,
    encoder_extractor,
    enough_to_fit,
    extract_features,
    measure_norms,
)
from model.whitening import even_whitening
from pipeline.samples import Samples


def calibrated(model: CPSTN, samples: Samples, device: torch.device) -> CPSTN:
    """A copy whose batch-normalisation statistics were measured on training samples as they are stored, at
    most MOST_FITTED of them; and, where `model.whitened` asks for it, the map that whitens its
    representation. Its weights untouched, no label used.

    An untrained network has no statistics yet, and without them normalises by nothing at all, which would
    make the comparison too easy. A trained one has those of its views, sheared bodies and masked frames, and
    not of recordings as the classifier sees them. What was fitted before the first step stays.
    Raises ValueError if there is nothing to whiten, as all samples are alike.
    """
    model = copy.deepcopy(model).train()
    norms = [norm for norm in batch_norms(model.encoder) if norm.training]
    model.eval()  # without dropout, as the features will be
    model.whitening = None
    extractor = encoder_extractor(model)
    measure_norms(norms, extractor, samples, device)
    if model.config.whitened:
        few = enough_to_fit(samples)
        features = extract_features(extractor, few, device)
        model.whitening = even_whitening(extractor, features, few, device, model.config.whitened)
    return model
