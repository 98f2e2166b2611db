"""What helps where memory is short."""

import re

import pytest
import torch

from model.memory import evaluation_memory_explained, memory_explained
from model.recipe import load_recipe

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("recipe", "helps"),
    [
        ("compact", "set accumulate=2, or lower batch_size, model.encoder.widths, model.decoder.widths or"),
        ("contrast", "set accumulate=2, or lower batch_size, model.encoder.widths or"),
        ("pc-like", "set accumulate=2, or lower batch_size, model.recurrent.hidden or"),
        ("ms2l-like", "); lower batch_size, model.recurrent.hidden or"),
        ("best", "set accumulate=2, or lower batch_size, model.statistics.hidden or"),
    ],
)
def test_out_of_memory_names_settings_that_the_recipe_has(recipe: str, helps: str) -> None:
    """A GRU has no widths, and MS2L-like no parts: the advice would be refused, or change nothing."""
    with pytest.raises(RuntimeError, match=re.escape(helps)), memory_explained(load_recipe(recipe), 200, CPU):
        raise MemoryError


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            ("model.encoder.widths=[4, 8]", "model.encoder.strides=[1, 2]"),
            "at once, model.encoder.widths = [4, 8] (MemoryError); set accumulate=2, or",
        ),
        (
            ("accumulate=3", "model.backbone=gru", "model.recurrent.hidden=6", "model.statistics.hidden=7"),
            "in 3 parts, model.recurrent.hidden = 6 (MemoryError); set accumulate=6, or",
        ),
        (
            ("model.backbone=statistics", "model.recurrent.hidden=6", "model.statistics.hidden=7"),
            "at once, model.statistics.hidden = 7 (MemoryError); set accumulate=2, or",
        ),
    ],
    ids=["st_gcn", "gru", "statistics"],
)
def test_out_of_memory_says_what_the_settings_are(changes: tuple[str, ...], said: str) -> None:
    """What is to be lowered is seen beside what to lower it from; the advice taken twice must help twice."""
    no_pretext = "spatial_weight=0", "temporal_weight=0"
    recipe = load_recipe("compact", ("batch_size=96", *no_pretext, *changes))
    with pytest.raises(RuntimeError) as told, memory_explained(recipe, 200, torch.device("cuda:1")):
        raise MemoryError
    batches = "batches of 96 samples of 200 frames"
    assert str(told.value).startswith(f"out of memory on cuda:1: {batches}, worked on {said}")


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB."), "Tried to allocate 2 GiB);"),
        (
            RuntimeError("[enforce fail at alloc_cpu.cpp:113] . DefaultCPUAllocator: can't allocate memory"),
            "(can't allocate memory)",
        ),
        (RuntimeError("not enough memory: you tried to allocate 3 GB."), "(not enough memory: you tried to"),
        (RuntimeError("MPS backend out of memory (MPS allocated: 3 GB)."), "(MPS backend out of memory (MPS"),
        (RuntimeError("CUDA error: out of memory\nCUDA kernel errors"), "(CUDA error: out of memory)"),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublas"), "(CUDA error: CUBLAS_"),
        (RuntimeError("std::bad_alloc"), "(std::bad_alloc)"),
    ],
    ids=["CUDA", "CPU", "other CPUs", "MPS", "pinned", "cuBLAS", "C++"],
)
def test_memory_that_ran_out_is_known_in_all_of_torchs_words(error: Exception, said: str) -> None:
    """A traceback through torch names no setting. Where in torch's sources it was, nobody can change."""
    with pytest.raises(RuntimeError) as told, evaluation_memory_explained(CPU):
        raise error
    assert str(told.value).startswith("out of memory on cpu (")
    assert said in str(told.value)
    assert str(told.value).endswith("); end what else runs here")


@pytest.mark.parametrize(
    ("device", "costly", "helps"),
    [
        ("cpu", "", "out of memory on cpu (Unable to allocate 3 GiB); end what else runs here"),
        ("cpu", "--whiten", "end what else runs here, or leave out --whiten"),
        (
            "cuda:1",
            "",
            "out of memory on cuda:1 (Unable to allocate 3 GiB); try --device cpu",
        ),
    ],
)
def test_where_an_encoder_is_only_asked_nothing_of_its_run_is_named(
    device: str, costly: str, helps: str
) -> None:
    with pytest.raises(RuntimeError) as told, evaluation_memory_explained(torch.device(device), costly):
        raise MemoryError("Unable to allocate 3 GiB")
    assert str(told.value).endswith(helps)


def test_other_failures_are_left_alone() -> None:
    with pytest.raises(RuntimeError, match=r"^shapes differ$"), evaluation_memory_explained(CPU):
        raise RuntimeError("shapes differ")
