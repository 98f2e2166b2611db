"""What a batch asks of the weights; and worked on in parts, to save memory, it is the same batch.

Axes: N sample, P packed present body, C coordinate, T frame, V joint, L loss, Z size of a projection.
"""

import math
from dataclasses import replace
from itertools import product
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from data_specs.read import load_spec
from model.checkpoint import new_model
from model.losses import nt_xent
from model.objective import Pretraining, batch_losses, encode_views
from model.parallel import Ranks
from model.recipe import Recipe, load_recipe
from model.share import count_numbers, seed_dropout, share_out, split_batch
from model.supervised import Supervised
from pipeline.batch import Batch, View

pytestmark = pytest.mark.usefixtures("_float64_stands_for_float32")
CPU = torch.device("cpu")
SPEC = load_spec("ucla")
N, C, T, V = 7, 3, 12, 20
TINY = (
    "model.encoder.widths=[4, 4, 4, 4, 8, 8]",
    "model.decoder.widths=[4, 4, 4, 4, 4]",
    "model.decoder.dropout=0.0",
    "model.projection=[8, 6]",
)
WEIGHTS = {"contrast_weight": 0.5, "spatial_weight": 2.0, "temporal_weight": 3.0}


def some_batch(cropped: bool = False, two_cameras: bool = False) -> Batch:
    """Seven samples, two of which have two bodies; to the second camera, others."""
    random = torch.Generator().manual_seed(1)
    sample_P = torch.tensor([0, 1, 1, 2, 3, 4, 5, 5, 6])
    others_P = torch.tensor([0, 0, 1, 1, 2, 3, 4, 4, 5, 5, 6]) if two_cameras else None

    def some_bodies(place_P: Tensor = sample_P) -> Tensor:
        return torch.randn(len(place_P), C, T, V, generator=random, dtype=torch.float64)

    visible_N = torch.tensor([4, 5, 6, 7, 8, 9, 10])
    whole_N = torch.full((N,), T)
    if others_P is None:
        second = View("temporal", some_bodies(), visible_N, some_bodies() if cropped else None)
    else:
        second = View("temporal", some_bodies(others_P), visible_N, some_bodies(others_P), others_P)
    views = View("spatial", some_bodies(), whole_N), second
    labels_N = torch.arange(N) % 3
    return Batch(
        some_bodies(), views, sample_P, torch.arange(N), labels_N, torch.tensor([0, 1, 2, 0, 3, 4, 2]), N
    )


def paired(batch: Batch, kinds: tuple[Any, ...]) -> Batch:
    """The same with views of these kinds; of a temporal one there are unseen frames."""
    tails = torch.tensor([3, 11, 5, 6, 6, 2, 8]), batch.views[1].visible_N
    views = [
        replace(view, kind=kind, visible_N=tail_N if kind == "temporal" else torch.full((N,), T))
        for view, kind, tail_N in zip(batch.views, kinds, tails, strict=True)
    ]
    return replace(batch, views=tuple(views))


def gradients(recipe: Recipe, batch: Batch, parts: int) -> tuple[Tensor, dict[str, Tensor]]:
    """Losses and gradients of one step of a new model in float64."""
    model = new_model(SPEC, recipe).double()
    with torch.no_grad():  # 0 at first, where a ReLU's slope hangs on rounding
        for layer in (model.projector[0], model.projector[2]):
            assert isinstance(layer, torch.nn.Linear)
            layer.bias.copy_(torch.linspace(-0.3, 0.4, layer.out_features))
    if recipe.objective != "supervised":
        return one_step(Pretraining(model, recipe), batch, parts)
    torch.manual_seed(3)
    return one_step(Supervised(model, recipe, len(SPEC.classes)).double(), batch, parts)


def one_step(
    objective: Pretraining | Supervised, batch: Batch, parts: int
) -> tuple[Tensor, dict[str, Tensor]]:
    """Losses and gradients, batch normalisation by its running statistics."""
    objective.zero_grad()
    losses_L = objective.eval().backward(share_out(batch, parts, CPU), step=4)
    found = {name: weight.grad for name, weight in objective.named_parameters() if weight.grad is not None}
    return losses_L, found


