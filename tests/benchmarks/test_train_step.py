"""The plain ST-GCN must be the same network, and the figures about the machine must be what they say.

Axes: N sample, B present body of a sample, C channel, T frame, V joint.
"""

import copy
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from numpy.typing import NDArray
from torch import nn

from benchmarks import limits
from benchmarks.contest import ENCODER, OURS, PLAIN, STEP, Contest, check_equal, with_pairs
from benchmarks.limits import Demand, Machine, costliest, measure_demand
from benchmarks.pairs import CPU
from benchmarks.peak import peak_megabytes
from benchmarks.references.plain_stgcn import PlainCPSTN, refuse_unlike
from benchmarks.train_step import SMALL, main
from model.cpstn import CPSTN
from model.recipe import load_recipe

C, T, V = 3, 16, 25
DEVICE = torch.device("cpu")
BODIES = (1, 2, 1, 1)


@pytest.fixture
def contest(request: pytest.FixtureRequest) -> Contest:
    """Of `compact`, or the recipe that a test names."""
    return Contest(load_recipe(getattr(request, "param", "compact"), SMALL), samples_of(BODIES), DEVICE)


def samples_of(bodies: tuple[int, ...]) -> tuple[NDArray[np.float32], ...]:
    """Random samples with so many bodies each."""
    random = np.random.default_rng(0)
    return tuple(random.standard_normal((count, C, T, V)).astype(np.float32) for count in bodies)


@pytest.mark.parametrize("contest", ["compact", "paper"], indirect=True)
def test_ours_and_the_plain_network_agree_on_stirred_norms(contest: Contest) -> None:
    """A norm that was left out or mixed up would make the plain network faster than it is, or another one."""
    model = contest.model()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            assert module.running_mean is not None
            assert module.running_var is not None
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
            nn.init.normal_(module.weight, 1, 0.1)
            nn.init.normal_(module.bias)
    check_equal(model, contest.batch(), contest.recipe)


def test_a_plain_network_of_other_weights_is_not_compared_with(
    contest: Contest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The check must be able to fail, or it proves nothing."""

    def with_other_weights(ours: CPSTN) -> PlainCPSTN:
        other = copy.deepcopy(ours)
        for weight in other.encoder.parameters():
            nn.init.normal_(weight)
        return PlainCPSTN(other)

    monkeypatch.setattr("benchmarks.contest.PlainCPSTN", with_other_weights)
    with pytest.raises(ValueError, match=r"features: ours and the plain ones are .* apart"):
        check_equal(contest.model(), contest.batch(), contest.recipe)


@pytest.mark.parametrize("side", [OURS, PLAIN])
def test_the_timed_step_learns(side: str, contest: Contest, monkeypatch: pytest.MonkeyPatch) -> None:
    """A step that leaves the weights as they are is not what training does."""
    optimisers: list[torch.optim.Optimizer] = []
    adam = torch.optim.Adam

    def noted(*args: object, **options: object) -> torch.optim.Optimizer:
        optimisers.append(adam(*args, **options))  # type: ignore[arg-type]
        return optimisers[-1]

    monkeypatch.setattr("torch.optim.Adam", noted)
    step = contest.work(STEP, side)
    weights = optimisers[0].param_groups[0]["params"]
    before = [weight.detach().clone() for weight in weights]
    step()
    step()  # a shortcut that begins multiplied with 0 has no gradient in the first one
    changed = [not torch.equal(weight, old) for weight, old in zip(weights, before, strict=True)]
    assert all(changed)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("reduction=sum", "reduction is 'sum'"),
        ('model.contrast_pool.over="global"', "model.contrast_pool is"),
        ('model.streams=["joint", "bone"]', "model.streams is"),
        ('model.encoder.adaptive="A+B"', r"model.encoder.adaptive is 'A\+B'"),
        ("spatial_weight=0", "spatial_weight is 0"),
        ('views=["spatial", "spatial"]', "views is"),
    ],
)
def test_what_the_plain_network_has_not_is_refused_by_name(change: str, message: str) -> None:
    """Ours would be measured with more or less to do than what it is compared with."""
    with pytest.raises(ValueError, match=message):
        refuse_unlike(load_recipe("compact", (change,)))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--recipe", "nonesuch"], "no recipe 'nonesuch'"),
        (["--device", "nonesuch"], "device 'nonesuch' cannot be used"),
        (["--recipe", "paper:bilstm"], "is 'bilstm'"),
    ],
)
def test_a_wrong_option_is_told_before_anything_is_measured(options: list[str], message: str) -> None:
    """Someone would wait for minutes, or read a traceback."""
    done = CliRunner().invoke(main, ["--quick", *options])
    assert done.exit_code == 2
    assert message in done.output


def test_a_batch_has_pairs_of_bodies() -> None:
    """Without a second body anywhere, half of the plain network's work would always be for nothing."""
    alone = samples_of((1,) * 10)
    paired = with_pairs(alone)
    assert [len(bodies_BCTV) for bodies_BCTV in paired] == [2, 2, *[1] * 8]
    np.testing.assert_array_equal(paired[1], np.concatenate([alone[1], alone[2]]))
    assert all(len(bodies_BCTV) <= 2 for bodies_BCTV in with_pairs(samples_of((1,))))
    mixed = samples_of(BODIES)
    assert all(one is other for one, other in zip(with_pairs(mixed), mixed, strict=True))


def test_demand_of_a_product_is_counted_by_hand() -> None:
    """The share of the limit would be a share of something else."""
    a, b = torch.randn(30, 40), torch.randn(40, 50)
    assert measure_demand(lambda: a @ b) == Demand(2 * 30 * 40 * 50, 4 * (30 * 40 + 40 * 50 + 30 * 50))
    assert measure_demand(lambda: a.T.unsqueeze(0)).moved == 0
    assert Demand(operations=8, moved=3).least_seconds(Machine(bandwidth=1, peak=4)) == 3
    assert Machine(1, 4).or_better(Machine(2, 3)) == Machine(2, 4)


def test_the_costliest_operation_is_named() -> None:
    """Whoever wants to make the step faster would begin at the wrong place."""
    a = torch.randn(400, 400)
    (first, share), *_ = costliest(lambda: (a @ a).relu(), DEVICE)
    assert first == "mm"
    assert 0.5 < share <= 1


def test_the_machine_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    """A limit of 0 or infinity would make any share possible."""
    monkeypatch.setattr(limits, "MATRIX", {"cpu": 256})
    machine = limits.measure_machine(DEVICE, torch.float32, CPU)
    assert 1e8 < machine.bandwidth < 1e13
    assert 1e8 < machine.peak < 1e15


class Taking:
    """A work that takes so many MB, and gives them back."""

    def __init__(self, megabytes: int) -> None:
        self.megabytes = megabytes

    def __call__(self) -> Callable[[], object]:
        np.ones(300 * 1_000_000 // 8)
        return lambda: np.ones(self.megabytes * 1_000_000 // 8).sum()


def test_peak_memory_is_that_of_the_work_alone() -> None:
    """What loading the program took for a moment would be added to the step, and hide the difference."""
    assert peak_megabytes(Taking(100), DEVICE) == pytest.approx(100, abs=20)


def test_the_batch_is_the_same_for_both_sides_and_twice(contest: Contest) -> None:
    """Ratios would be of different work."""
    one, other = contest.batch(), replace(contest).batch()
    assert torch.equal(one.views[0].x_PCTV, other.views[0].x_PCTV)
    assert one.sample_P.tolist() == [0, 1, 1, 2, 3]
    assert [pair.name for pair in contest.pairs()] == [ENCODER, STEP]
