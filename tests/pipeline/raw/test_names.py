"""Names of synthetic recordings: a small trial must train and test every class, under names that are real."""

import dataclasses
import itertools
from collections import Counter, defaultdict

import pytest

from data_specs.spec import DatasetSpec, load_spec
from pipeline.raw.names import plan

NTU60, NTU120, UCLA = (load_spec(name) for name in ("ntu60", "ntu120", "ucla"))


@pytest.mark.parametrize("spec", [NTU60, NTU120, UCLA], ids=lambda spec: spec.name)
def test_few_samples_train_and_test_every_class_of_every_protocol(spec: DatasetSpec) -> None:
    """Or a small trial run would have empty splits, or classes that are tested but never trained."""
    names = [planned.name for planned in plan(spec, 3 * len(spec.classes) + 7)]
    seen = [spec.parse_name(name) for name in names]
    labels = Counter(metadata["label"] for metadata in seen if metadata)
    assert len(set(names)) == len(names) == labels.total()
    assert max(labels.values()) - min(labels.values()) <= 1
    for protocol in spec.protocols.values():
        sides = defaultdict(set)
        for metadata in seen:
            assert metadata is not None
            sides[metadata["label"]].add(protocol.split(metadata))
        assert all(side == {"train", "test"} for side in sides.values()), protocol.name


def test_splits_of_two_protocols_are_not_the_same() -> None:
    """Or X-Set would only repeat X-Sub's result."""
    pairs = set()
    for planned in plan(NTU120, 4 * 120):
        metadata = NTU120.parse_name(planned.name)
        assert metadata is not None
        pairs.add(tuple(NTU120.protocol(name).split(metadata) for name in ("xsub", "xset")))
    assert pairs == set(itertools.product(["train", "test"], repeat=2))


def test_names_stay_within_the_real_data_set() -> None:
    """Or tools that check the official ranges would refuse the files."""
    for planned in plan(NTU120, 3000):
        metadata = NTU120.parse_name(planned.name)
        assert metadata is not None
        first_part = metadata["action"] <= 60
        assert metadata["setup"] in (range(1, 18) if first_part else range(18, 33))
        assert metadata["subject"] in (range(1, 41) if first_part else range(41, 107))
        assert metadata["camera"] in range(1, 4)
        assert metadata["replication"] in range(1, 3)
        assert planned.name not in NTU120.missing


def test_all_names_can_be_used_and_no_more() -> None:
    """Or a large set would overwrite its own files, or claim more samples than it wrote."""
    two = dataclasses.replace(NTU120, classes=("drink water", "put on headphone"), labels={1: 0, 61: 1})
    listed = sum(two.parse_name(name) is not None for name in two.missing)
    fewest = min(2 * 40 * 17 * 3, 2 * 66 * 15 * 3) - listed
    names = [planned.name for planned in plan(two, 2 * fewest)]
    assert len(set(names)) == 2 * fewest
    assert len({planned.name for planned in plan(UCLA, 30_000)}) == 30_000
    with pytest.raises(ValueError, match="30001 samples are more than ucla has names"):
        plan(UCLA, 30_001)
