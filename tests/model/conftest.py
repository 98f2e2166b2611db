"""What tests of several parts of the model need."""

import pytest
import torch

from data_specs.read import load_spec
from data_specs.skeleton import Skeleton
from model.recipe import load_recipe
from model.run import Run
from model.train import train
from pipeline.store.shards import Shards

TINY = (
    "epochs=1",
    "batch_size=40",
    "model.encoder.widths=[4, 4, 4, 4, 8, 8]",
    "model.decoder.widths=[4, 4, 4, 4, 4]",
)


@pytest.fixture(scope="session")
def tiny_run(shards: Shards, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Really trained, for two steps, by `compact`."""
    recipe, run = load_recipe("compact", TINY), Run(tmp_path_factory.mktemp("runs") / "first")
    run.create(recipe, shards.folder, shards.manifest.digest)
    train(shards, recipe, run, device=torch.device("cpu"))
    return run


@pytest.fixture
def skeleton() -> Skeleton:
    """25 joints: NTU's."""
    return load_spec("ntu60").skeleton


@pytest.fixture
def _seed() -> None:
    torch.manual_seed(0)


@pytest.fixture
def _float64_stands_for_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that rounding is too small to be taken for an error, or an error for it."""
    monkeypatch.setattr(torch.Tensor, "float", torch.Tensor.double)
    monkeypatch.setattr(torch, "float32", torch.float64)
