"""How the channels of a body's features vary together, as a vector that a linear classifier can use.

Means and deviations say how each feature varies by itself; which of them rise together while somebody sits
down is in their covariance. Covariance matrices lie on a curved space, where the sum of two is no fair middle
between them; their logarithms lie in a flat one (log-Euclidean metric: Arsigny et al. 2006; covariances of
skeletons: Hussein et al. 2013; of a graph network's features: ours).

Axes: P packed present body, C channel, T frame, V joint, R frame and joint, D number of the vector.
"""

import math
from typing import Any

import torch
from torch import Tensor

from model.device import full_precision, off_mps

# Added to every variance, of features that batch normalisation has brought to about 1: what varies less than
# that counts as still. Chosen without the test view: docs/experiments.md.
LEAST_EIGENVALUE = 0.05
# Of two eigenvalues' sum: closer than that, the slope between them is taken for the slope at them.
CLOSE = 1e-3


def covariance_size(channels: int) -> int:
    """D: the upper triangle of a symmetric matrix."""
    return channels * (channels + 1) // 2


def log_covariance(x_PCTV: Tensor) -> Tensor:
    """float (P, C, T, V) -> float32 (P, D): log(S + LEAST_EIGENVALUE I), its upper triangle row by row.

    S is the covariance of the channels over all frames and joints, each joint about its own mean over time:
    it sees motion and no pose, and no longer which joint it was. Off the diagonal numbers are multiplied by
    the root of 2, so that the vector is as long as the matrix.
    A GPU waits for the eigenvalues.
    """
    with full_precision(x_PCTV.device):
        apart_PCTV = x_PCTV.float() - x_PCTV.mean(dim=2, keepdim=True, dtype=torch.float32)
        apart_PCR = apart_PCTV.flatten(2)
        channels, moments = apart_PCR.shape[1:]
        covariance_PCC = apart_PCR @ apart_PCR.transpose(1, 2) / moments
        identity_CC = torch.eye(channels, device=x_PCTV.device)
        raised_PCC = covariance_PCC + LEAST_EIGENVALUE * identity_CC
        log_PCC: Tensor = _Logarithm.apply(raised_PCC)  # type: ignore[no-untyped-call]
        row, column = torch.triu_indices(channels, channels, device=x_PCTV.device)
        return log_PCC[:, row, column] * torch.where(row == column, 1.0, math.sqrt(2))


class _Logarithm(torch.autograd.Function):
    """The logarithm of symmetric matrices (P, C, C) whose eigenvalues are at least LEAST_EIGENVALUE.

    Beside very large ones the smallest are found with an error that may make them negative: half of
    LEAST_EIGENVALUE is the least that is believed.

    The gradient of `torch.linalg.eigh` itself is infinite where two eigenvalues are equal, as those of
    channels that never move are; that of the logarithm is not (Daleckii and Krein).
    """

    @staticmethod
    def forward(ctx: Any, matrix_PCC: Tensor) -> Tensor:
        # Of what is no number eigh would raise an error of its own, instead of a loss that says so.
        known_P = matrix_PCC.isfinite().all(dim=2).all(dim=1)
        identity_CC = torch.eye(matrix_PCC.shape[1], device=matrix_PCC.device)
        solvable_PCC = torch.where(known_P[:, None, None], matrix_PCC, identity_CC)
        values_PC, vectors_PCC = torch.linalg.eigh(off_mps(solvable_PCC))
        values_PC, vectors_PCC = values_PC.to(matrix_PCC.device), vectors_PCC.to(matrix_PCC.device)
        values_PC = values_PC.clamp_min(LEAST_EIGENVALUE / 2)
        ctx.save_for_backward(values_PC, vectors_PCC)
        log_PCC: Tensor = (vectors_PCC * values_PC.log().unsqueeze(1)) @ vectors_PCC.transpose(1, 2)
        return log_PCC.masked_fill(~known_P[:, None, None], math.nan)

    @staticmethod
    def backward(ctx: Any, slope_PCC: Tensor) -> Tensor:
        values_PC, vectors_PCC = ctx.saved_tensors
        one_PCC, other_PCC = values_PC.unsqueeze(2), values_PC.unsqueeze(1)
        sum_PCC, apart_PCC = one_PCC + other_PCC, one_PCC - other_PCC
        close_PCC = apart_PCC.abs() < CLOSE * sum_PCC
        between_PCC = (one_PCC.log() - other_PCC.log()) / apart_PCC.masked_fill(close_PCC, 1)
        quotient_PCC = torch.where(close_PCC, 2 / sum_PCC, between_PCC)
        turned_PCC = vectors_PCC.transpose(1, 2) @ slope_PCC @ vectors_PCC
        back_PCC: Tensor = vectors_PCC @ (quotient_PCC * turned_PCC) @ vectors_PCC.transpose(1, 2)
        return back_PCC
