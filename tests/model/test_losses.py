"""Each loss against its equation written as loops over Python numbers.

Axes: N sample, Z contrastive space, P body, C coordinate, T frame, V joint.
"""

import math

import pytest
import torch
from torch import Tensor

from model.losses import nt_xent, spatial_reconstruction, temporal_reconstruction

pytestmark = pytest.mark.usefixtures("_seed")
P, C, T, V = 2, 3, 7, 25


@pytest.fixture
def views() -> tuple[Tensor, Tensor]:
    return torch.randn(5, 11), torch.randn(5, 11)


@pytest.fixture
def coordinates() -> tuple[Tensor, Tensor]:
    return torch.randn(P, C, T, V), torch.randn(P, C, T, V)


@pytest.mark.parametrize("temperature", [0.05, 0.5, 2.0])
def test_nt_xent_is_equations_4_and_5(views: tuple[Tensor, Tensor], temperature: float) -> None:
    """A wrong pair or a missing negative still falls during training, and teaches something else."""
    first_NZ, second_NZ = views
    expected = _nt_xent_slowly(first_NZ.tolist(), second_NZ.tolist(), temperature)
    assert nt_xent(first_NZ, second_NZ, temperature).item() == pytest.approx(expected, rel=1e-5)


def test_nt_xent_leaves_out_what_is_no_negative(views: tuple[Tensor, Tensor]) -> None:
    """Another recording of the same performance stands neither above nor below the fraction."""
    first_NZ, second_NZ = views
    performances = [4, 2, 4, 1, 2]
    expected = _nt_xent_slowly(first_NZ.tolist(), second_NZ.tolist(), 0.3, performances)
    found = nt_xent(first_NZ, second_NZ, 0.3, performances_N=torch.tensor(performances))
    assert found.item() == pytest.approx(expected, rel=1e-5)


def test_nt_xent_knows_only_angles_and_both_directions(views: tuple[Tensor, Tensor]) -> None:
    """Cosine similarity: length must not count; and neither view is the favoured one."""
    first_NZ, second_NZ = views
    loss = nt_xent(first_NZ, second_NZ, 0.2)
    torch.testing.assert_close(nt_xent(second_NZ, first_NZ, 0.2), loss)
    torch.testing.assert_close(nt_xent(first_NZ * torch.rand(5, 1).add(0.5), second_NZ * 40, 0.2), loss)


def test_a_low_temperature_sharpens(views: tuple[Tensor, Tensor]) -> None:
    """Well paired views approach 0 as the temperature falls, badly paired ones grow; a high one flattens."""
    first_NZ, _ = views
    close = first_NZ + 0.01 * torch.randn(5, 11)
    good = [nt_xent(first_NZ, close, temperature).item() for temperature in (0.05, 0.5, 100)]
    bad = [nt_xent(first_NZ, close.roll(1, 0), temperature).item() for temperature in (0.05, 0.5, 100)]
    assert good == sorted(good)
    assert bad == sorted(bad, reverse=True)
    assert good[2] == pytest.approx(math.log(9), abs=0.05)


def test_a_batch_of_one_has_nothing_to_contrast() -> None:
    """The last batch of an epoch may hold one sample: no negatives, no loss, no NaN."""
    first_NZ = torch.randn(1, 11, requires_grad=True)
    loss = nt_xent(first_NZ, torch.randn(1, 11), 0.1)
    loss.backward()
    assert loss.item() == 0
    assert first_NZ.grad is not None
    assert first_NZ.grad.isfinite().all()


@pytest.mark.parametrize("case", ["equal", "opposite", "zero"])
def test_nt_xent_stays_finite_at_the_extremes(case: str) -> None:
    """Collapsed, opposite or dead features at a tiny temperature: exp() alone would overflow."""
    first_NZ = torch.ones(4, 11) * (0 if case == "zero" else 1)
    first_NZ.requires_grad_()
    second_NZ = -torch.ones(4, 11) if case == "opposite" else torch.ones(4, 11)
    loss = nt_xent(first_NZ, second_NZ, 1e-3)
    loss.backward()
    assert loss.isfinite()
    assert first_NZ.grad is not None
    assert first_NZ.grad.isfinite().all()


@pytest.mark.parametrize("temperature", [0.0, -1.0, math.nan])
def test_an_impossible_temperature_is_named(views: tuple[Tensor, Tensor], temperature: float) -> None:
    """A recipe's slip is named instead of training towards infinity."""
    with pytest.raises(ValueError, match=f"temperature is {temperature}"):
        nt_xent(*views, temperature)


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_spatial_loss_is_equation_6(coordinates: tuple[Tensor, Tensor], reduction: str) -> None:
    """Every body, coordinate, frame and joint counts once."""
    expected = _squares_slowly(*coordinates, [0] * P, reduction)
    assert spatial_reconstruction(*coordinates, reduction).item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("visible", [[3, 5], [0, 6], [7, 2]])
def test_temporal_loss_is_equation_7(
    coordinates: tuple[Tensor, Tensor], reduction: str, visible: list[int]
) -> None:
    """Frames from T' on, for each body its own T'."""
    loss = temporal_reconstruction(*coordinates, torch.tensor(visible), reduction)
    assert loss.item() == pytest.approx(_squares_slowly(*coordinates, visible, reduction), rel=1e-5)