def assert_same_gradients(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert found.keys() == expected.keys()
    for name, gradient in expected.items():
        scale = float(gradient.abs().max()) or 1.0
        torch.testing.assert_close(found[name] / scale, gradient / scale, rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("parts", [2, 3, 100])
@pytest.mark.parametrize(
    "changes",
    [
        (),
        ("reduction=sum",),
        ("contrast_weight=0",),
        ("spatial_weight=0", "temporal_weight=0"),
        ("views=['temporal', 'temporal']",),
        ("positives=camera",),
        ("objective=supervised",),
    ],
)
def test_parts_add_up_to_the_whole(parts: int, changes: tuple[str, ...]) -> None:
    """Who sets `accumulate` because memory is short would train something else: with fewer negatives."""
    recipe = load_recipe("compact", (*TINY, *changes))
    batch = paired(some_batch(two_cameras=recipe.positives == "camera"), recipe.views)
    expected_L, expected = gradients(recipe, batch, 1)
    found_L, found = gradients(recipe, batch, parts)
    torch.testing.assert_close(found_L, expected_L, rtol=1e-10, atol=1e-12)
    assert_same_gradients(found, expected)


@pytest.mark.parametrize("parts", [1, 3])
def test_total_and_gradients_are_weighted_sums(parts: int) -> None:
    """Eq. 3: with a weight lost, squared or another loss's, whoever tunes them would tune something else."""
    recipe, batch = load_recipe("compact", (*TINY, *settings(WEIGHTS))), some_batch()
    model = new_model(SPEC, recipe).double()
    found_L, found = one_step(Pretraining(model, recipe), batch, parts)
    terms, expected = [], {name: torch.zeros_like(weight) for name, weight in found.items()}
    for name, weight in WEIGHTS.items():
        alone = load_recipe("compact", (*TINY, *settings(dict.fromkeys(WEIGHTS, 0.0) | {name: 1.0})))
        losses_L, gradients_alone = one_step(Pretraining(model, alone), batch, parts)
        terms.append(losses_L[0])
        for weights, gradient in gradients_alone.items():
            expected[weights] += weight * gradient
    total = 0.5 * terms[0] + 2 * terms[1] + 3 * terms[2]
    torch.testing.assert_close(found_L, torch.stack([*terms, total]), rtol=1e-10, atol=1e-12)
    assert_same_gradients(found, expected)


def settings(values: dict[str, float]) -> list[str]:
    """As a user writes them."""
    return [f"{name}={value}" for name, value in values.items()]


def test_the_look_ahead_drops_what_the_training_pass_drops() -> None:
    """The contrast's gradient is that of the z seen ahead; pulled along it, other z would learn noise."""
    dropping = ("model.encoder.dropout=0.3", "model.decoder.dropout=0.3")
    recipe = load_recipe("compact", (*TINY, *dropping))
    model = new_model(SPEC, recipe).double().train()
    seen: list[Tensor] = []
    model.projector.register_forward_hook(lambda *passed: seen.append(passed[2].detach()))
    for step in (4, 5):
        Pretraining(model, recipe).backward(share_out(some_batch(), 3, CPU), step)
    ahead, trained, next_step = seen[:3], seen[3:6], seen[6:9]
    torch.testing.assert_close(trained, ahead, rtol=1e-10, atol=1e-12)
    for part, z_NZ in zip(next_step, ahead, strict=True):
        assert not torch.allclose(part, z_NZ, rtol=1e-3)


def test_no_two_places_drop_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    """Steps, ranks or parts with one seed would leave out the same channels again and again."""
    seeds: list[int] = []
    monkeypatch.setattr(torch, "manual_seed", seeds.append)
    for seed, step, rank, part in product(range(2), range(200), range(2), range(3)):
        seed_dropout(seed, step, Ranks(rank, 2), part, 3)
    assert len(set(seeds)) == 2 * 200 * 2 * 3


def test_running_statistics_move_once_a_part() -> None:
    """The look ahead without gradients must leave no trace: it would count every body twice."""
    recipe = load_recipe("compact", (*TINY, "accumulate=2"))
    model = new_model(SPEC, recipe).double()
    Pretraining(model, recipe).train().backward(share_out(some_batch(), 2, CPU), step=0)
    norms = [module for module in model.encoder.modules() if isinstance(module, nn.BatchNorm2d)]
    assert norms
    assert {int(norm.num_batches_tracked or 0) for norm in norms} == {2}


def test_every_sample_and_body_goes_into_one_part() -> None:
    """A second person must stay with the first, and a crop with its view."""
    batch = some_batch(cropped=True)
    parts = split_batch(batch, 3)
    assert [part.num_samples for part in parts] == [2, 2, 3]
    assert torch.equal(torch.cat([part.original_PCTV for part in parts]), batch.original_PCTV)
    for index, view in enumerate(batch.views):
        assert torch.equal(torch.cat([part.views[index].x_PCTV for part in parts]), view.x_PCTV)
        assert torch.equal(torch.cat([part.views[index].visible_N for part in parts]), view.visible_N)
    crops = [part.views[1].target_PCTV for part in (*parts, batch)]
    *of_parts, whole_PCTV = [crop_PCTV for crop_PCTV in crops if crop_PCTV is not None]
    assert len(of_parts) == 3
    assert torch.equal(torch.cat(of_parts), whole_PCTV)
    starts = torch.tensor([0, 2, 4])
    joined = torch.cat([part.sample_P + start for part, start in zip(parts, starts, strict=True)])
    assert torch.equal(joined, batch.sample_P)


def test_two_recordings_of_a_performance_are_not_pushed_apart() -> None:
    """A batch may hold both cameras' recordings of a performance; as negatives they would undo the pairs."""
    recipe = load_recipe("compact", (*TINY, "positives=camera", "spatial_weight=0", "temporal_weight=0"))
    batch = some_batch(two_cameras=True)
    model = new_model(SPEC, recipe).double().eval()
    encoded = encode_views(model, batch, "float32")
    assert len(encoded.q_second_PCtV) == len(batch.bodies_of(batch.views[1])) > len(encoded.q_first_PCtV)
    first_NZ, second_NZ = encoded.first_NZ, encoded.second_NZ
    expected = nt_xent(first_NZ, second_NZ, recipe.temperature, performances_N=batch.performances_N)
    assert expected != nt_xent(first_NZ, second_NZ, recipe.temperature)
    assert batch_losses(model, batch, recipe, CPU).contrast == expected


@pytest.mark.parametrize("positives", ["recording", "camera"])
def test_recordings_of_a_performance_are_negatives_unless_they_are_positives(positives: str) -> None:
    """Left out where each is its own, the contrast would not ask for what tells two cameras apart, and every
    loss be another than the one in the tables."""
    changes = (f"positives={positives}", "temperature=0.5", "spatial_weight=0", "temporal_weight=0")
    recipe, batch = load_recipe("compact", (*TINY, *changes)), some_batch()
    model = new_model(SPEC, recipe).double().eval()
    with torch.no_grad():
        encoded = encode_views(model, batch, "float32")
    of_each_recording, of_each_performance = (
        contrasted_slowly(encoded.first_NZ, encoded.second_NZ, 0.5, shown)
        for shown in (list(range(N)), batch.performances_N.tolist())
    )
    assert abs(of_each_recording - of_each_performance) > 0.01
    found = batch_losses(model, batch, recipe, CPU).contrast.item()
    assert found == pytest.approx(of_each_performance if positives == "camera" else of_each_recording)


def contrasted_slowly(first_NZ: Tensor, second_NZ: Tensor, temperature: float, shown: list[int]) -> float:
    """Eq. 4 and 5, view by view: against all that show something else."""
    z, shown = [*first_NZ, *second_NZ], shown * 2
    total = 0.0
    for own in range(2 * N):
        other = (own + N) % (2 * N)
        compared = [other, *(view for view in range(2 * N) if shown[view] != shown[own])]
        scores = [float(torch.cosine_similarity(z[own], z[view], dim=0)) / temperature for view in compared]
        total += math.log(sum(map(math.exp, scores))) - scores[0]
    return total / (2 * N)


def test_a_batch_without_an_unseen_frame_owes_nothing() -> None:
    """As with a mask ratio of 0: nothing over nothing would end a training in NaN."""
    recipe = load_recipe("compact", (*TINY, "contrast_weight=0", "spatial_weight=0"))
    batch = some_batch()
    views = batch.views[0], replace(batch.views[1], visible_N=torch.full((N,), T))
    losses_L, found = one_step(
        Pretraining(new_model(SPEC, recipe).double(), recipe), replace(batch, views=views), 2
    )
    assert losses_L.tolist() == [0, 0]
    assert found
    assert not any(gradient.any() for gradient in found.values())


def test_ranks_without_an_unseen_frame_owe_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same for several processes, whose numbers are added up first: here of two that are alike."""
    monkeypatch.setattr(Ranks, "sum", lambda _, x: 2 * x)
    batch = some_batch()
    views = batch.views[0], replace(batch.views[1], visible_N=torch.full((N,), T))
    counts = count_numbers(replace(batch, views=views), CPU, Ranks(0, 2))
    assert [float(count) for count in counts] == [2 * len(batch.sample_P) * C * T * V, 1]


@pytest.mark.parametrize("precision", ["bf16", "float32"])
def test_decoders_multiply_in_the_recipes_precision(monkeypatch: pytest.MonkeyPatch, precision: str) -> None:
    """In float32 half of a step would gain nothing from a recipe that asks for bfloat16."""
    monkeypatch.undo()  # here float32 is what it is called
    recipe = load_recipe("compact", (*TINY, f"precision={precision}"))
    batch = some_batch().map(lambda x: x.float() if x.is_floating_point() else x)
    model, seen = new_model(SPEC, recipe), set[tuple[str, torch.dtype]]()
    for name in ("spatial_decoder", "temporal_decoder"):
        for layer in model.get_submodule(name).modules():
            if isinstance(layer, nn.Linear | nn.Conv2d):
                layer.register_forward_hook(lambda *passed, of=name: seen.add((of, passed[2].dtype)))
    batch_losses(model, batch, recipe, CPU)
    expected = torch.bfloat16 if precision == "bf16" else torch.float32
    assert seen == {("spatial_decoder", expected), ("temporal_decoder", expected)}


def owed_errors(rebuilt_PCTV: Tensor, target_PCTV: Tensor, view: View, sample_P: Tensor) -> Tensor:
    """Squared errors of what a view owes: the whole sequence or, of a temporal one, its unseen frames."""
    errors = []
    for body, sample in enumerate(sample_P.tolist()):
        owed = slice(int(view.visible_N[sample]) if view.kind == "temporal" else 0, T)
        errors.append((rebuilt_PCTV[body, :, owed] - target_PCTV[body, :, owed]).square().flatten())
    return torch.cat(errors)


@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("first", ["spatial", "temporal"])
@pytest.mark.parametrize("second", ["spatial", "temporal"])
def test_a_decoder_owes_what_its_view_is_asked_for(first: str, second: str, reduction: str) -> None:
    """S-S and T-T of Table 5: the view decides between Eq. 6 and 7, not the decoder's name."""
    recipe = load_recipe("compact", (*TINY, f"views={[first, second]}", f"reduction={reduction}"))
    model, batch = new_model(SPEC, recipe).double().eval(), paired(some_batch(), recipe.views)
    with torch.no_grad():
        losses = batch_losses(model, batch, recipe, CPU)
        q_first_PCtV, q_second_PCtV = (model.encode(view.x_PCTV) for view in batch.views)
        from_first_PCTV = model.reconstruct_spatial(q_first_PCtV, T)
        from_second_PCTV = model.reconstruct_temporal(q_second_PCtV, T)
    spatial = owed_errors(from_first_PCTV, batch.original_PCTV, batch.views[0], batch.sample_P)
    temporal = owed_errors(from_second_PCTV, batch.original_PCTV, batch.views[1], batch.sample_P)
    reduce = torch.mean if reduction == "mean" else torch.sum
    torch.testing.assert_close(losses.spatial, reduce(spatial), rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(losses.temporal, reduce(temporal), rtol=1e-10, atol=1e-12)


def test_a_cropped_view_owes_its_own_frames() -> None:
    """The decoder would be trained to guess frames from another part of the recording."""
    recipe = load_recipe("compact", (*TINY, "contrast_weight=0", "spatial_weight=0"))
    model = new_model(SPEC, recipe).double()
    batch = some_batch(cropped=True)
    losses = Pretraining(model, recipe).eval().backward(share_out(batch, 1, CPU), step=0)
    temporal = batch.views[1]
    assert temporal.target_PCTV is not None
    with torch.no_grad():
        rebuilt_PCTV = model.reconstruct_temporal(model.encode(temporal.x_PCTV), T)
    errors = owed_errors(rebuilt_PCTV, temporal.target_PCTV, temporal, batch.sample_P)
    torch.testing.assert_close(losses[-2], errors.mean(), rtol=1e-10, atol=1e-12)
