"""Errors count where a body was seen, and nowhere else.

Axes: P packed present body, C coordinate, T frame, V joint.
"""

import pytest
import torch

from model.baselines.reconstruction import absolute_error, bodies_of, count_seen, seen_frames, squared_error
from pipeline.batch import Batch


def test_seen_is_every_frame_with_a_joint_that_is_not_zero(batch: Batch) -> None:
    """A body that stands in the origin with one joint is there."""
    x_PCTV = batch.original_PCTV.clone()
    x_PCTV[0, :, 3] = 0
    x_PCTV[0, 1, 3, 7] = 0.1
    seen_PT = seen_frames(x_PCTV)
    assert seen_PT[0].all()
    assert seen_PT[2].tolist() == [False] * 2 + [True] * 4 + [False] * 2 + [True] * 3


@pytest.mark.parametrize(("error", "power"), [(absolute_error, 1), (squared_error, 2)])
def test_errors_are_means_over_seen_coordinates(batch: Batch, error: object, power: int) -> None:
    """A decoder would be asked to rebuild the gaps as if everybody met in the origin."""
    assert callable(error)
    original_PCTV = batch.original_PCTV
    rebuilt_PCTV = torch.randn_like(original_PCTV)
    numbers = []
    for rebuilt_CTV, original_CTV in zip(rebuilt_PCTV, original_PCTV, strict=True):
        for frame in range(original_CTV.shape[1]):
            if original_CTV[:, frame].any():
                difference = rebuilt_CTV[:, frame] - original_CTV[:, frame]
                numbers += [abs(number) ** power for number in difference.flatten().tolist()]
    halves = list(original_PCTV.split([2, 4]))
    count = count_seen(halves)
    assert count == len(numbers)
    assert error(rebuilt_PCTV, original_PCTV, count).item() == pytest.approx(sum(numbers) / len(numbers))
    parts = [error(*pair, count) for pair in zip(rebuilt_PCTV.split([2, 4]), halves, strict=True)]
    assert sum(part.item() for part in parts) == pytest.approx(sum(numbers) / len(numbers))


def test_a_batch_in_which_nobody_is_seen_has_no_error() -> None:
    """Nothing divided by nothing would end the training."""
    nobody = torch.zeros(2, 3, 4, 5)
    assert squared_error(torch.ones(2, 3, 4, 5), nobody, count_seen([nobody])) == 0


def test_bodies_are_flattened_as_the_encoders_input_is(batch: Batch) -> None:
    """A decoder whose coordinates lie in another order could learn all the same, and be drawn wrong."""
    x_PCTV = batch.original_PCTV
    flat_PTF = x_PCTV.transpose(1, 2).flatten(2)
    assert torch.equal(bodies_of(flat_PTF), x_PCTV)
