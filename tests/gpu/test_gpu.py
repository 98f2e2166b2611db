"""The commands on GPUs, or on such that are not there: devices are not mixed, nothing in a step makes the
host wait, and numbers are those of a CPU."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from model.checkpoint import load_checkpoint
from model.run import Run
from pipeline.store.shards import Shards
from tests.gpu.pretend import PROJECT, build

SMALL = ("epochs=1", "batch_size=16", "lr=1e-3")
NARROW = ("model.encoder.widths=[4, 4, 4, 4, 8, 8]", "model.decoder.widths=[4, 4, 4, 4, 4]")


class Gpu:
    """A process that carries commands out on the GPU, in a folder of its own."""

    def __init__(self, session: "subprocess.Popen[str]", folder: Path) -> None:
        self.session = session
        self.folder = folder

    def train(self, shards: Shards, recipe: str, *changes: str, device: str = "cuda") -> dict[str, Any]:
        """One epoch of a recipe, in a new run."""
        settings = [part for change in (*SMALL, *changes) for part in ("--set", change)]
        where = ["--shards", str(shards.location), "--device", device]
        return self("train", *where, "--recipe", recipe, *settings)

    def last_run(self) -> Run:
        return Run(max((self.folder / "runs").iterdir()))

    def __call__(self, *arguments: str) -> dict[str, Any]:
        """What the session answers; the command's exit code must be 0."""
        assert self.session.stdin is not None
        assert self.session.stdout is not None
        self.session.stdin.write(json.dumps(arguments) + "\n")
        self.session.stdin.flush()
        answer: dict[str, Any] = json.loads(self.session.stdout.readline())
        assert answer["code"] == 0, answer["output"]
        return answer


IS_REAL = torch.cuda.is_available()


@pytest.fixture(scope="module")
def gpu(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gpu]:
    """NVIDIA's; a real one where there is one."""
    folder = tmp_path_factory.mktemp("gpu")
    with session(folder, {} if IS_REAL else made_up("cuda", folder)) as started:
        yield started


@pytest.fixture(scope="module")
def mac(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gpu]:
    """Apple's, never a real one."""
    folder = tmp_path_factory.mktemp("mac")
    with session(folder, made_up("mps", folder)) as started:
        yield started


def made_up(kind: str, folder: Path) -> dict[str, str]:
    """The environment in which there is a GPU of that kind; the test is skipped where none can be made up."""
    if torch.version.cuda is not None or sys.platform != "linux":
        pytest.skip("for this torch no GPU can be made up")
    try:
        return {"LD_PRELOAD": str(build(folder, kind)), "PRETEND": kind}
    except FileNotFoundError as error:
        pytest.skip(str(error))


@contextmanager
def session(folder: Path, environment: dict[str, str]) -> Iterator[Gpu]:
    with subprocess.Popen(
        [sys.executable, "-m", "tests.gpu.session"],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(PROJECT)} | environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        yield Gpu(process, folder)


@pytest.mark.parametrize(
    ("recipe", "changes"),
    [
        ("paper", ()),
        ("paper:graph-abc", ()),
        ("paper:bigru", ("precision=bf16",)),
        ("paper", ("accumulate=2", "precision=bf16")),
        ("paper", ("model.contrast_pool.bodies=max", "model.decoder.upsampling=linear")),
        ("paper", ("reduction=sum", "views=['temporal', 'temporal']", "view.crop=0.5")),
        ("compact", ("objective=supervised", "precision=bf16")),
        ("contrast", ()),
        ("contrast", ("precision=bf16",)),
        ("as-cal-like", ()),
        ("ms2l-like", ()),
        ("pc-like", ("precision=bf16",)),
        ("lstm-autoencoder", ("precision=bf16",)),
    ],
)
def test_a_step_waits_for_nothing(gpu: Gpu, shards: Shards, recipe: str, changes: tuple[str, ...]) -> None:
    steps = gpu.train(shards, recipe, *changes)["steps"]
    assert len(steps) >= 3
    assert steps == [{}] * len(steps)


