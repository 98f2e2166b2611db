"""What a vector keeps of its features is what the recipe names, in the documented order.

Axes: P present body, C channel, T frame, V joint.
"""

from itertools import pairwise

import pytest
import torch
from torch import Tensor

from model.pooling import LEAST_VARIANCE, OVER_TIME, PoolConfig, pool, pool_samples

P, C, T, V = 2, 3, 8, 5


def pooled_slowly(x_PCTV: Tensor, config: PoolConfig) -> list[list[float]]:
    """Number by number, from the description."""
    vectors = []
    for body in x_PCTV.double():
        numbers = []
        for parts in config.spans:
            size, more = divmod(T, parts)
            starts = [part * size + min(part, more) for part in range(parts + 1)]
            for start, end in pairwise(starts):
                for name in config.statistics:
                    for channel in body:
                        joints = []
                        for joint in range(V):
                            values = [float(channel[frame, joint]) for frame in range(start, end)]
                            mean = sum(values) / len(values)
                            spread = sum((value - mean) ** 2 for value in values) / len(values)
                            deviation = (spread + LEAST_VARIANCE) ** 0.5
                            joints.append({"mean": mean, "deviation": deviation, "final": values[-1]}[name])
                        numbers += joints if config.over == "joints" else [sum(joints) / V]
        vectors.append(numbers)
    return vectors


@pytest.mark.parametrize(
    "config",
    [
        PoolConfig(),
        PoolConfig("global"),
        PoolConfig("joints", ("mean", "deviation"), (1, 3)),
        PoolConfig("global", ("deviation", "mean"), (2,)),
        PoolConfig("joints", ("final", "mean"), (1, 2)),
    ],
)
def test_pooling_equals_the_loop_over_its_description(config: PoolConfig) -> None:
    """A classifier that was stored with a run would read other numbers than it was fitted on."""
    x_PCTV = torch.randn(P, C, T, V, generator=torch.Generator().manual_seed(0))
    found_PD = pool(x_PCTV, config)
    assert found_PD.shape == (P, config.size(C, V))
    torch.testing.assert_close(found_PD.double(), torch.tensor(pooled_slowly(x_PCTV, config)).double())


@pytest.mark.parametrize("bodies", ["mean", "max"])
def test_bodies_are_pooled_over_those_that_are_there(bodies: str) -> None:
    """In whichever order they come; the third sample has none."""
    x_PCTV = -torch.rand(5, C, T, V)  # below 0, so that a place without a body would be the largest
    sample_P = torch.tensor([1, 0, 3, 0, 0])
    config = PoolConfig(statistics=("mean", "deviation"), spans=(1, 3), bodies=bodies)
    found_ND, single_PD = pool_samples(x_PCTV, config, sample_P, 4), pool(x_PCTV, config)
    first_BD = single_PD[[1, 3, 4]]
    expected_D = first_BD.mean(0) if bodies == "mean" else first_BD.amax(0)
    torch.testing.assert_close(found_ND[0], expected_D)
    torch.testing.assert_close(found_ND[[1, 3]], single_PD[[0, 2]])
    assert not found_ND[2].any()


def test_what_runs_backward_ends_in_the_first_frame() -> None:
    """Of each span: its first frame there, its last one for the other channels."""
    x_PCTV = torch.randn(P, C, T, V)
    pooled_PSCV = pool(x_PCTV, PoolConfig(statistics=("final",), spans=(2,)), backward=1).view(P, 2, C, V)
    for span, (first, last) in enumerate([(0, (T + 1) // 2 - 1), ((T + 1) // 2, T - 1)]):
        assert torch.equal(pooled_PSCV[:, span, :-1], x_PCTV[:, :-1, last])
        assert torch.equal(pooled_PSCV[:, span, -1], x_PCTV[:, -1, first])


def test_a_channel_that_never_changes_has_a_gradient() -> None:
    """The root of a variance of zero has an infinite slope: one still body would end the training in NaN."""
    x_PCTV = torch.ones(P, C, T, V, requires_grad=True)
    pool(x_PCTV, PoolConfig(statistics=("deviation",))).sum().backward()
    assert x_PCTV.grad is not None
    assert x_PCTV.grad.isfinite().all()


def test_half_precision_is_pooled_in_full() -> None:
    """Sums over hundreds of frames would lose what tells two actions apart."""
    x_PCTV = torch.ones(P, C, T, V, dtype=torch.bfloat16)
    for name in OVER_TIME:
        assert pool(x_PCTV, PoolConfig(statistics=(name,))).dtype == torch.float32, name


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"over": "max"}, "over is 'max'; expected one of joints, global"),
        ({"statistics": ("mean", "mean")}, "statistics is .*; expected some of mean, .*, each once"),
        ({"statistics": ("median",)}, r"statistics is \['median'\]; expected some of mean, deviation"),
        ({"spans": ()}, r"spans is \[\]; expected one or more whole numbers above 0"),
        ({"spans": (1, 0)}, r"spans is \[1, 0\]"),
        ({"bodies": "sum"}, "bodies is 'sum'; expected one of mean, max"),
    ],
)
def test_a_setting_that_cannot_be_is_named(changes: dict[str, object], message: str) -> None:
    """Someone would search the code for what a key may be."""
    with pytest.raises(ValueError, match=message):
        PoolConfig(**changes)  # type: ignore[arg-type]
