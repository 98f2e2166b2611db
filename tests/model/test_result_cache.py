"""Results are measured once, and never taken for others."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.testing import assert_array_equal

from model import result_cache
from model.checkpoint import Checkpoint, load_checkpoint
from model.kept import Kept
from model.recipe import load_recipe
from model.result_cache import ResultCache, results_of
from model.run import Run
from model.scores import Result, result_of_classes, result_of_scores
from model.train import train
from pipeline.samples import Samples, split_samples
from pipeline.store.shards import Shards

WHAT = {"mode": "linear", "features": "trained encoder", "seed": 0}


class Measured:
    """Two results of these test samples, and how often they were asked for."""

    def __init__(self, test: Samples) -> None:
        labels_N = torch.tensor(test.labels_N)
        scores_NK = torch.randn(len(test), 10, generator=torch.Generator().manual_seed(0))
        self.results = [
            result_of_scores(scores_NK, labels_N, penalty=0.3),
            result_of_classes((labels_N + 1) % 10, labels_N, 10),
        ]
        self.calls = 0

    def __call__(self) -> Sequence[Result]:
        self.calls += 1
        return self.results


@pytest.fixture
def parts(shards: Shards) -> tuple[Samples, Samples]:
    return split_samples(shards, "xview", "train"), split_samples(shards, "xview", "test")


def fields(results: Sequence[Result]) -> list[Any]:
    return [
        (one.hit_N.tolist(), one.top5, one.confusion_KK.tolist(), one.penalty, one.hit_N.dtype)
        for one in results
    ]


def test_what_is_read_is_what_was_written(parts: tuple[Samples, Samples], tmp_path: Path) -> None:
    cache, measure = ResultCache(Kept(tmp_path, {})), Measured(parts[1])
    first = cache.results(WHAT, *parts, measure)
    second = cache.results(WHAT, *parts, measure)
    assert measure.calls == 1
    assert fields(first) == fields(second) == fields(measure.results)
    assert (cache.measured, cache.reused) == (2, 2)
    (path,) = tmp_path.iterdir()
    assert path.name.startswith("linear-trained-encoder-")


def test_whatever_they_depend_on_asks_for_new_ones(parts: tuple[Samples, Samples], tmp_path: Path) -> None:
    """Another classifier's accuracy under this one's name nobody would notice."""
    labelled, test = parts
    cache, measure = ResultCache(Kept(tmp_path, {"weights": "abc"})), Measured(test)
    cache.results(WHAT, labelled, test, measure)
    # Sets that are drawn by seeds are often of the same labels, class by class.
    of_first_N = np.flatnonzero(labelled.labels_N == labelled.labels_N[0])
    cache.results(WHAT, labelled.take(of_first_N[:1]), test, measure)
    others: list[Callable[[], object]] = [
        lambda: cache.results(WHAT | {"seed": 1}, labelled, test, measure),
        lambda: cache.results(WHAT | {"mode": "semi"}, labelled, test, measure),
        lambda: cache.results(WHAT, labelled.take(np.arange(9)), test, measure),
        lambda: cache.results(WHAT, labelled.take(of_first_N[1:2]), test, measure),
        lambda: cache.results(
            WHAT, replace(labelled, labels_N=labelled.labels_N[::-1].copy()), test, measure
        ),
        lambda: cache.results(WHAT, labelled, test.take(np.arange(len(test))[::-1].copy()), measure),
        lambda: ResultCache(Kept(tmp_path, {"weights": "abd"})).results(WHAT, labelled, test, measure),
    ]
    for count, ask in enumerate(others, start=3):
        ask()
        assert measure.calls == count


def test_nothing_found_is_no_number_that_is_missing(parts: tuple[Samples, Samples], tmp_path: Path) -> None:
    """A classifier that names no class among its five has a top-5 of 0; a table would say "-" of it."""
    cache, test = ResultCache(Kept(tmp_path, {})), parts[1]
    missed = replace(Measured(test).results[0], top5=0.0, penalty=0.0)
    for _ in range(2):
        (found,) = cache.results(WHAT, *parts, lambda: [missed])
        assert (found.top5, found.penalty) == (0, 0)
    assert cache.reused == 1


@pytest.fixture(scope="module")
def checkpoints(shards: Shards, tmp_path_factory: pytest.TempPathFactory) -> list[Checkpoint]:
    """After two epochs, and after the first."""
    run = Run(tmp_path_factory.mktemp("runs") / "run")
    sizes = "epochs=2", "batch_size=40", "model.encoder.widths=[4, 4, 4, 4, 8, 8]"
    recipe = load_recipe("compact", (*sizes, "model.decoder.widths=[4, 4, 4, 4, 4]"))
    run.create(recipe, shards.folder, shards.manifest.digest)
    train(shards, recipe, run, device=torch.device("cpu"))
    late = load_checkpoint(run)
    run.checkpoint.unlink()
    return [late, load_checkpoint(run)]


@pytest.mark.parametrize("version", ["RESULTS_VERSION", "LINEAR_VERSION", "FEATURES_VERSION"])
def test_another_run_or_protocol_or_version_has_its_own(
    shards: Shards,
    checkpoints: list[Checkpoint],
    parts: tuple[Samples, Samples],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    version: str,
) -> None:
    (late, early), measure, (labelled, test), device = (
        checkpoints,
        Measured(parts[1]),
        parts,
        torch.device("cpu"),
    )
    some = labelled.take(np.arange(9))

    def ask(
        checkpoint: Checkpoint = late, train_on: Samples = labelled, device: torch.device = device
    ) -> int:
        results_of(tmp_path, shards, checkpoint, train_on, device).results(WHAT, some, test, measure)
        return measure.calls

    assert [ask(), ask()] == [1, 1]
    assert ask(early) == 2
    assert ask(train_on=some) == 3
    assert ask(device=torch.device("meta")) == 4
    assert ask(device=torch.device("meta:0")) == 4  # of several alike, any
    monkeypatch.setattr(result_cache, version, getattr(result_cache, version) + 1)
    assert ask() == 5


@pytest.mark.parametrize("damage", ["half", "empty", "other samples", "another confusion", "no result"])
def test_a_damaged_file_is_measured_anew(parts: tuple[Samples, Samples], tmp_path: Path, damage: str) -> None:
    cache, measure = ResultCache(Kept(tmp_path, {})), Measured(parts[1])
    cache.results(WHAT, *parts, measure)
    (path,) = tmp_path.iterdir()
    content = path.read_bytes()
    if damage in ("half", "empty"):
        path.write_bytes(content[: len(content) // 2] if damage == "half" else b"")
    else:
        arrays = dict(np.load(path))
        if damage == "other samples":
            arrays["hit_RN"] = arrays["hit_RN"][:, 1:]
        elif damage == "another confusion":
            arrays["confusion_RKK"][1, 0, 0] += 1
        else:
            del arrays["penalty_R"]
        np.savez(path, **arrays)
    found = cache.results(WHAT, *parts, measure)
    assert measure.calls == 2
    assert_array_equal(found[0].hit_N, measure.results[0].hit_N)
