"""Joints that no recording shows are told: they lie where others are."""

import json
from pathlib import Path

import pytest

from data_specs.read import load_spec
from data_specs.spec import DatasetSpec
from pipeline.normalize import NormalizeConfig
from pipeline.preprocess import PreprocessConfig, prepare, run
from pipeline.raw.synthetic import synthesize
from pipeline.store.shards import Shards, open_shards
from pipeline.unseen import collapsed_bones

HEAD, NECK = 3, 2


@pytest.fixture(scope="module")
def spec() -> DatasetSpec:
    return load_spec("ucla")


def made(spec: DatasetSpec, raw: Path, out: Path, format_: str = "zarr") -> Shards:
    config = PreprocessConfig(NormalizeConfig(frames=8, max_bodies=1), format_)
    run(prepare(spec, [raw], out, config, overwrite=False))
    return open_shards(out)


@pytest.mark.parametrize("format_", ["zarr", "webdataset"])
def test_a_joint_that_is_always_the_origin_is_told(spec: DatasetSpec, tmp_path: Path, format_: str) -> None:
    """As it is where coordinates are relative to it: it would be taken for unseen, recording by recording,
    and nobody would hear."""
    raw = tmp_path / "raw"
    synthesize(spec, raw, 6)
    assert collapsed_bones(made(spec, raw, tmp_path / "as-it-is", format_)) == []
    paths = sorted(raw.rglob("*.json"))
    for number, path in enumerate(paths):
        document = json.loads(path.read_text())
        for frame in document["skeletons"]:
            origin = list(frame[HEAD])
            frame[:] = [[a - b for a, b in zip(joint, origin, strict=True)] for joint in frame]
        path.write_text(json.dumps(document))
        if number == len(paths) - 2:
            shards = made(spec, raw, tmp_path / "but-one", format_)
            assert collapsed_bones(shards) == []
    joints = spec.skeleton.joints
    relative = made(spec, raw, tmp_path / "relative", format_)
    assert collapsed_bones(relative) == [(joints[HEAD], joints[NECK])]
