"""Training goes on to the very same result after a stop, and says what it needs when it cannot."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from model.checkpoint import Run, find_run, load_checkpoint, newest_run, next_run
from model.recipe import Recipe, load_recipe
from model.train import Progress, train
from pipeline.normalize import NormalizeConfig
from pipeline.preprocess import PreprocessConfig, prepare, run
from pipeline.store.damage import DamagedError
from pipeline.store.shards import Shards, open_shards

CPU = torch.device("cpu")
TINY = (
    "epochs=2",
    "batch_size=16",
    "model.encoder.widths=[4, 4, 4, 4, 8, 8]",
    "model.decoder.widths=[4, 4, 4, 4, 4]",
    "model.projection=[8, 6]",
)


def started(shards: Shards, folder: Path, *changes: str) -> tuple[Recipe, Run]:
    recipe, new = load_recipe("compact", TINY + changes), Run(folder)
    new.create(recipe, shards.location, shards.manifest.digest)
    return recipe, new


class Stop(Exception):  # noqa: N818
    """Stands for whatever ends a run early."""


def test_a_run_that_was_stopped_ends_at_the_same_weights(shards: Shards, tmp_path: Path) -> None:
    check_stop_and_resume(shards, tmp_path)


def test_a_run_on_a_server_ends_at_the_same_weights(
    both_shards: Shards, serve: Callable[..., str], tmp_path: Path
) -> None:
    check_stop_and_resume(open_shards(serve(both_shards.folder)), tmp_path)


def check_stop_and_resume(shards: Shards, tmp_path: Path) -> None:
    recipe, whole = started(shards, tmp_path / "whole")
    train(shards, recipe, whole, device=CPU)
    _, stopped = started(shards, tmp_path / "stopped")

    def stop_in_second_epoch(progress: Progress) -> None:
        if progress.epoch == 1:
            raise Stop

    with pytest.raises(Stop):
        train(shards, recipe, stopped, device=CPU, on_progress=stop_in_second_epoch)
    assert 0 < load_checkpoint(stopped).step < load_checkpoint(stopped).steps
    train(shards, recipe, stopped, device=CPU, threads=1, resume=True)
    expected, found = load_checkpoint(whole), load_checkpoint(stopped)
    assert found.step == found.steps == expected.steps
    for name, weights in expected.content["model"].items():
        assert torch.equal(weights, found.content["model"][name]), name


def test_losses_fall_and_are_reported(shards: Shards, tmp_path: Path) -> None:
    recipe, new = started(shards, tmp_path / "run", "epochs=12", "lr=1e-2", "view.shear=0.1")
    heard: list[Progress] = []
    train(shards, recipe, new, device=CPU, on_progress=heard.append)
    assert [progress.step for progress in heard] == list(range(1, heard[0].steps + 1))
    assert set(heard[0].losses) == {"contrast", "spatial", "temporal", "total"}
    first, last = heard[0].losses, heard[-1].losses
    assert last["total"] < 0.9 * first["total"]
    total = first["contrast"] + first["spatial"] + first["temporal"]
    assert first["total"] == pytest.approx(total, rel=1e-5)
    assert list(new.folder.glob("events.out.tfevents.*"))


def test_the_checkpoint_is_plain_and_rebuilds_the_model(shards: Shards, tmp_path: Path) -> None:
    recipe, new = started(shards, tmp_path / "run")
    model = train(shards, recipe, new, device=CPU)
    content = torch.load(new.checkpoint, weights_only=True)
    assert set(content["model"]) == set(model.state_dict())
    checkpoint = load_checkpoint(new)
    assert checkpoint.recipe() == recipe
    assert checkpoint.spec() == shards.spec
    x_PCTV = torch.randn(3, 3, 16, 20)
    model.eval()
    rebuilt = checkpoint.build_model().eval()
    assert torch.equal(rebuilt.encode(x_PCTV), model.encode(x_PCTV))
    untrained = checkpoint.build_model(trained=False).eval()
    assert not torch.equal(untrained.encode(x_PCTV), model.encode(x_PCTV))


def test_pretexts_can_be_switched_off(shards: Shards, tmp_path: Path) -> None:
    recipe, new = started(shards, tmp_path / "run", "epochs=1", "spatial_weight=0", "temporal_weight=0")
    heard: list[Progress] = []
    train(shards, recipe, new, device=CPU, on_progress=heard.append)
    assert heard[0].losses["spatial"] == heard[0].losses["temporal"] == 0
    assert heard[0].losses["total"] == pytest.approx(heard[0].losses["contrast"])


@pytest.mark.parametrize("views", ["['spatial', 'spatial']", "['temporal', 'temporal']"])
def test_views_pair_freely(shards: Shards, tmp_path: Path, views: str) -> None:
    recipe, new = started(shards, tmp_path / "run", "epochs=1", f"views={views}")
    heard: list[Progress] = []
    train(shards, recipe, new, device=CPU, on_progress=heard.append)
    assert heard[-1].losses["spatial"] > 0
    assert heard[-1].losses["temporal"] > 0


def test_a_loss_that_is_no_number_names_the_step_and_the_samples(shards: Shards, tmp_path: Path) -> None:
    recipe, new = started(shards, tmp_path / "run", "lr=1e30")
    with pytest.raises(RuntimeError, match=r"no longer a number at step \d+.*a\d\d_s\d\d_e\d\d_v\d\d"):
        train(shards, recipe, new, device=CPU)


def test_other_shards_or_another_length_are_refused(shards: Shards, tmp_path: Path) -> None:
    recipe, new = started(shards, tmp_path / "run", "epochs=1")
    train(shards, recipe, new, device=CPU)
    with pytest.raises(ValueError, match="was planned for"):
        train(shards, load_recipe("compact", TINY), new, device=CPU, resume=True)
    config = PreprocessConfig(NormalizeConfig(frames=17))
    raw = shards.folder.parent / "raw"
    run(prepare(shards.spec, [raw], tmp_path / "other", config, overwrite=False), workers=1)
    with pytest.raises(ValueError, match="other shards than those"):
        train(open_shards(tmp_path / "other"), recipe, new, device=CPU, resume=True)


def test_runs_are_found_and_never_overwritten(shards: Shards, tmp_path: Path) -> None:
    _, first = started(shards, next_run(tmp_path, "ucla").folder)
    assert first.folder.name == "ucla-001"
    assert next_run(tmp_path, "ucla").folder.name == "ucla-002"
    with pytest.raises(ValueError, match="exists already; choose another --name"):
        started(shards, first.folder)
    assert find_run("ucla-001", tmp_path) == first
    with pytest.raises(ValueError, match=r"no run .other.; runs under .*: ucla-001"):
        find_run("other", tmp_path)
    with pytest.raises(ValueError, match="no checkpoint yet"):
        load_checkpoint(first)
    with pytest.raises(ValueError, match="run train first"):
        newest_run(tmp_path)


@pytest.mark.parametrize("content", [b"", b"not a checkpoint", b"PK\x03\x04 cut"])
def test_a_damaged_checkpoint_is_told(shards: Shards, tmp_path: Path, content: bytes) -> None:
    _, new = started(shards, tmp_path / "run")
    new.checkpoint.parent.mkdir()
    new.checkpoint.write_bytes(content)
    with pytest.raises(ValueError, match="not a readable checkpoint"):
        load_checkpoint(new)


def test_a_run_stopped_before_its_first_checkpoint_can_be_resumed(shards: Shards, tmp_path: Path) -> None:
    recipe, new = started(shards, tmp_path / "run", "epochs=1")

    def stop(_: Progress) -> None:
        raise Stop

    with pytest.raises(Stop):
        train(shards, recipe, new, device=CPU, on_progress=stop)
    assert not new.checkpoint.exists()
    train(shards, new.recipe(), new, device=CPU, resume=True)
    assert load_checkpoint(new).step == load_checkpoint(new).steps


def test_padded_shards_are_not_trained_on(shards: Shards, tmp_path: Path) -> None:
    config = PreprocessConfig(NormalizeConfig(frames=16, resample="pad"))
    raw = shards.folder.parent / "raw"
    run(prepare(shards.spec, [raw], tmp_path / "padded", config, overwrite=False), workers=1)
    padded = open_shards(tmp_path / "padded")
    recipe, new = started(padded, tmp_path / "run")
    with pytest.raises(ValueError, match="padded with zeros"):
        train(padded, recipe, new, device=CPU)


def test_damaged_shards_are_not_trained_on(shards: Shards, tmp_path: Path) -> None:
    shutil.copytree(shards.folder, tmp_path / "shards")
    damaged = open_shards(tmp_path / "shards")
    file = next(path for path in (damaged.folder / "skeletons.zarr" / "c").rglob("*") if path.is_file())
    content = bytearray(file.read_bytes())
    for place in range(100, len(content) // 2, 1000):
        content[place] ^= 1
    file.write_bytes(content)
    recipe, new = started(damaged, tmp_path / "run")
    with pytest.raises(DamagedError, match=str(file)):
        train(damaged, recipe, new, device=CPU)
