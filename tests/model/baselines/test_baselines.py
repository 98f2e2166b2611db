"""What all baselines owe the commands: recipes, checkpoints, parts, processes, precision, learning."""

import os
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from data_specs.read import load_spec
from model.baselines.choose import new_baseline
from model.baselines.settings import BASELINES, MS2L
from model.batch_norm import share_batch_norm
from model.checkpoint import load_checkpoint, new_model
from model.features import encoder_features
from model.parallel import ALONE, Ranks, joined
from model.recipe import OBJECTIVES, Recipe, load_recipe, views_of
from model.run import Run
from model.share import share_out, split_batch
from model.train import Progress, train
from model.training_set import training_samples
from pipeline.batch import Batch, View
from pipeline.store.shards import Shards

ROOT = Path(__file__).parents[3]
CPU = torch.device("cpu")
SPEC = load_spec("ucla")
SMALL = ("epochs=2", "batch_size=16", "lr=1e-3", "model.recurrent.hidden=6", "model.projection=[8, 6]")
WAYS = [(name, ()) for name in BASELINES.values()] + [("pc-like", ("pc_like.weakened=states",))]
IN_PARTS = [way for way in WAYS if way[0] != BASELINES[MS2L]]


def small(name: str, *changes: str) -> Recipe:
    return load_recipe(name, (*SMALL, *changes))


def for_recipe(batch: Batch, recipe: Recipe) -> Batch:
    """The batch with the views that the loader would make for it."""
    kinds = views_of(recipe)
    views = tuple(batch.views[index if len(kinds) == 2 else 1] for index in range(len(kinds)))
    return replace(batch, views=views)


@pytest.mark.parametrize("objective", BASELINES)
def test_every_baseline_has_a_recipe(objective: str, shards: Shards) -> None:
    """Its name is what a user types, and an error sends them there."""
    recipe = load_recipe(BASELINES[objective])
    assert recipe.objective == objective
    assert objective in OBJECTIVES
    assert len(training_samples(shards, recipe)) > 0
    model = new_model(SPEC, recipe)
    assert not [name for name, _ in model.named_children() if "decoder" in name]


@pytest.mark.parametrize(("name", "graph"), [("compact", "A"), ("compact:graph-abc", "A+B+C")])
def test_the_supervised_baselines_are_rows_with_another_objective(name: str, graph: str) -> None:
    """As docs/baselines.md types them: Table 4's ST-GCN and the adaptive one."""
    recipe = load_recipe(name, ("objective=supervised",))
    assert recipe.model.encoder.adaptive == graph
    assert [name for name, _ in new_model(SPEC, recipe).named_children()] == ["encoder", "projector"]


@pytest.mark.parametrize(("name", "changes"), WAYS)
def test_the_loss_of_a_repeated_batch_falls(batch: Batch, name: str, changes: tuple[str, ...]) -> None:
    """A sign, a detached feature or a frozen encoder would not show in any other number."""
    recipe = small(name, "batch_size=5", *changes)
    objective = new_baseline(new_model(SPEC, recipe), recipe)
    optimiser = torch.optim.Adam(objective.parameters(), lr=3e-3)
    totals, last = [], {}
    for _ in range(12):
        optimiser.zero_grad()
        losses_L = objective.backward(share_out(for_recipe(batch, recipe), 1, CPU), step=0)
        optimiser.step()
        last = dict(zip(objective.loss_names, losses_L.tolist(), strict=True))
        totals.append(last["total"])
    assert list(last)[-1] == "total"
    assert totals[1] < totals[0] or name == "as-cal-like"  # whose negatives become harder
    assert min(totals[6:]) < totals[0]


