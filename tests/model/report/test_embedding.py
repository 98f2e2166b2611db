"""The report's plane shows the test samples, each under its own class."""

from collections import Counter
from dataclasses import replace

import pytest
import torch

from data_specs.read import load_spec
from model.checkpoint import Checkpoint, load_checkpoint
from model.report.embedding import embed
from model.run import Run
from pipeline.store.shards import Shards

CPU = torch.device("cpu")


@pytest.fixture
def checkpoint(tiny_run: Run) -> Checkpoint:
    return load_checkpoint(tiny_run)


def only(shards: Shards, labels: list[int], test_samples: int) -> Shards:
    """Of these classes; of the last one no more test samples than that."""
    table, test = shards.table, shards.split("xview", "test")
    left_out = test.index[test["label"] == labels[-1]][test_samples:]
    return replace(shards, table=table[table["label"].isin(labels)].drop(index=left_out))


def test_test_samples_are_drawn_under_their_own_classes(shards: Shards, checkpoint: Checkpoint) -> None:
    """Training samples would lie apart as learnt by heart, and a colour under another name would be
    believed."""
    fewer = only(shards, [2, 5, 7], test_samples=1)
    drawn = embed(fewer, checkpoint, "xview", CPU)
    found = Counter(drawn.classes[label] for label in drawn.labels_N)
    expected = Counter(shards.spec.classes[label] for label in fewer.split("xview", "test")["label"])
    assert found == expected
    assert len(expected) == 3
    assert drawn.points_NX.shape == (expected.total(), 2)


def test_ten_classes_are_drawn(shards: Shards, checkpoint: Checkpoint) -> None:
    """As in the paper's figure."""
    assert embed(shards, checkpoint, "xview", CPU).classes == shards.spec.classes[:10]


def test_what_cannot_be_drawn_is_told(shards: Shards, checkpoint: Checkpoint) -> None:
    """On the page, in place of the picture: not by a traceback, and not by a picture of three points."""
    with pytest.raises(ValueError, match="3 test samples by xview; t-SNE needs 4"):
        embed(only(shards, [2], test_samples=3), checkpoint, "xview", CPU)
    strange = replace(checkpoint, content=checkpoint.content | {"spec": load_spec("ntu60").text})
    with pytest.raises(ValueError, match="the run was trained on ntu60 with 25"):
        embed(shards, strange, "xview", CPU)
