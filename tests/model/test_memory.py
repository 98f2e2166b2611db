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
        ("compact", "set accumulate=2, or lower batch_size, model.encoder.widths or"),
        ("pc-like", "set accumulate=2, or lower batch_size, model.recurrent.hidden or"),
        ("ms2l-like", "); lower batch_size, model.recurrent.hidden or"),
    ],
)
def test_out_of_memory_names_settings_that_the_recipe_has(recipe: str, helps: str) -> None:
    """A GRU has no widths, and MS2L-like no parts: the advice would be refused, or change nothing."""
    with pytest.raises(RuntimeError, match=re.escape(helps)), memory_explained(load_recipe(recipe), 200, CPU):
        raise MemoryError


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
