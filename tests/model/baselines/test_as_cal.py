"""Momentum contrast: the loss, the queue and the key encoder are what AS-CAL says they are.

Axes: N sample, P packed present body, C channel, T frame, V joint, Z contrasted vector, K key of the queue.
"""

import math
from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F

from data_specs.read import load_spec
from model.baselines.as_cal import AsCalLike, MomentumKeys, info_nce
from model.baselines.settings import AsCalConfig
from model.checkpoint import new_model
from model.recipe import Recipe, load_recipe
from model.share import share_out
from pipeline.batch import Batch

CPU = torch.device("cpu")
SPEC = load_spec("ucla")


def small(*changes: str) -> Recipe:
    settings = ("batch_size=5", "as_cal_like.queue=12", "model.recurrent.hidden=6", *changes)
    return load_recipe("as-cal-like", settings)


def new_keys(queue: int = 7, momentum: float = 0.9) -> MomentumKeys:
    return MomentumKeys(new_model(SPEC, small()), AsCalConfig(momentum, queue))


def test_info_nce_equals_a_loop() -> None:
    """One query against its own key and every key of the queue."""
    torch.manual_seed(0)
    query_NZ, key_NZ, queue_KZ = (F.normalize(torch.randn(count, 4), dim=1) for count in (3, 3, 5))
    expected = 0.0
    for query_Z, key_Z in zip(query_NZ, key_NZ, strict=True):
        scores = [float(query_Z @ other_Z) / 0.3 for other_Z in (key_Z, *queue_KZ)]
        expected -= scores[0] - math.log(sum(math.exp(score) for score in scores))
    assert info_nce(query_NZ, key_NZ, queue_KZ, 0.3).item() == pytest.approx(expected, rel=1e-5)


def test_the_queue_begins_with_directions() -> None:
    """As long as keys are: longer ones would be the hardest negatives of the first steps."""
    torch.testing.assert_close(new_keys(queue=7).queue_KZ.norm(dim=1), torch.ones(7))


def test_the_queue_forgets_the_oldest_first() -> None:
    """Keys that stay too long are of an encoder that is no more."""
    keys = new_keys(queue=7)
    width = keys.queue_KZ.shape[1]
    remembered = [float(row) for row in keys.queue_KZ[:, 0]]
    batches = torch.arange(1.0, 13).view(4, 3, 1).expand(-1, -1, width)
    for batch_NZ in batches:
        keys.remember(batch_NZ.contiguous())
        remembered = [*remembered, *batch_NZ[:, 0].tolist()][-7:]
        assert sorted(keys.queue_KZ[:, 0].tolist()) == sorted(remembered)
        oldest_first = keys.queue_KZ.roll(-int(keys.place), dims=0)
        assert oldest_first[:, 0].tolist() == remembered


def test_a_full_batch_fills_the_queue() -> None:
    """The smallest queue that a recipe allows."""
    keys = new_keys(queue=3)
    keys.remember(torch.ones(3, keys.queue_KZ.shape[1]))
    assert (keys.queue_KZ == 1).all()
    assert keys.place == 0


def test_the_key_encoder_is_the_average_of_all_that_the_query_encoder_was() -> None:
    """It follows slowly, by exactly its momentum, and is never trained."""
    model = new_model(SPEC, small())
    keys = MomentumKeys(model, AsCalConfig(0.75, 7))
    expected = {name: weight.detach().double() for name, weight in model.encoder.named_parameters()}
    for _ in range(3):
        with torch.no_grad():
            for weight in model.parameters():
                weight.add_(torch.randn_like(weight))
        keys.follow(model)
        for name, weight in model.encoder.named_parameters():
            expected[name] = 0.75 * expected[name] + 0.25 * weight.detach().double()
    for name, weight in keys.encoder.encoder.named_parameters():
        torch.testing.assert_close(weight.double(), expected[name], rtol=1e-5, atol=1e-6)
        assert not weight.requires_grad


def test_a_step_equals_its_description(batch: Batch) -> None:
    """Query from the first view, key from the second and without a gradient, negatives from the steps before;
    the mean over both bodies of a sample, and over the samples."""
    recipe = small("temperature=0.3")
    objective = AsCalLike(new_model(SPEC, recipe), recipe).eval()
    with torch.no_grad():
        for weight in objective.model.parameters():
            weight.add_(0.1)
    followed = new_model(SPEC, recipe).eval()
    for weight, theirs in zip(followed.parameters(), objective.model.parameters(), strict=True):
        weight.data.lerp_(theirs.data, 1 - 0.999)
    queue_KZ = objective.head.queue_KZ.clone()
    losses_L = objective.backward(share_out(batch, 1, CPU), step=0)

    def contrasted(model: torch.nn.Module, view: int, sample: int) -> torch.Tensor:
        bodies = batch.views[view].x_PCTV[batch.sample_P == sample]
        hidden_PC = model.encoder(bodies).mean(dim=(2, 3))  # type: ignore[operator]
        return F.normalize(hidden_PC.mean(dim=0), dim=0)

    query_NZ = torch.stack([contrasted(objective.model, 0, sample) for sample in range(5)])
    key_NZ = torch.stack([contrasted(followed, 1, sample) for sample in range(5)]).detach()
    expected = info_nce(query_NZ, key_NZ, queue_KZ, 0.3) / 5
    assert losses_L.tolist() == pytest.approx([expected.item()] * 2, rel=1e-4)
    torch.testing.assert_close(objective.head.queue_KZ[:5], key_NZ, rtol=1e-4, atol=1e-5)
    assert torch.equal(objective.head.queue_KZ[5:], queue_KZ[5:])
    trained = dict(objective.model.encoder.named_parameters())
    gradients = torch.autograd.grad(expected, list(trained.values()))
    for (name, weight), gradient in zip(trained.items(), gradients, strict=True):
        torch.testing.assert_close(weight.grad, gradient, rtol=1e-3, atol=1e-6, msg=name)


def test_keys_of_all_parts_are_remembered_in_order(batch: Batch) -> None:
    """With `accumulate`, the negatives must not depend on how a batch was cut."""
    queues = []
    for parts in (1, 3):
        recipe = small()
        objective = AsCalLike(new_model(SPEC, recipe), recipe).eval()
        for step in range(2):
            objective.backward(share_out(replace(batch), parts, CPU), step)
        queues.append(objective.head.queue_KZ)
        assert objective.head.place == 10
    torch.testing.assert_close(queues[0], queues[1])
