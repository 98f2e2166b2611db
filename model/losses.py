"""The three terms of CP-STN's loss (Eq. 3), one function each. All compute in float32, also under autocast.

Where a batch is worked on in parts, each on its own rank or one after the other, each function gives its
part of the batch's loss: the parts add up to it.

Axes: N sample, Z contrastive space, P present body, C coordinate, T frame, V joint.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from model.checks import check_choice
from model.parallel import ALONE, Ranks

REDUCTIONS = ("mean", "sum")


def nt_xent(
    first_NZ: Tensor,
    second_NZ: Tensor,
    temperature: float,
    ranks: Ranks = ALONE,
    performances_N: Tensor | None = None,
) -> Tensor:
    """Contrastive loss, Eq. 4 and 5: two views of a sample against all other views of the batch.

    Row n of `first_NZ` and row n of `second_NZ` are the views of sample n. Both directions count (Eq. 5's
    index 2k+1 reads 2k-1), and the result is the mean over all 2N; Eq. 5's 1/N would double it. The two views
    of a single sample have no negatives: the loss is 0. With several ranks the batch is that of all of them,
    and this rank's part of the loss comes from its own rows. Scalar float32.

    performances_N: int; samples of equal number are not each other's negatives. All are, without.
    Raises ValueError if the temperature is not positive.
    """
    if not temperature > 0:
        raise ValueError(f"temperature is {temperature}; expected a number above 0")
    assert first_NZ.shape == second_NZ.shape
    samples = len(first_NZ)
    with torch.autocast(first_NZ.device.type, enabled=False):
        own = F.normalize(torch.cat([first_NZ, second_NZ]).float(), dim=1)
        views = ranks.gather(own)
        logits = (own @ views.T) / temperature
        itself = torch.arange(2 * samples, device=logits.device) + ranks.rank * 2 * samples
        other_view = itself.roll(samples)
        logits = logits.scatter(1, itself.unsqueeze(1), -torch.inf)
        if performances_N is not None:
            own_2N = performances_N.repeat(2)
            same = own_2N.unsqueeze(1) == ranks.gather(own_2N)
            logits = logits.masked_fill(same.scatter(1, other_view.unsqueeze(1), False), -torch.inf)
        return F.cross_entropy(logits, other_view, reduction="sum") / len(views)


def spatial_reconstruction(
    rebuilt_PCTV: Tensor, original_PCTV: Tensor, reduction: str = "mean", count: Tensor | int | None = None
) -> Tensor:
    """Squared error over every frame, Eq. 6. Scalar float32. Frames in which the body is absent, 0 in every
    joint, count as the paper's sum has them: to be rebuilt as they are.

    reduction: "sum" is the paper's, and grows with batch and length; "mean" is per number.
    count: the numbers of the whole batch, where this is a part of it.
    Raises ValueError for another reduction.
    """
    check_choice("reduction", reduction, REDUCTIONS)
    assert rebuilt_PCTV.shape == original_PCTV.shape
    total = F.mse_loss(rebuilt_PCTV.float(), original_PCTV.float(), reduction="sum")
    if reduction == "sum":
        return total
    return total / (rebuilt_PCTV.numel() if count is None else count)


def temporal_reconstruction(
    rebuilt_PCTV: Tensor,
    original_PCTV: Tensor,
    visible_P: Tensor,
    reduction: str = "mean",
    count: Tensor | int | None = None,
) -> Tensor:
    """Squared error over the frames that the encoder was not shown, Eq. 7. Scalar float32.

    visible_P: int, T' of each body: frames 0..T'-1 were visible and do not count. Where no frame is masked,
    the loss is 0.
    reduction: "sum" is the paper's; "mean" is per number of the masked frames.
    count: the numbers in masked frames of the whole batch, at least 1, where this is a part of it.
    Raises ValueError for another reduction.
    """
    check_choice("reduction", reduction, REDUCTIONS)
    assert rebuilt_PCTV.shape == original_PCTV.shape
    _, channels, frames, joints = rebuilt_PCTV.shape
    masked_PT = torch.arange(frames, device=visible_P.device) >= visible_P.unsqueeze(1)
    error_PT = (rebuilt_PCTV.float() - original_PCTV.float()).square().sum(dim=(1, 3))
    total = (error_PT * masked_PT).sum()
    if reduction == "sum":
        return total
    return total / ((masked_PT.sum() * channels * joints).clamp(min=1) if count is None else count)