def test_a_log_covariance_waits_for_its_eigenvalues_alone(gpu: Gpu, shards: Shards) -> None:
    """torch asks whether the decomposition succeeded; nothing else in a step of `best` waits."""
    steps = gpu.train(shards, "best")["steps"]
    assert len(steps) >= 3
    places = {place for step in steps for place in step}
    assert len(places) == 1
    assert "model/covariance.py" in places.pop()


def test_a_gpu_trains_what_a_cpu_does(gpu: Gpu, shards: Shards) -> None:
    """Losses are read a step late there, batches copied from buffers that are used again."""
    gpu.train(shards, "compact", device="cpu")
    trained_on_cpu = weights(gpu.last_run())
    gpu.train(shards, "compact")
    trained_on_gpu = weights(gpu.last_run())
    assert trained_on_gpu.keys() == trained_on_cpu.keys()
    # Each of five steps may move a weight by lr, whichever way a rounding error points.
    most = 0.01 if IS_REAL else 0.0
    for name, tensor in trained_on_gpu.items():
        torch.testing.assert_close(tensor, trained_on_cpu[name], atol=most, rtol=most, msg=name)


@pytest.mark.parametrize(
    "options",
    [
        ("--mode", "linear,knn"),
        ("--mode", "knn", "--whiten"),
        ("--mode", "semi,finetune", "--label-fraction", "0.5"),
    ],
)
def test_every_evaluation_runs(gpu: Gpu, shards: Shards, options: tuple[str, ...]) -> None:
    """What is on the GPU and what is not never meet there."""
    gpu.train(shards, "compact", *NARROW, "precision=bf16", "finetune.epochs=1")
    run = str(gpu.last_run().folder)
    answer = gpu("eval", "--run", run, *options, "--device", "cuda")
    assert answer["waits"]


def test_runs_are_fused_and_tables_trained(gpu: Gpu, shards: Shards) -> None:
    small = [f"--set={change}" for change in (*SMALL, *NARROW)]
    where = ["--shards", str(shards.location), "--device", "cuda"]
    gpu("ablate", *where, "--recipe", "compact", "--rows", "graph-a,graph-ab", *small, "--name", "rows")
    folder = gpu.folder / "runs/rows"
    run, other = (str(folder / name) for name in ("graph-a-0", "graph-ab-0"))
    gpu("eval", "--run", run, "--mode", "linear", "--fuse", other, "--device", "cuda")


def test_a_gpu_encodes_what_a_cpu_does(gpu: Gpu, shards: Shards) -> None:
    gpu.train(shards, "compact", *NARROW)
    for device in ("cpu", "cuda"):
        gpu("encode", "--run", str(gpu.last_run().folder), "--out", f"{device}.npy", "--device", device)
    on_cpu_ND, on_gpu_ND = (np.load(gpu.folder / f"{device}.npy") for device in ("cpu", "cuda"))
    most = 1e-3 if IS_REAL else 0.0
    np.testing.assert_allclose(on_gpu_ND, on_cpu_ND, rtol=most, atol=most)


@pytest.mark.parametrize("recipe", ["compact", "best", "ms2l-like", "pc-like"])
def test_a_mac_trains_and_evaluates(mac: Gpu, shards: Shards, recipe: str) -> None:
    """Its GPU is what is taken there by default; it knows no float64, and not every operation."""
    narrow = () if recipe == "best" else NARROW
    mac.train(shards, recipe, *narrow, "finetune.epochs=1", device="mps")
    run = str(mac.last_run().folder)
    mac("eval", "--run", run, "--mode", "linear,knn")
    if recipe == "compact":
        mac("eval", "--run", run, "--mode", "knn", "--whiten")
        mac("eval", "--run", run, "--mode", "finetune")
        mac("report", run)


def weights(run: Run) -> dict[str, Tensor]:
    model: dict[str, Tensor] = load_checkpoint(run).content["model"]
    return model
