"""What many tests need: small shards, and real recordings, which lie beside the project, never in it."""

import tarfile
from pathlib import Path

import pytest
import torch

from data_specs.spec import load_spec
from pipeline.normalize import NormalizeConfig
from pipeline.preprocess import PreprocessConfig, prepare, run
from pipeline.raw.synthetic import synthesize
from pipeline.store.shards import Shards, open_shards

# The tests' networks are tiny: more threads only make them wait for each other.
torch.set_num_threads(1)

REAL_DATA = Path(__file__).parents[2] / "shared" / "data"


@pytest.fixture(scope="session")
def official_files() -> Path:
    """The folder of official lists; the test is skipped where it is absent."""
    if not REAL_DATA.is_dir():
        pytest.skip("the real data sets' lists are not at hand")
    return REAL_DATA


@pytest.fixture(scope="session")
def real_ucla(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of all NW-UCLA JSON files."""
    return _unpacked("nw-ucla.tar.xz", tmp_path_factory)


@pytest.fixture(scope="session")
def real_ntu(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of about a thousand NTU-60 .skeleton files."""
    return _unpacked("ntu60-subset.tar.xz", tmp_path_factory)


def _unpacked(name: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    archive = REAL_DATA / name
    if not archive.is_file():
        pytest.skip(f"real data {name} is not at hand")
    folder = tmp_path_factory.mktemp(name.split(".")[0])
    with tarfile.open(archive) as tar:
        tar.extractall(folder, filter="data")
    return next(folder.iterdir())


@pytest.fixture(scope="session")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Shards:
    """Twelve synthesized recordings of each NW-UCLA class, in 16 frames; their raw files beside, in raw/."""
    folder = tmp_path_factory.mktemp("synthesized-ucla")
    spec = load_spec("ucla")
    synthesize(spec, folder / "raw", 120)
    config = PreprocessConfig(NormalizeConfig(frames=16))
    run(prepare(spec, [folder / "raw"], folder / "shards", config, overwrite=False), workers=2)
    return open_shards(folder / "shards")
