"""The logarithm of a covariance, against its definition and against its slope by small steps.

Axes: P body, C channel, T frame, V joint.
"""

import pytest
import torch

from model.covariance import LEAST_EIGENVALUE, _Logarithm, covariance_size, log_covariance
from model.pooling import PoolConfig, pool

pytestmark = pytest.mark.usefixtures("_seed")
P, C, T, V = 3, 4, 6, 5


def test_its_exponential_is_the_covariance() -> None:
    """Each joint is taken about its own mean over time; frames and joints are alike then."""
    x_PCTV = torch.randn(P, C, T, V)
    found_PD = log_covariance(x_PCTV)
    assert found_PD.shape == (P, covariance_size(C))
    for body in range(P):
        log_CC = torch.zeros(C, C, dtype=torch.float64)
        numbers = iter(found_PD[body].tolist())
        for one in range(C):
            for other in range(one, C):
                log_CC[one, other] = log_CC[other, one] = next(numbers) / (1 if one == other else 2**0.5)
        expected_CC = LEAST_EIGENVALUE * torch.eye(C, dtype=torch.float64)
        for joint in range(V):
            apart_CT = x_PCTV[body, :, :, joint].double()
            apart_CT = apart_CT - apart_CT.mean(1, keepdim=True)
            for frame in range(T):
                expected_CC += torch.outer(apart_CT[:, frame], apart_CT[:, frame]) / (T * V)
        torch.testing.assert_close(torch.linalg.matrix_exp(log_CC), expected_CC, rtol=1e-4, atol=1e-5)


def test_a_pose_that_does_not_move_says_nothing() -> None:
    """Wherever the body stands: the same numbers, those of the least eigenvalue."""
    still_PCTV = torch.randn(P, C, 1, V).expand(P, C, T, V)
    zero_PD = log_covariance(torch.zeros(P, C, T, V))
    torch.testing.assert_close(log_covariance(still_PCTV), zero_PD, rtol=0, atol=1e-5)


@pytest.mark.parametrize("spread", [1.0, 1e-4, 0.0])
def test_its_slope_is_right_where_eigenvalues_meet(spread: float) -> None:
    """Channels that never move have equal ones, where the slope of an eigenvector is infinite."""
    root_PCC = torch.randn(P, C, C, dtype=torch.float64) * spread
    matrix_PCC = root_PCC @ root_PCC.transpose(1, 2) + LEAST_EIGENVALUE * torch.eye(C, dtype=torch.float64)

    def logarithm(given_PCC: torch.Tensor) -> torch.Tensor:
        symmetric_PCC = (given_PCC + given_PCC.transpose(1, 2)) / 2
        found_PCC: torch.Tensor = _Logarithm.apply(symmetric_PCC)  # type: ignore[no-untyped-call]
        return found_PCC

    assert torch.autograd.gradcheck(logarithm, (matrix_PCC.requires_grad_(),))


def test_still_frames_have_a_gradient() -> None:
    """A sample whose every frame is alike would end the training in NaN."""
    x_PCTV = torch.ones(P, C, T, V, requires_grad=True)
    log_covariance(x_PCTV).sum().backward()
    assert x_PCTV.grad is not None
    assert x_PCTV.grad.isfinite().all()


def test_a_body_that_flies_about_is_a_number() -> None:
    """Beside very large eigenvalues the smallest come out negative, and one NaN ends all evaluation."""
    few_PCTV, mixed_DC = torch.randn(16, 8, 20, 20), torch.randn(64, 8)
    x_PCTV = 1000 * torch.einsum("dc,pctv->pdtv", mixed_DC, few_PCTV)
    assert log_covariance(x_PCTV).isfinite().all()


def test_what_is_no_number_has_none_and_leaves_others_theirs() -> None:
    """LAPACK's message would say less than the loss, which names the step and its samples."""
    x_PCTV = torch.randn(3, C, T, V)
    expected_PD = log_covariance(x_PCTV)
    x_PCTV[1, 2, 0, 0], x_PCTV[2, 0, 1, 1] = torch.nan, torch.inf
    found_PD = log_covariance(x_PCTV)
    torch.testing.assert_close(found_PD[0], expected_PD[0])
    assert found_PD[1:].isnan().any(dim=1).all()


@pytest.mark.parametrize("over", ["joints", "global"])
def test_a_pool_takes_it_span_by_span(over: str) -> None:
    """Its size does not depend on joints, and it is the same whether they are kept apart or not."""
    x_PCTV = torch.randn(P, C, T, V)
    config = PoolConfig(over, ("mean", "covariance"), (1, 2))
    places = C * V if over == "joints" else C
    found_PD = pool(x_PCTV, config)
    assert found_PD.shape == (P, config.size(C, V)) == (P, 3 * (places + covariance_size(C)))
    whole_PD, halves_PD = found_PD.split([places + covariance_size(C), 2 * (places + covariance_size(C))], 1)
    torch.testing.assert_close(whole_PD[:, places:], log_covariance(x_PCTV))
    second_PD = halves_PD[:, places + covariance_size(C) :]
    torch.testing.assert_close(second_PD[:, places:], log_covariance(x_PCTV[:, :, T // 2 :]))


def test_half_precision_is_computed_in_full() -> None:
    """No eigenvalues exist in half precision, and autocast would ask for them."""
    x_PCTV = torch.randn(P, C, T, V).bfloat16()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found_PD = log_covariance(x_PCTV)
    assert found_PD.dtype == torch.float32
    torch.testing.assert_close(found_PD, log_covariance(x_PCTV.float()), rtol=0.05, atol=0.05)
