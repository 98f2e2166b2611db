"""Training goes on to the very same result after a stop, and says what it needs when it cannot."""

import math
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pytest
import torch
from torch.optim.optimizer import register_optimizer_step_pre_hook

import model.train as train_module
from data_specs.read import load_spec, parse_spec
from model.checkpoint import load_checkpoint
from model.objective import Pretraining
from model.parallel import Ranks
from model.recipe import Recipe, load_recipe
from model.run import Run
from model.share import Share
from model.train import Progress, train
from model.training_set import training_samples
from pipeline.loader import sequential_batches
from pipeline.normalize import NormalizeConfig
from pipeline.order import batch_indices, steps_per_epoch
from pipeline.preprocess import PreprocessConfig, prepare, run
from pipeline.raw.synthetic import synthesize
from pipeline.samples import Samples
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


def test_a_run_with_two_cameras_ends_at_the_same_weights(tmp_path: Path) -> None:
    """Which camera is the second depends on the epoch: a resumed run must draw it as the first would have."""
    text = load_spec("ucla").text
    spec = parse_spec(text.replace("simultaneous_cameras = false", "simultaneous_cameras = true"))
    config = PreprocessConfig(NormalizeConfig(frames=16))
    synthesize(spec, tmp_path / "raw", 240)
    run(prepare(spec, [tmp_path / "raw"], tmp_path / "shards", config, overwrite=False), workers=2)
    filmed_twice = open_shards(tmp_path / "shards")
    check_stop_and_resume(filmed_twice, tmp_path, "positives=camera")


def check_stop_and_resume(shards: Shards, tmp_path: Path, *changes: str) -> None:
    recipe, whole = started(shards, tmp_path / "whole", *changes)
    train(shards, recipe, whole, device=CPU)
    _, stopped = started(shards, tmp_path / "stopped", *changes)

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


def test_every_step_has_its_own_rate_and_the_recipes_decay(shards: Shards, tmp_path: Path) -> None:
    """A rate that does not fall trains, too, and ends a point or two lower."""
    recipe, new = started(shards, tmp_path / "run", "lr=1e-3", "schedule=cosine", "weight_decay=0.25")
    groups: list[dict[str, Any]] = []
    hook = register_optimizer_step_pre_hook(lambda adam, *_: groups.append(dict(adam.param_groups[0])))
    train(shards, recipe, new, device=CPU)
    hook.remove()
    steps = load_checkpoint(new).steps
    assert len(groups) == steps
    expected = [1e-3 * (1 + math.cos(math.pi * step / steps)) / 2 for step in range(steps)]
    assert [group["lr"] for group in groups] == pytest.approx(expected)
    assert {group["weight_decay"] for group in groups} == {0.25}


