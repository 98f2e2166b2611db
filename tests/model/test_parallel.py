"""Several processes train what one would, and one that fails does not leave the others waiting.

Axes: N sample, P packed present body, C channel, T frame, V joint.
"""

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from data_specs.read import load_spec
from model.batch_norm import SharedBatchNorm
from model.parallel import Ranks, check_share, device_of_rank, joined
from model.recipe import load_recipe
from model.run import Run
from pipeline.normalize import NormalizeConfig
from pipeline.preprocess import PreprocessConfig, prepare, run
from pipeline.raw.synthetic import synthesize
from pipeline.store.shards import Shards, open_shards

ROOT = Path(__file__).parents[2]
CPU = torch.device("cpu")
SMALL = (
    "epochs=1",
    "batch_size=16",
    "lr=1e-3",
    "model.encoder.widths=[4, 4, 4, 4, 8, 8]",
    "model.decoder.widths=[4, 4, 4, 4, 4]",
    "model.decoder.dropout=0.0",
    "model.projection=[8, 6]",
    "temperature=0.5",
)
WAYS = {
    "mean": (),
    "sum": ("reduction=sum", "spatial_weight=1e-4", "temporal_weight=1e-4", "views=['temporal', 'spatial']"),
    "supervised": ("objective=supervised", "label_fraction=0.9"),
    "bf16": ("precision=bf16",),
    "whitened": (
        *("spatial_weight=0", "temporal_weight=0", "model.backbone=statistics", "model.statistics.hidden=8"),
        *("model.statistics.whitened=6", "model.statistics.skip=true"),
        *("model.statistics.graph_streams=['joint']", "model.pool.statistics=['mean']"),
    ),
}
# bfloat16 rounds too coarsely to compare a single step; whitening is fitted where a whole training begins.
WAYS_OF_A_STEP = [way for way in WAYS if way not in ("bf16", "whitened")]
BASELINES = ("as-cal-like", "ms2l-like", "pc-like", "lstm-autoencoder")

