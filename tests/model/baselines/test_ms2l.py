"""MS2L: what is shuffled, predicted and contrasted is what its three tasks say.

Axes: N sample, P packed present body, C channel, T frame, V joint, Z projection.
"""

import math
from dataclasses import replace
from itertools import permutations

import pytest
import torch
from torch.nn import functional as F

from data_specs.read import load_spec
from model.baselines.ms2l import MS2LLike, contrast_with_mean, jigsaw_labels, segment_orders, shuffle_segments
from model.baselines.settings import MS2LConfig
from model.checkpoint import new_model
from model.recipe import load_recipe
from model.share import share_out
from pipeline.batch import Batch, View

CPU = torch.device("cpu")
SPEC = load_spec("ucla")


@pytest.mark.parametrize(("segments", "frames"), [(3, 11), (3, 9), (2, 5), (4, 4)])
def test_a_label_says_in_which_order_the_segments_are(segments: int, frames: int) -> None:
    """A classifier taught with other labels learns noise, and no loss would tell."""
    x_PCTV = torch.arange(float(frames)).view(1, 1, frames, 1).expand(math.factorial(segments), 3, -1, 20)
    label_P = torch.arange(math.factorial(segments)).flip(0)
    shuffled_PCTV = shuffle_segments(x_PCTV, label_P, segments)
    assert shuffled_PCTV.shape == x_PCTV.shape
    length = frames // segments
    for body, label in enumerate(label_P.tolist()):
        order = list(permutations(range(segments)))[label]
        assert segment_orders(segments)[label] == order
        expected = [float(frame) for part in order for frame in range(part * length, (part + 1) * length)]
        expected += [float(frame) for frame in range(segments * length, frames)]
        assert shuffled_PCTV[body, 1, :, 7].tolist() == expected


def test_labels_come_from_the_samples_identity() -> None:
    """The same in whatever batch, part or process; others in the next step and with another seed."""
    ids_N = torch.arange(400)
    label_N = jigsaw_labels(ids_N, seed=3, step=5, segments=3)
    assert torch.equal(jigsaw_labels(ids_N.flip(0), 3, 5, 3).flip(0), label_N)
    assert not torch.equal(jigsaw_labels(ids_N, 3, 6, 3), label_N)
    assert not torch.equal(jigsaw_labels(ids_N, 4, 5, 3), label_N)
    assert torch.bincount(label_N, minlength=6).min() > 40


def test_the_contrast_is_with_the_mean_of_all_copies() -> None:
    """Each copy against the mean, both ways, with all other samples of both as negatives."""
    torch.manual_seed(0)
    copies = [torch.randn(4, 6) for _ in range(3)]
    mean_NZ = F.normalize(sum(copies, torch.zeros(4, 6)) / 3, dim=1)
    expected = 0.0
    for copy in copies:
        views = torch.cat([F.normalize(copy, dim=1), mean_NZ])
        for own in range(8):
            others = [float(views[own] @ views[other]) / 0.9 for other in range(8) if other != own]
            pair = float(views[own] @ views[(own + 4) % 8]) / 0.9
            expected -= (pair - math.log(sum(map(math.exp, others)))) / 8 / 3
    assert contrast_with_mean(copies, 0.9).item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("cropped", [False, True])
def test_a_step_equals_its_description(batch: Batch, cropped: bool) -> None:
    """The prediction is made from the masked copy, of the recording before masking; the order is that of a
    shuffled copy of the whole; bodies of one sample are shuffled alike and averaged."""
    weights = ("prediction_weight=2", "jigsaw_weight=3", "contrast_weight=5")
    changes = ["batch_size=5", "model.recurrent.hidden=4", *(f"ms2l_like.{weight}" for weight in weights)]
    recipe = load_recipe("ms2l-like", tuple(changes))
    objective = MS2LLike(new_model(SPEC, recipe), recipe).eval()
    masked, original_PCTV = batch.views[1], batch.original_PCTV
    target_PCTV = original_PCTV.flip(2) if cropped else original_PCTV
    view = View("temporal", masked.x_PCTV, masked.visible_N, target_PCTV if cropped else None)
    losses_L = objective.backward(share_out(replace(batch, views=(view,)), 1, CPU), step=7)

    model, head = objective.model, objective.head
    label_N = jigsaw_labels(batch.ids_N, 0, 7, 3)
    shuffled = [
        shuffle_segments(body_CTV[None], label_N[sample][None], 3)[0]
        for body_CTV, sample in zip(original_PCTV, batch.sample_P, strict=True)
    ]
    errors, pooled = [], []
    for copy_PCTV in (original_PCTV, masked.x_PCTV, torch.stack(shuffled)):
        q_PCT = model.encode(copy_PCTV)[..., 0]
        pooled.append(torch.stack([q_PCT[batch.sample_P == n].mean(dim=(0, 2)) for n in range(5)]))
    q_PCT = model.encode(masked.x_PCTV)[..., 0]
    for body, target_CTV in enumerate(target_PCTV):
        states_TC = head.decoder(q_PCT[body].T[None])[0][0]
        for frame in range(target_CTV.shape[1]):
            if target_CTV[:, frame].any():
                rebuilt_CV = head.read(states_TC[frame]).view(3, 20)
                errors.append((rebuilt_CV - target_CTV[:, frame]).square().flatten())
    prediction = torch.cat(errors).mean()
    jigsaw = F.cross_entropy(head.jigsaw(pooled[2]), label_N)
    contrast = contrast_with_mean([model.projector(pooled_ND) for pooled_ND in pooled], 0.9)
    expected = torch.stack([prediction, jigsaw, contrast, 2 * prediction + 3 * jigsaw + 5 * contrast])
    torch.testing.assert_close(losses_L, expected.detach(), rtol=1e-4, atol=1e-5)
    for name, weight in objective.named_parameters():
        assert weight.grad is not None, name


def test_recordings_need_a_frame_for_every_segment() -> None:
    """All orders of empty segments would look alike."""
    MS2LConfig(segments=3).check_frames(3)
    with pytest.raises(ValueError, match=r"ms2l_like\.segments is 3; expected at most the 2 frames"):
        MS2LConfig(segments=3).check_frames(2)
