"""Batch normalisation of frames must be torch's where all are seen, and must not see those that are not."""

import pytest
import torch
from torch import Tensor, nn

from model.batch_norm import FrameNorm

F, D = 40, 6


@pytest.fixture(name="x_FD")
def frames() -> Tensor:
    torch.manual_seed(0)
    return torch.randn(F, D) * torch.rand(D) + 3


def twins() -> tuple[FrameNorm, nn.BatchNorm1d]:
    """Ours and torch's, with the same weights."""
    ours, theirs = FrameNorm(D), nn.BatchNorm1d(D)
    nn.init.normal_(theirs.weight)
    nn.init.normal_(theirs.bias)
    ours.load_state_dict(theirs.state_dict())
    return ours, theirs


@pytest.mark.parametrize("momentum", [0.1, None])
def test_where_all_frames_are_seen_it_is_torchs(x_FD: Tensor, momentum: float | None) -> None:
    """Checkpoints from before hold torch's: names, values and running statistics must mean the same."""
    ours, theirs = twins()
    ours.momentum = theirs.momentum = momentum
    for batch_FD in (x_FD, x_FD * 2, x_FD[:7]):
        torch.testing.assert_close(ours(batch_FD), theirs(batch_FD))
    for name, value in theirs.state_dict().items():
        torch.testing.assert_close(ours.state_dict()[name], value)
    torch.testing.assert_close(ours.eval()(x_FD), theirs.eval()(x_FD))
    ours.reset_running_stats()
    theirs.reset_running_stats()
    for name, value in theirs.state_dict().items():
        torch.testing.assert_close(ours.state_dict()[name], value)


@pytest.mark.parametrize("training", [True, False])
def test_what_is_scaled_together_stays_in_proportion(x_FD: Tensor, training: bool) -> None:
    """Of two streams, each with its own scale: the differences of joints are bones, divided by one number."""
    norm = FrameNorm(D, together=3, momentum=None)
    norm(x_FD)
    centred = x_FD - x_FD.mean(0)
    deviation_D = x_FD.var(0, correction=0 if training else 1).view(2, 3).mean(1).sqrt().repeat_interleave(3)
    torch.testing.assert_close(norm.train(training)(x_FD), centred / deviation_D, rtol=1e-4, atol=1e-4)
    if not training:
        torch.testing.assert_close(norm.running_deviation_D, deviation_D, rtol=1e-4, atol=1e-5)


def test_gradients_are_torchs(x_FD: Tensor) -> None:
    ours, theirs = twins()
    for norm in (ours.double(), theirs.double()):
        (norm(x_FD.double()).sin() * torch.arange(D)).sum().backward()
    for one, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad)


def test_unseen_frames_change_nothing_and_stay_zero(x_FD: Tensor) -> None:
    """A masked tail is half of a view: its bodies in one point would shift and widen every statistic."""
    ours, alone = twins()[0], FrameNorm(D)
    alone.load_state_dict(ours.state_dict())
    seen_F = torch.rand(F) < 0.6
    mixed = ours(x_FD * seen_F.unsqueeze(1))
    torch.testing.assert_close(mixed[seen_F], alone(x_FD[seen_F]))
    assert (mixed[~seen_F] == 0).all()
    for name, value in alone.state_dict().items():
        torch.testing.assert_close(ours.state_dict()[name], value)
    after = ours.eval()(x_FD * seen_F.unsqueeze(1))
    assert (after[~seen_F] == 0).all()
    torch.testing.assert_close(after[seen_F], alone.eval()(x_FD[seen_F]))


@pytest.mark.parametrize("seen", [0, 1])
def test_a_batch_of_hardly_anybody_is_no_error(x_FD: Tensor, seen: int) -> None:
    """torch's refuses a single row in training; in a small part of a batch no other frame may be seen."""
    norm, x_FD = FrameNorm(D), x_FD.clone()
    x_FD[seen:] = 0
    assert torch.isfinite(norm(x_FD)).all()
    assert torch.isfinite(norm.running_var).all()


@pytest.mark.parametrize("together", [1, 3])
def test_the_running_deviation_is_what_evaluation_divides_by(x_FD: Tensor, together: int) -> None:
    """A number that never changes, such as the centred joint's, must not be divided by nothing."""
    x_FD[:, :3] = 0.25
    norm = FrameNorm(D, momentum=None, together=together)
    norm(x_FD)
    norm.eval()
    expected_FD = (x_FD - norm.running_mean) / norm.running_deviation_D
    torch.testing.assert_close(norm(x_FD), expected_FD)
    assert norm.running_deviation_D[0] == pytest.approx(norm.eps**0.5)
