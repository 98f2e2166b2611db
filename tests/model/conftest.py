"""What tests of several parts of the model need."""

import pytest
import torch

from data_specs.spec import Skeleton, load_spec


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