@pytest.mark.parametrize(("name", "changes"), WAYS)
def test_a_run_that_was_stopped_ends_at_the_same_weights(
    shards: Shards, tmp_path: Path, name: str, changes: tuple[str, ...]
) -> None:
    """The queue, the key encoder and every decoder are state, too."""
    recipe = small(name, *changes)
    runs = [Run(tmp_path / folder) for folder in ("whole", "stopped")]
    for run in runs:
        run.create(recipe, shards.location, shards.manifest.digest)
    train(shards, recipe, runs[0], device=CPU)

    def stop_in_second_epoch(progress: Progress) -> None:
        if progress.epoch == 1:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        train(shards, recipe, runs[1], device=CPU, on_progress=stop_in_second_epoch)
    train(shards, recipe, runs[1], device=CPU, threads=1, resume=True)
    expected, found = (load_checkpoint(run) for run in runs)
    assert expected.step == found.step
    for part in ("model", "head"):
        assert expected.content[part].keys() == found.content[part].keys()
        for key, value in expected.content[part].items():
            assert torch.equal(value, found.content[part][key]), key
    model = found.build_model()
    assert found.build_head(model) is None  # no classifier: that is for supervised runs
    features = encoder_features(model, training_samples(shards, recipe).take([0, 1, 2]), CPU)  # type: ignore[arg-type]
    assert features.x_ND.shape == (3, model.representation_size)
    assert features.x_ND.isfinite().all()


@pytest.mark.parametrize("parts", [2, 5])
@pytest.mark.parametrize(("name", "changes"), IN_PARTS)
def test_parts_add_up_to_the_whole(
    batch: Batch, monkeypatch: pytest.MonkeyPatch, name: str, changes: tuple[str, ...], parts: int
) -> None:
    """Who sets `accumulate` because memory is short would train something else."""
    monkeypatch.setattr(torch.Tensor, "float", torch.Tensor.double)
    monkeypatch.setattr(torch, "float32", torch.float64)
    recipe = small(name, *changes)
    found = []
    for count in (1, parts):
        objective = new_baseline(new_model(SPEC, recipe), recipe).double().eval()
        losses_L = objective.backward(share_out(in_double(for_recipe(batch, recipe)), count, CPU), step=3)
        gradients = {n: w.grad for n, w in objective.named_parameters() if w.grad is not None}
        found.append({"losses": losses_L, **gradients, **objective.head.state_dict()})
    assert found[0].keys() == found[1].keys()
    for key, value in found[0].items():
        torch.testing.assert_close(found[1][key], value, rtol=1e-8, atol=1e-10, msg=key)


def in_double(batch: Batch) -> Batch:
    views = tuple(replace(view, x_PCTV=view.x_PCTV.double()) for view in batch.views)
    return replace(batch, original_PCTV=batch.original_PCTV.double(), views=views)


