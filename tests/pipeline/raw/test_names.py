"""Names of synthetic recordings: a small trial must train and test every class, under names that are real."""

import dataclasses
import itertools
from collections import Counter, defaultdict

import pytest

from data_specs.read import load_spec
from data_specs.spec import DatasetSpec
from pipeline.raw.names import plan
from pipeline.raw.oddities import UCLA_ODDITIES

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


@pytest.mark.parametrize("spec", [NTU60, UCLA], ids=lambda spec: spec.name)
def test_two_samples_of_a_class_train_and_test_it_by_many_people(spec: DatasetSpec) -> None:
    """Or the smallest trial would have classes that nobody trains, or know a class by who acts it."""
    rounds = [spec.parse_name(planned.name) or {} for planned in plan(spec, 2 * len(spec.classes))]
    for protocol in (spec.protocol("xsub"), spec.protocol("xview")):
        sides = [protocol.split(metadata) for metadata in rounds]
        assert sides == ["train"] * len(spec.classes) + ["test"] * len(spec.classes)
    assert len({metadata["subject"] for metadata in rounds[: len(spec.classes)]}) >= 5


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
    setups = set()
    for planned in plan(NTU120, 3000):
        metadata = NTU120.parse_name(planned.name)
        assert metadata is not None
        first_part = metadata["action"] <= 60
        assert metadata["setup"] in (range(1, 18) if first_part else range(18, 33))
        assert metadata["subject"] in (range(1, 41) if first_part else range(41, 107))
        assert metadata["camera"] in range(1, 4)
        assert metadata["replication"] in range(1, 3)
        assert planned.name not in NTU120.missing
        setups.add(metadata["setup"])
    assert setups == set(range(1, 33))


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


def test_odd_recordings_are_drawn_by_the_seed_and_are_as_many_as_asked_for() -> None:
    """Or a trial with another seed would meet the same damage, in the first classes alone."""
    odd = [
        [index for index, planned in enumerate(plan(NTU60, 100, seed=seed, oddities=0.29)) if planned.oddity]
        for seed in (0, 1)
    ]
    assert [len(indices) for indices in odd] == [29, 29]
    assert odd[0] != odd[1]
    assert max(odd[0]) > 29


def test_oddities_are_those_of_the_data_set_and_its_list() -> None:
    """Or two machines would write other files from the same settings, or damage that no such file has."""
    listed = [planned.name for planned in plan(NTU60, 200, oddities=1) if planned.oddity == "missing list"]
    assert len(listed) > 3
    assert sorted(listed) == sorted(NTU60.missing)[: len(listed)]
    assert {planned.oddity for planned in plan(UCLA, 200, oddities=1)} == set(UCLA_ODDITIES)


def test_impossible_plans_are_told() -> None:
    """Or an empty folder, or bodies that no reader takes, would come out of a slip."""
    with pytest.raises(ValueError, match=r"oddities is 1\.5; it is a share, from 0 to 1"):
        plan(UCLA, 5, oddities=1.5)
    with pytest.raises(ValueError, match="ucla has 20 joints; the ntu reader's bodies have 25"):
        plan(dataclasses.replace(UCLA, reader="ntu"), 5)
    with pytest.raises(AssertionError):
        plan(UCLA, 0)