# Trains in every way, then takes two steps' gradients in float64; the first process writes both down.
WORKER = (
    f"BASELINES = {BASELINES}"
    + """
import json, sys
from dataclasses import replace
from pathlib import Path
import torch
from data_specs.read import load_spec
from model.baselines.choose import new_baseline
from model.checkpoint import new_model
from model.recipe import CPSTN_OBJECTIVE, load_recipe, views_of
from model.run import Run
from model.objective import Pretraining
from model.share import share_out, split_batch
from model.batch_norm import share_batch_norm
from model.parallel import joined
from model.supervised import Supervised
from model.train import train
from pipeline.batch import Batch, View
from pipeline.store.shards import open_shards

CPU, SPEC = torch.device("cpu"), load_spec("ntu60")
torch.set_num_threads(1)

def whole_batch():
    torch.manual_seed(1)
    sample_P = torch.tensor([0, 0, 1, 2, 3, 3, 4, 5, 5, 6, 6, 7, 7])
    x_VPCTV = torch.randn(3, 13, 3, 16, 25, dtype=torch.float64)
    seen_N = torch.tensor([16, 3, 5, 7, 9, 11, 13, 1])
    views = View("spatial", x_VPCTV[1], torch.full((8,), 16)), View("temporal", x_VPCTV[2], seen_N)
    return Batch(x_VPCTV[0], views, sample_P, torch.arange(8), torch.arange(8) % 5, torch.arange(8) // 2, 8)

def in_order(batch, order):
    chosen_P = torch.cat([torch.nonzero(batch.sample_P == sample).flatten() for sample in order])
    sample_P = torch.tensor([order.index(sample) for sample in batch.sample_P[chosen_P].tolist()])
    views = tuple(replace(view, x_PCTV=view.x_PCTV[chosen_P], visible_N=view.visible_N[order])
                  for view in batch.views)
    return Batch(batch.original_PCTV[chosen_P], views, sample_P, batch.ids_N[order], batch.labels_N[order],
                 batch.performances_N[order], 8)

def new_objective(recipe, ranks):
    model = new_model(SPEC, recipe)
    torch.manual_seed(2)
    if recipe.objective == "supervised":
        return Supervised(model, recipe, 60, ranks)
    return (Pretraining if recipe.objective == CPSTN_OBJECTIVE else new_baseline)(model, recipe, ranks)

def two_steps(recipe, ranks):
    objective, batch, parts = new_objective(recipe, ranks), whole_batch(), recipe.accumulate
    share_batch_norm(objective, ranks, CPU).double().train()
    batch = replace(batch, views=batch.views[2 - len(views_of(recipe)):])
    if parts > 1 and ranks.world == 1:  # the first part of both ranks, then the second
        batch = in_order(batch, [0, 1, 4, 5, 2, 3, 6, 7])
    share = share_out(split_batch(batch, ranks.world)[ranks.rank], parts, CPU, ranks)
    for step in range(2):  # of which the second knows what the first remembered
        objective.zero_grad()
        losses = ranks.sum(objective.backward(share, step))
        ranks.sum_gradients(objective)
    gradients = {n: w.grad for n, w in objective.named_parameters() if w.grad is not None}
    return {"losses": losses, "gradients": gradients, "buffers": dict(objective.named_buffers())}

shards, folder, steps = open_shards(Path(sys.argv[1])), Path(sys.argv[2]), {}
with joined(CPU) as ranks:
    runs = {name: Run(folder / name) for name in sys.argv[3:]}
    for name, made in runs.items():
        heard = []
        train(shards, made.recipe(), made, device=CPU, ranks=ranks,
              on_progress=lambda done: heard.append(done.losses | {"samples": done.samples}))
        if ranks.is_first:
            (folder / f"{name}.json").write_text(json.dumps(heard))
        else:
            assert not heard
    # Where float64 stands for float32, rounding is too small to be taken for an error, or an error for it.
    torch.Tensor.float, torch.float32 = torch.Tensor.double, torch.float64
    recipes = {name: made.recipe() for name, made in runs.items() if name not in ("bf16", "whitened")}
    recipes["cameras"] = replace(recipes["mean"], positives="camera")
    recipes["parts"] = replace(recipes["mean"], accumulate=2)
    for name in BASELINES:
        queue = ["as_cal_like.queue=20"] if name == "as-cal-like" else []
        changes = ["batch_size=8", "model.recurrent.hidden=8", "model.projection=[8, 6]", *queue]
        recipes[name] = load_recipe(name, changes)
    steps = {name: two_steps(recipe, ranks) for name, recipe in recipes.items()}
    if ranks.is_first:
        torch.save(steps, folder / "steps.pt")
threads = [(task / "comm").read_text() for task in Path("/proc/self/task").glob("*")]
(folder / f"threads-{ranks.rank}.json").write_text(json.dumps(threads))
"""
)

FAILS_ON_ONE_RANK = """
import torch, torch.distributed as dist
from model.parallel import joined
with joined(torch.device("cpu")) as ranks:
    if not ranks.is_first:
        raise RuntimeError("the disk is full")
    dist.barrier()
"""