def test_batches_are_asked_for_as_the_recipe_says(
    shards: Shards, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Other views than those in RUN/recipe.toml would be found out by nobody."""
    recipe, new = started(
        *(shards, tmp_path / "run", "seed=5", "view.shear=0.1", "positives=camera"),
        "views=['spatial', 'combined']",
    )
    asked: dict[str, Any] = {}

    def listen(samples: Samples, **wanted: Any) -> NoReturn:
        asked.update(wanted, samples=len(samples))
        raise Stop

    monkeypatch.setattr(train_module, "train_batches", listen)
    monkeypatch.setattr("model.training_set.check_positives", lambda *_: None)
    with pytest.raises(Stop):
        train(shards, recipe, new, device=CPU, threads=3)
    count = len(shards.split("xview", "train"))
    assert asked == {
        "samples": count,
        "batch_size": 16,
        "seed": 5,
        "start_step": 0,
        "end_step": 2 * steps_per_epoch(count, 16),
        "views": ("spatial", "combined"),
        "config": recipe.view,
        "positives": "camera",
        "threads": 3,
        "rank": 0,
        "world": 1,
        "pin_memory": False,
    }


def test_pretexts_can_be_switched_off(shards: Shards, tmp_path: Path) -> None:
    recipe, new = started(shards, tmp_path / "run", "epochs=1", "spatial_weight=0", "temporal_weight=0")
    heard: list[Progress] = []
    train(shards, recipe, new, device=CPU, on_progress=heard.append)
    assert set(heard[0].losses) == {"contrast", "total"}
    assert heard[0].losses["total"] == pytest.approx(heard[0].losses["contrast"])


def test_a_batch_larger_than_the_set_is_told(shards: Shards, tmp_path: Path) -> None:
    recipe, new = started(shards, tmp_path / "run", "epochs=1", "batch_size=5000")
    notes: list[str] = []
    train(shards, recipe, new, device=CPU, on_note=notes.append)
    count = len(shards.split("xview", "train"))
    assert notes == [f"batch_size is 5,000; a batch is all {count} training samples"]
    train(shards, recipe, new, device=CPU, resume=True, on_note=notes.append)
    assert notes[-1] == f"{new.folder} was finished already, at step 1 of 1"


@pytest.mark.parametrize("views", ["['spatial', 'spatial']", "['temporal', 'temporal']"])
def test_views_pair_freely(shards: Shards, tmp_path: Path, views: str) -> None:
    recipe, new = started(shards, tmp_path / "run", "epochs=1", f"views={views}")
    heard: list[Progress] = []
    train(shards, recipe, new, device=CPU, on_progress=heard.append)
    assert heard[-1].losses["spatial"] > 0
    assert heard[-1].losses["temporal"] > 0


def test_other_shards_or_another_length_are_refused(shards: Shards, tmp_path: Path) -> None:
    recipe, new = started(shards, tmp_path / "run", "epochs=1")
    train(shards, recipe, new, device=CPU)
    with pytest.raises(ValueError, match="another recipe, which differs in epochs; a run goes on"):
        train(shards, load_recipe("compact", TINY), new, device=CPU, resume=True)
    config = PreprocessConfig(NormalizeConfig(frames=17))
    raw = shards.folder.parent / "raw"
    run(prepare(shards.spec, [raw], tmp_path / "other", config, overwrite=False), workers=1)
    with pytest.raises(ValueError, match="other shards than those"):
        train(open_shards(tmp_path / "other"), recipe, new, device=CPU, resume=True)


def test_a_run_stopped_before_its_first_checkpoint_can_be_resumed(shards: Shards, tmp_path: Path) -> None:
    recipe, new = started(shards, tmp_path / "run", "epochs=1")

    def stop(_: Progress) -> None:
        raise Stop

    with pytest.raises(Stop):
        train(shards, recipe, new, device=CPU, on_progress=stop)
    assert not new.checkpoint.exists()
    train(shards, new.recipe(), new, device=CPU, resume=True)
    assert load_checkpoint(new).step == load_checkpoint(new).steps


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


@pytest.mark.parametrize("late", [False, True])
def test_a_step_that_is_no_number_is_named_with_its_samples_and_the_last_good_state(
    shards: Shards, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, late: bool
) -> None:
    """After a night of training, one wants to know which recordings to look at, and where to go on from; also
    on a GPU, where a step is read when the next one is under way."""
    recipe, new = started(shards, tmp_path / "run", "epochs=3")
    samples = training_samples(shards, recipe)
    per_epoch = steps_per_epoch(len(samples), recipe.batch_size)
    bad_step = per_epoch + 2
    backward = Pretraining.backward

    def poisoned(self: Pretraining, share: Share, step: int) -> torch.Tensor:
        losses_L = backward(self, share, step)
        bad_L = torch.tensor([1, torch.nan, 1, torch.nan])  # one of three losses, and so their sum
        return losses_L * bad_L if step + 1 == bad_step else losses_L

    monkeypatch.setattr(Pretraining, "backward", poisoned)
    monkeypatch.setattr(train_module, "reads_late", lambda _: late)
    heard: list[Progress] = []
    with pytest.raises(RuntimeError) as told:
        train(shards, recipe, new, device=CPU, on_progress=heard.append)
    message = str(told.value)
    assert f"no longer a number at step {bad_step}:" in message
    chosen = batch_indices(bad_step - 1, len(samples), recipe.batch_size, recipe.seed)
    rows = samples.rows_N[chosen].tolist()
    keys = set(shards.table.loc[shards.table["row"].isin(rows), "key"])
    named = set(re.findall(r"a\d\d_s\d\d_e\d\d_v\d\d", message))
    assert len(named) == 5
    assert named <= keys
    listed = new.folder / f"not-a-number-step-{bad_step}-rank-0.txt"
    assert f"and {len(keys) - 5} more, all in {listed}; the last good checkpoint is" in message
    assert set(listed.read_text().splitlines()[1:]) == keys
    assert str(new.checkpoint) in message
    assert load_checkpoint(new).step == per_epoch
    assert [progress.step for progress in heard] == list(range(1, bad_step))


def test_a_process_that_never_saves_never_asks_for_it(
    shards: Shards, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its clock is never set back: after the first minutes it would have the first one save every step."""
    recipe, new = started(shards, tmp_path / "run")
    asked: list[bool] = []
    of_all_ranks = train_module._of_all_ranks

    def noting(losses_L: torch.Tensor, stop: bool, save: bool, ranks: Ranks) -> torch.Tensor:
        asked.append(save)
        return of_all_ranks(losses_L, stop, save, ranks)

    monkeypatch.setattr(train_module, "_of_all_ranks", noting)
    monkeypatch.setattr(Ranks, "is_first", False)
    train(shards, recipe, new, device=CPU, save_minutes=0)
    assert len(asked) > 1
    assert not any(asked)


def test_a_decoder_that_gives_deviations_begins_with_the_mean_pose(shards: Shards, tmp_path: Path) -> None:
    """One that gives metres begins with guesses a metre off, and is for long no better than 0 everywhere."""
    samples = training_samples(shards, load_recipe("compact", TINY))
    (batch,) = sequential_batches(samples, len(samples))
    x_PCTV = batch.original_PCTV.numpy()
    losses = {}
    for output in ("metres", "deviations"):
        recipe, new = started(
            shards,
            tmp_path / output,
            "epochs=8",
            "lr=1e-2",
            "view.shear=0.1",
            f"model.decoder.output={output}",
        )
        heard: list[Progress] = []
        train(shards, recipe, new, device=CPU, on_progress=heard.append)
        losses[output] = np.mean([progress.losses["spatial"] for progress in heard[-5:]])
    of_mean_pose = np.square(x_PCTV - x_PCTV.mean((0, 2), keepdims=True)).mean()
    assert losses["deviations"] < 1.2 * of_mean_pose
    assert losses["metres"] > losses["deviations"]


def test_diverging_weights_are_told(shards: Shards, tmp_path: Path) -> None:
    """A learning rate that is far too high must not end in a run that looks finished."""
    recipe, new = started(shards, tmp_path / "run", "lr=1e30")
    with pytest.raises(RuntimeError, match=r"no longer a number.*a lower lr may help"):
        train(shards, recipe, new, device=CPU)


def test_a_first_loss_that_is_no_number_is_not_the_rates_fault(shards: Shards, tmp_path: Path) -> None:
    recipe, new = started(shards, tmp_path / "run", "contrast_weight=1e308")
    with pytest.raises(
        RuntimeError, match=r"at step 1: .*; a weight, the temperature or a strength of the views"
    ):
        train(shards, recipe, new, device=CPU)


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 3.00 GiB."),
        RuntimeError(
            "[enforce fail at alloc_cpu.cpp:118] . DefaultCPUAllocator: can't allocate memory: 12 bytes."
        ),
        RuntimeError("MPS backend out of memory (MPS allocated: 8.00 GB, max allowed: 9.07 GB)."),
        RuntimeError("CUDA error: out of memory"),
        MemoryError(),
    ],
)
def test_out_of_memory_says_what_to_lower(
    shards: Shards, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    """Torch's own message speaks of allocators, and ends in a page of traceback."""
    recipe, new = started(shards, tmp_path / "run", "accumulate=2")

    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(Pretraining, "backward", fail)
    expected = r"out of memory on cpu: batches of 16 samples of 16 frames, worked on in 2 parts.*accumulate=4"
    with pytest.raises(RuntimeError, match=expected):
        train(shards, recipe, new, device=CPU)


def test_shards_without_test_samples_are_told_of_before_training(shards: Shards, tmp_path: Path) -> None:
    """Else `eval` says so, when the night is over."""
    recipe, new = started(shards, tmp_path / "run", "epochs=1")
    all_train, notes = replace(shards, table=shards.table[shards.table["camera"] != 3]), list[str]()
    for opened in (shards, all_train):
        assert not notes
        train(opened, recipe, new, device=CPU, on_note=notes.append)
    (note,) = notes
    assert "protocol xview finds no test samples" in note