def test_temporal_loss_does_not_look_at_visible_frames(coordinates: tuple[Tensor, Tensor]) -> None:
    """Otherwise copying the input would be rewarded, and the pretext would be no prediction."""
    rebuilt_PCTV, original_PCTV = coordinates
    visible_P = torch.tensor([3, 5])
    loss = temporal_reconstruction(rebuilt_PCTV, original_PCTV, visible_P)
    rebuilt_PCTV = rebuilt_PCTV.clone().requires_grad_()
    with torch.no_grad():
        rebuilt_PCTV[0, :, :3] += 9
        rebuilt_PCTV[1, :, :5] -= 9
    again = temporal_reconstruction(rebuilt_PCTV, original_PCTV, visible_P)
    assert torch.equal(again, loss)
    again.backward()
    assert rebuilt_PCTV.grad is not None
    touched_PT = rebuilt_PCTV.grad.abs().sum(dim=(1, 3)) > 0
    assert touched_PT.tolist() == [[frame >= seen for frame in range(T)] for seen in (3, 5)]


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_a_perfect_reconstruction_costs_nothing(coordinates: tuple[Tensor, Tensor], reduction: str) -> None:
    """The floor of both pretexts is exactly 0."""
    original_PCTV = coordinates[1]
    assert spatial_reconstruction(original_PCTV, original_PCTV, reduction).item() == 0
    visible_P = torch.tensor([3, 5])
    assert temporal_reconstruction(original_PCTV, original_PCTV, visible_P, reduction).item() == 0


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_nothing_masked_costs_nothing(coordinates: tuple[Tensor, Tensor], reduction: str) -> None:
    """A mask ratio of 0 switches the pretext off; a mean over no frames would be NaN."""
    assert temporal_reconstruction(*coordinates, torch.tensor([T, T]), reduction).item() == 0


def test_gradients_reach_what_was_predicted(
    views: tuple[Tensor, Tensor], coordinates: tuple[Tensor, Tensor]
) -> None:
    """A detached loss would train nothing and say nothing."""
    first_NZ, second_NZ = (view.requires_grad_() for view in views)
    rebuilt_PCTV = coordinates[0].requires_grad_()
    loss = nt_xent(first_NZ, second_NZ, 0.2) + spatial_reconstruction(*coordinates)
    loss = loss + temporal_reconstruction(*coordinates, torch.tensor([3, 5]))
    loss.backward()
    for tensor in (first_NZ, second_NZ, rebuilt_PCTV):
        assert tensor.grad is not None
        assert tensor.grad.abs().sum() > 0


def test_half_precision_features_are_compared_in_float32(
    views: tuple[Tensor, Tensor], coordinates: tuple[Tensor, Tensor]
) -> None:
    """bfloat16 keeps three digits: a sum over thousands of numbers in it stands still."""
    first_NZ, second_NZ = (view.bfloat16() for view in views)
    rebuilt_PCTV, original_PCTV = coordinates[0].bfloat16(), coordinates[1]
    visible_P = torch.tensor([3, 5])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = (
            nt_xent(first_NZ, second_NZ, 0.1),
            spatial_reconstruction(rebuilt_PCTV, original_PCTV),
            temporal_reconstruction(rebuilt_PCTV, original_PCTV, visible_P),
        )
    full = (
        nt_xent(first_NZ.float(), second_NZ.float(), 0.1),
        spatial_reconstruction(rebuilt_PCTV.float(), original_PCTV),
        temporal_reconstruction(rebuilt_PCTV.float(), original_PCTV, visible_P),
    )
    for found, expected in zip(half, full, strict=True):
        assert found.dtype == torch.float32
        assert torch.equal(found, expected)


def test_an_unknown_reduction_is_named(coordinates: tuple[Tensor, Tensor]) -> None:
    """Both reconstructions say what they know."""
    with pytest.raises(ValueError, match="reduction is 'none'; expected one of mean, sum"):
        spatial_reconstruction(*coordinates, "none")
    with pytest.raises(ValueError, match="reduction is 'none'; expected one of mean, sum"):
        temporal_reconstruction(*coordinates, torch.tensor([3, 5]), "none")


def _nt_xent_slowly(
    first: list[list[float]],
    second: list[list[float]],
    temperature: float,
    performances: list[int] | None = None,
) -> float:
    shown = [number for number in performances or range(len(first)) for _ in (0, 1)]
    z = [view for pair in zip(first, second, strict=True) for view in pair]

    def similarity(s: int, t: int) -> float:
        dot = sum(a * b for a, b in zip(z[s], z[t], strict=True))
        return dot / (math.hypot(*z[s]) * math.hypot(*z[t]))

    def pair_loss(s: int, t: int) -> float:
        others = [k for k in range(len(z)) if k == t or shown[k] != shown[s]]
        total = sum(math.exp(similarity(s, k) / temperature) for k in others)
        return -math.log(math.exp(similarity(s, t) / temperature) / total)

    # Eq. 5 counts views from 1: the pairs are (1, 2), (3, 4), ...
    terms = [pair_loss(s, s + 1) + pair_loss(s + 1, s) for s in range(0, len(z), 2)]
    return sum(terms) / len(z)


def _squares_slowly(rebuilt: Tensor, original: Tensor, visible: list[int], reduction: str) -> float:
    total, count = 0.0, 0
    for body in range(P):
        for frame in range(visible[body], T):
            for coordinate in range(C):
                for joint in range(V):
                    place = (body, coordinate, frame, joint)
                    total += (rebuilt[place].item() - original[place].item()) ** 2
                    count += 1
    return total if reduction == "sum" else total / count