def test_two_processes_take_the_steps_of_one(
    batch: Batch, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Keys, negatives, means and batch statistics are those of all processes."""
    four, _ = split_batch(in_double(batch), 2)
    tensors = [[view.x_PCTV, view.visible_N] for view in four.views]
    torch.save(
        [*tensors, four.original_PCTV, four.sample_P, four.ids_N, four.labels_N], tmp_path / "batch.pt"
    )
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1]), "WORLD_SIZE": "2"}
    processes = [
        subprocess.Popen(
            [sys.executable, __file__, str(tmp_path)],
            env=os.environ | place | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "RANK": str(rank)},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    said = [process.communicate(timeout=300)[1] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], said
    monkeypatch.setattr(torch.Tensor, "float", torch.Tensor.double)
    monkeypatch.setattr(torch, "float32", torch.float64)
    expected, found = two_steps_each(four, ALONE), torch.load(tmp_path / "found.pt")
    assert expected.keys() == found.keys()
    for key, value in expected.items():
        torch.testing.assert_close(found[key], value, rtol=1e-6, atol=1e-9, msg=key)


def two_steps_each(batch: Batch, ranks: Ranks) -> dict[str, Tensor]:
    """What two steps of every baseline come to, in float64, on a batch that the ranks share."""
    found: dict[str, Tensor] = {}
    for name, changes in WAYS:
        recipe = small(name, *changes)
        objective = new_baseline(new_model(SPEC, recipe), recipe, ranks)
        share_batch_norm(objective, ranks, CPU).double().train()
        own = split_batch(for_recipe(batch, recipe), ranks.world)[ranks.rank]
        for step in range(2):
            objective.zero_grad()
            losses_L = ranks.sum(objective.backward(share_out(own, 1, CPU, ranks), step))
            ranks.sum_gradients(objective)
            with torch.no_grad():
                for weight in objective.parameters():
                    weight.sub_(0 if weight.grad is None else 0.1 * weight.grad)
        gradients = {key: w.grad for key, w in objective.named_parameters() if w.grad is not None}
        values = {"losses": losses_L, **gradients, **dict(objective.named_buffers())}
        found |= {f"{name} {changes} {key}": value for key, value in values.items()}
    return found


def work_as_one_of_two(folder: Path) -> None:
    """What each process of the test above does."""
    torch.set_num_threads(1)
    spatial, temporal, *rest, labels_N = torch.load(folder / "batch.pt")
    views = View("spatial", *spatial), View("temporal", *temporal)
    original_PCTV, sample_P, ids_N = rest
    batch = Batch(original_PCTV, views, sample_P, ids_N, labels_N, ids_N, len(ids_N))
    torch.Tensor.float, torch.float32 = torch.Tensor.double, torch.float64  # type: ignore[method-assign]
    with joined(CPU) as ranks:
        found = two_steps_each(batch, ranks)
        if ranks.is_first:
            torch.save(found, folder / "found.pt")


@pytest.mark.parametrize(("name", "changes"), WAYS)
def test_bf16_is_close_to_float32(batch: Batch, name: str, changes: tuple[str, ...]) -> None:
    """Half precision is for the layers; losses and the queue stay in float32."""
    losses = []
    for precision in ("float32", "bf16"):
        recipe = small(name, f"precision={precision}", *changes)
        objective = new_baseline(new_model(SPEC, recipe), recipe)
        losses_L = objective.backward(share_out(for_recipe(batch, recipe), 1, CPU), step=0)
        assert losses_L.dtype == torch.float32
        assert {value.dtype for value in objective.state_dict().values()} <= {torch.float32, torch.int64}
        losses.append(losses_L.tolist())
    assert losses[1] == pytest.approx(losses[0], rel=0.05)


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        (
            "compact",
            "objective=pc_like",
            r"model\.backbone is 'st_gcn'; expected one of rnn, .*--recipe pc-like",
        ),
        ("as-cal-like", "batch_size=501", r"as_cal_like\.queue is 500; expected at least batch_size, 501"),
        ("ms2l-like", "accumulate=2", r"accumulate is 2; expected 1 with objective = 'ms2l_like'"),
        (
            "as-cal-like",
            "as_cal_like.momentum=1.0",
            r"as_cal_like\.momentum is 1\.0; expected .* below 1",
        ),
        ("as-cal-like", "as_cal_like.queue=0", r"as_cal_like\.queue is 0; expected a finite number above 0"),
        (
            "pc-like",
            "pc_like.weakened=both",
            r"pc_like\.weakened is 'both'; expected one of weights, states",
        ),
        ("as-cal-like", "as_cal_like.momentum=-0.1", r"as_cal_like\.momentum is -0\.1; expected .* from 0"),
        ("ms2l-like", "ms2l_like.segments=1", r"ms2l_like\.segments is 1; expected 2 to 5"),
        ("ms2l-like", "ms2l_like.segments=6", r"ms2l_like\.segments is 6; expected 2 to 5"),
        *(
            (
                "ms2l-like",
                f"ms2l_like.{task}_weight=-1",
                rf"ms2l_like\.{task}_weight is -1\.0; expected a finite number",
            )
            for task in ("prediction", "jigsaw", "contrast")
        ),
        ("ms2l-like", "ms2l_like.segment=3", r"did you mean 'ms2l_like\.segments'"),
        (
            "compact",
            "objective=as_cal",
            r"objective is 'as_cal'; expected one of cpstn, supervised, as_cal_like",
        ),
        ("pc-like", "label_fraction=0.5", "objective pc_like uses no labels"),
    ],
)
def test_a_wrong_setting_is_named_with_the_way_out(name: str, change: str, message: str) -> None:
    """Before anything is read or trained."""
    with pytest.raises(ValueError, match=message):
        load_recipe(name, (change,))


if __name__ == "__main__":
    work_as_one_of_two(Path(sys.argv[1]))
