"""Several processes train what one would, and one that fails does not leave the others waiting.

Axes: N sample, C channel.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from data_specs.spec import load_spec
from model.checkpoint import Run, load_checkpoint
from model.parallel import ALONE, SharedBatchNorm, check_share, device_of_rank, joined, share_batch_norm
from model.recipe import load_recipe
from model.train import train
from pipeline.normalize import NormalizeConfig
from pipeline.preprocess import PreprocessConfig, prepare, run
from pipeline.raw.synthetic import synthesize
from pipeline.store.shards import Shards, open_shards

ROOT = Path(__file__).parents[2]
CPU = torch.device("cpu")
SMALL = (
    "epochs=2",
    "batch_size=8",
    "lr=1e-3",
    "model.encoder.widths=[4, 4, 4, 4, 8, 8]",
    "model.decoder.widths=[4, 4, 4, 4, 4]",
    "model.decoder.dropout=0.0",
    "model.projection=[8, 6]",
)
WAYS = {
    "mean": (),
    "sum": ("reduction=sum", "spatial_weight=1e-4", "temporal_weight=1e-4", "views=['temporal', 'spatial']"),
    "supervised": ("objective=supervised", "label_fraction=0.9"),
    "bf16": ("precision=bf16",),
}

# Trains every way on two ranks; the first writes down what was reported.
WORKER = """
import json, sys
from pathlib import Path
import torch
from model.checkpoint import Run
from model.parallel import joined
from model.train import train
from pipeline.store.shards import open_shards
import model.train

model.train._optimiser = lambda objective, *_: torch.optim.SGD(objective.parameters(), lr=1)
torch.set_num_threads(1)
shards, folder = open_shards(Path(sys.argv[1])), Path(sys.argv[2])
with joined(torch.device("cpu")) as ranks:
    for name in sys.argv[3:]:
        made, heard = Run(folder / name), []
        resume = (folder / name / "checkpoints").exists()
        train(shards, made.recipe(), made, device=torch.device("cpu"), resume=resume, ranks=ranks,
              on_progress=lambda done: heard.append(done.losses | {"samples": done.samples}))
        if ranks.is_first:
            (folder / f"{name}.json").write_text(json.dumps(heard))
        else:
            assert not heard
"""


def torchrun(*arguments: object, processes: int = 2) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
        + [str(argument) for argument in arguments],
        env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=120,
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
def on_two_ranks(crowded: Shards, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder in which two processes trained every way."""
    folder = tmp_path_factory.mktemp("two")
    (folder / "worker.py").write_text(WORKER)
    for name, changes in WAYS.items():
        new = Run(folder / name)
        new.create(load_recipe("compact", SMALL + changes), crowded.location, crowded.manifest.digest)
    done = torchrun(folder / "worker.py", crowded.folder, folder, *WAYS)
    assert done.returncode == 0, done.stderr
    return folder


def plain_descent(objective: nn.Module, *_: object) -> torch.optim.Optimizer:
    """Adam divides gradients by their size and so makes as much of those that are rounding errors."""
    return torch.optim.SGD(objective.parameters(), lr=1)


@pytest.mark.parametrize("way", WAYS)
def test_two_ranks_train_what_one_does(
    crowded: Shards, on_two_ranks: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    """Negatives, means and batch statistics of half a batch are others, and so is what is learnt."""
    monkeypatch.setattr("model.train._optimiser", plain_descent)
    recipe, alone = load_recipe("compact", SMALL + WAYS[way]), Run(tmp_path / way)
    alone.create(recipe, crowded.location, crowded.manifest.digest)
    expected: list[dict[str, float]] = []
    train(
        crowded,
        recipe,
        alone,
        device=CPU,
        on_progress=lambda done: expected.append(done.losses | {"samples": done.samples}),
    )
    found = json.loads((on_two_ranks / f"{way}.json").read_text())
    assert len(found) == len(expected) >= 6
    tolerance = 2e-2 if way == "bf16" else 1e-5
    for one, two in zip(expected, found, strict=True):
        assert two == pytest.approx(one, rel=tolerance)
    if way == "bf16":
        return
    weights = load_checkpoint(alone).content["model"]
    for name, value in load_checkpoint(Run(on_two_ranks / way)).content["model"].items():
        torch.testing.assert_close(value, weights[name], rtol=1e-4, atol=1e-5, msg=lambda m, n=name: f"{n}: {m}")