def launch(*arguments: object, processes: int, cwd: Path = ROOT) -> "subprocess.CompletedProcess[str]":
    """Run a script by torchrun, or by itself where one process is asked for."""
    torchrun = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    return subprocess.run(
        [sys.executable, *(torchrun if processes > 1 else []), *map(str, arguments)],
        env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


@pytest.fixture(scope="module")
def crowded(tmp_path_factory: pytest.TempPathFactory) -> Shards:
    """Recordings of one and of two people, so that ranks hold different numbers of bodies."""
    folder = tmp_path_factory.mktemp("synthesized-ntu")
    spec = load_spec("ntu60")
    synthesize(spec, folder / "raw", 60)
    config = PreprocessConfig(NormalizeConfig(frames=16))
    run(prepare(spec, [folder / "raw"], folder / "shards", config, overwrite=False), workers=1)
    shards = open_shards(folder / "shards")
    assert set(shards.split("xsub", "train")["num_bodies"]) == {1, 2}
    return shards


@pytest.fixture(scope="module")
def trained(crowded: Shards, tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    """By number of processes, the folder in which so many trained in every way."""
    folders = {processes: tmp_path_factory.mktemp(f"processes-{processes}") for processes in (1, 2)}
    for processes, folder in folders.items():
        (folder / "worker.py").write_text(WORKER)
        for name, changes in WAYS.items():
            new = Run(folder / name)
            new.create(load_recipe("compact", SMALL + changes), crowded.location, crowded.manifest.digest)
        done = launch(folder / "worker.py", crowded.folder, folder, *WAYS, processes=processes)
        assert done.returncode == 0, done.stderr
    return folders


@pytest.mark.parametrize("way", ["cameras", "parts", *BASELINES, *WAYS_OF_A_STEP])
def test_two_processes_take_the_steps_of_one(trained: dict[int, Path], way: str) -> None:
    """Negatives, means or batch statistics of half a batch would teach something else, unseen."""
    expected, found = (torch.load(trained[world] / "steps.pt")[way] for world in (1, 2))
    for what, values in expected.items():
        for name, value in values.items() if isinstance(values, dict) else [("", values)]:
            other = found[what] if isinstance(values, torch.Tensor) else found[what][name]
            torch.testing.assert_close(
                other.double(),
                value.double(),
                rtol=1e-6 if what == "losses" else 1e-9,
                atol=1e-11,
                msg=f"{what} {name}: {other}, expected {value}",
            )


@pytest.mark.parametrize("way", WAYS)
def test_two_processes_train_as_one_does(trained: dict[int, Path], way: str) -> None:
    """The whole loop: order, views, reports. That a step is exact, in float64, is tested above.

    Two processes round otherwise than one in float32, which a low temperature multiplies (at 0.1 one process
    alone has a contrast 2e-5 from its own in float64), and the difference grows with the steps.
    """
    expected, found = (json.loads((trained[world] / f"{way}.json").read_text()) for world in (1, 2))
    assert len(found) == len(expected) >= 2
    assert found[0] == pytest.approx(expected[0], rel=2e-2 if way == "bf16" else 1e-5)
    assert found[-1] == pytest.approx(expected[-1], rel=5e-2 if way == "bf16" else 2e-3)


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="threads are listed by Linux alone")
def test_no_thread_of_the_group_outlives_it(trained: dict[int, Path]) -> None:
    """One that lets go of a tensor while Python shuts down aborts a process that has trained to its end."""
    for rank in range(2):
        threads = json.loads((trained[2] / f"threads-{rank}.json").read_text())
        assert not [name for name in threads if "gloo" in name]


def test_a_failing_process_takes_the_others_with_it(tmp_path: Path) -> None:
    """Otherwise a job would wait for its time limit, and pay for it."""
    (tmp_path / "worker.py").write_text(FAILS_ON_ONE_RANK)
    started = time.monotonic()
    done = launch(tmp_path / "worker.py", processes=2)
    assert done.returncode == 1
    assert "the disk is full" in done.stderr
    assert time.monotonic() - started < 120


# The first process does for longer what the others wait for than any of them waits for another.
FIRST_IS_SLOW = """
import time
from datetime import timedelta
import torch
from model import parallel
parallel.PATIENCE = timedelta(seconds=2)
with parallel.joined(torch.device("cpu")) as ranks:
    if ranks.is_first:
        time.sleep(5)
    ranks.wait_for_first()
    assert ranks.sum(torch.ones(1)).item() == ranks.world
"""


def test_what_the_first_does_for_all_may_take_longer_than_any_step(tmp_path: Path) -> None:
    """Whitening NTU's statistics takes the first process a quarter of an hour."""
    (tmp_path / "worker.py").write_text(FIRST_IS_SLOW)
    done = launch(tmp_path / "worker.py", processes=2)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("shape", [(13, 4), (13, 4, 5, 3)], ids=["NC", "NCTV"])
def test_shared_batch_norm_is_torchs(shape: tuple[int, ...]) -> None:
    """A model must not depend on whether its batch normalisation was shared."""
    torch.manual_seed(0)
    kind = nn.BatchNorm1d if len(shape) == 2 else nn.BatchNorm2d
    theirs: Any = kind(4, eps=0.1, momentum=0.3)
    nn.init.normal_(theirs.weight)
    ours = SharedBatchNorm(kind(4, eps=0.1, momentum=0.3), Ranks())
    ours.load_state_dict(theirs.state_dict())
    x = (3 + torch.randn(shape)).requires_grad_()
    twin = x.detach().clone().requires_grad_()
    for norm, values in ((theirs, x), (ours, twin)):
        norm(values).square().sum().backward()
        norm(values.detach() + 1)
    torch.testing.assert_close(twin.grad, x.grad, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(ours.weight.grad, theirs.weight.grad)
    for name, value in theirs.state_dict().items():
        torch.testing.assert_close(ours.state_dict()[name], value, msg=name)
    torch.testing.assert_close(ours.eval()(x), theirs.eval()(x))


def test_sharing_batch_norm_changes_neither_mode_nor_type() -> None:
    """A part that is to stay as it was would follow each batch, and bfloat16 end at the first norm."""
    norm, x_NCTV = nn.BatchNorm2d(4), torch.randn(13, 4, 5, 3).bfloat16()
    norm(torch.randn(13, 4, 5, 3))
    expected_NCTV = norm.eval()(x_NCTV)
    ours = SharedBatchNorm(norm, Ranks())
    torch.testing.assert_close(ours(x_NCTV), expected_NCTV)
    assert ours.train()(x_NCTV).dtype == torch.bfloat16


@pytest.mark.parametrize(("batch_size", "world", "fitting"), [(10, 4, 8), (3, 4, 4)])
def test_a_batch_that_cannot_be_shared_is_refused(batch_size: int, world: int, fitting: int) -> None:
    """Uneven shares would weigh samples differently, or hang."""
    check_share(fitting, world)
    with pytest.raises(
        ValueError, match=rf"batch_size is {batch_size}, which {world} .*batch_size={fitting}"
    ):
        check_share(batch_size, world)


def test_half_of_torchruns_environment_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """A scheduler that sets WORLD_SIZE alone would otherwise give a stack trace, or hang."""
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.delenv("RANK", raising=False)
    with pytest.raises(ValueError, match="WORLD_SIZE is 2, but RANK is missing: start several"), joined(CPU):
        pass
    with pytest.raises(ValueError, match="2 processes train together on cpu or cuda only"):
        joined(torch.device("meta")).__enter__()
    for world in ("0", "abc"):
        monkeypatch.setenv("WORLD_SIZE", world)
        with pytest.raises(ValueError, match=f"WORLD_SIZE is {world}: start several"):
            joined(CPU).__enter__()


def test_each_process_gets_a_gpu_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """All processes on the first GPU would share its memory and its time."""
    monkeypatch.setenv("WORLD_SIZE", "3")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert device_of_rank(torch.device("cuda")) == torch.device("cuda", 1)
    assert device_of_rank(CPU) == CPU
    monkeypatch.setenv("LOCAL_RANK", "2")
    with pytest.raises(ValueError, match="there are 2; start torchrun with --nproc-per-node=2"):
        device_of_rank(torch.device("cuda"))


def test_one_named_gpu_is_not_for_all_processes_of_a_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert device_of_rank(torch.device("cuda:1")) == torch.device("cuda", 1)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    with pytest.raises(ValueError, match="device is cuda:1 for all 2 processes of this machine; say cuda"):
        device_of_rank(torch.device("cuda:1"))
