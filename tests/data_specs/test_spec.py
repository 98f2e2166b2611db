"""The specs carry the published facts, and a user's own spec is checked before anything is read."""

import lzma
import re
import shutil
from collections import Counter
from pathlib import Path

import pytest

from data_specs.read import BUILT_IN_FOLDER, built_in_names, load_spec, parse_spec

SPLITS = {
    ("ntu60", "xsub"): (40_091, 16_487),
    ("ntu60", "xview"): (37_646, 18_932),
    ("ntu120", "xsub"): (63_026, 50_919),
    ("ntu120", "xset"): (54_468, 59_477),
}


@pytest.mark.parametrize(("dataset", "protocol"), SPLITS)
def test_published_split_sizes(dataset: str, protocol: str, official_files: Path) -> None:
    names = lzma.decompress((official_files / "ntu120-sample-names.txt.xz").read_bytes()).decode().split()
    spec = load_spec(dataset)
    known = [spec.parse_name(name) for name in names if name not in spec.missing]
    parts = Counter(spec.protocol(protocol).split(metadata) for metadata in known if metadata)
    assert (parts["train"], parts["test"]) == SPLITS[dataset, protocol]


@pytest.mark.parametrize(("protocol", "sizes"), [("xview", (1_020, 464)), ("xview3", (1_020, 464))])
def test_published_ucla_split(protocol: str, sizes: tuple[int, int], real_ucla: Path) -> None:
    spec = load_spec("ucla")
    parts: Counter[str | None] = Counter()
    for path in real_ucla.glob("*.json"):
        metadata = spec.parse_name(path.stem)
        assert metadata is not None
        parts[spec.protocol(protocol).split(metadata)] += 1
    assert (parts["train"], parts["test"]) == sizes


def test_missing_lists_are_the_official_ones(official_files: Path) -> None:
    for dataset, count in (("ntu60", 302), ("ntu120", 535)):
        official = (official_files / f"{dataset}-missing.txt").read_text().split()
        assert load_spec(dataset).missing == frozenset(official)
        assert len(official) == count


@pytest.mark.parametrize("dataset", built_in_names())
def test_skeletons_are_trees_with_two_sides(dataset: str) -> None:
    skeleton = load_spec(dataset).skeleton
    assert len(skeleton.bones) == skeleton.num_joints - 1
    assert skeleton.parents[skeleton.root] == skeleton.root
    for left, right in skeleton.mirror_pairs:
        assert skeleton.joints[left].replace("left", "right") == skeleton.joints[right]
    assert [skeleton.joints[joint] for joint in skeleton.shoulders] == ["right shoulder", "left shoulder"]
    assert skeleton.ends is not None
    assert [skeleton.joints[joint] for joint in skeleton.ends] == ["left hand", "right hand", "head"]


def test_names_carry_their_metadata() -> None:
    metadata = load_spec("ntu120").parse_name("S018C002P045R001A061")
    expected = {"setup": 18, "camera": 2, "subject": 45, "replication": 1, "action": 61, "label": 60}
    assert metadata == expected
    assert load_spec("ucla").parse_name("a12_s01_e00_v03") is not None
    assert load_spec("ucla").parse_name("a07_s01_e00_v03") is None  # the data set has no action 7
    assert load_spec("ntu60").parse_name("S018C002P045R001A061") is None  # a name of NTU-120 only


def test_pair_actions_are_the_data_sets_own() -> None:
    assert load_spec("ntu60").pair_actions == frozenset(range(50, 61))
    assert load_spec("ntu120").pair_actions == frozenset(range(50, 61)) | frozenset(range(106, 121))
    assert load_spec("ucla").pair_actions == frozenset()


def test_shards_from_before_the_key_still_open() -> None:
    """Shards carry the text of their spec."""
    text = load_spec("ntu60").text
    older = re.sub(r"pair_actions = \[.*?\]", "", text, flags=re.DOTALL)
    assert "pair_actions" not in older
    assert parse_spec(older).pair_actions == frozenset()


def own_spec(**changes: str) -> str:
    """A small data set of somebody's own, as TOML."""
    keys = {
        "name": '"mine"',
        "title": '"Mine"',
        "reader": '"ntu"',
        "name_pattern": "'A(?P<action>\\d)P(?P<subject>\\d)'",
        "max_bodies": "1",
        "fps": "15",
        "default_protocol": '"half"',
        "classes": '["wave", "kick"]',
    } | changes
    head = "\n".join(f"{key} = {value}" for key, value in keys.items() if value)
    return (
        head
        + """
[skeleton]
joints = ["hip", "chest", "left hand", "right hand"]
bones = [[1, 2], [3, 2], [4, 2]]
mirror_pairs = [[3, 4]]
root = 2
centre = 1
spine = [1, 2]
shoulders = [4, 3]
[protocols.half]
title = "subject 1 trains"
field = "subject"
train = [1]
"""
    )


def test_own_spec_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(own_spec(title='"Übungen"'), encoding="utf-8")
    spec = load_spec(str(path))
    assert spec.title == "Übungen"
    assert spec.skeleton.parents == (1, 1, 1, 1)
    assert spec.protocol("half").split({"subject": 2}) == "test"
    assert parse_spec(spec.text) == parse_spec(own_spec(title='"Übungen"'))


@pytest.mark.parametrize("dataset", built_in_names())
def test_own_spec_does_not_go_by_a_built_in_name(tmp_path: Path, dataset: str) -> None:
    """A report would set the paper's figures on the built-in's splits beside its own."""
    built_in = load_spec(dataset)
    shutil.copytree(BUILT_IN_FOLDER / "missing", tmp_path / "missing")
    path = tmp_path / "mine.toml"
    for text in (built_in.text, f"# mine\n{built_in.text}"):
        path.write_text(text, encoding="utf-8")
        assert load_spec(str(path)).protocols == built_in.protocols
    changed = built_in.text.replace("train = [", "train = [99, ", 1)
    path.write_text(changed, encoding="utf-8")
    with pytest.raises(ValueError, match=f"mine.toml: .*name is '{dataset}', as of .*choose another name"):
        load_spec(str(path))
    path.write_text(changed.replace(f'name = "{dataset}"', 'name = "mine"'), encoding="utf-8")
    assert load_spec(str(path)).name == "mine"


def test_a_missing_list_is_of_names_a_line(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(own_spec(missing="'list.txt'", name_pattern="'A(?P<action>\\d) *P(?P<subject>\\d)'"))
    (tmp_path / "list.txt").write_text("A1P1\r\n\n  A2 P3 \n")
    assert load_spec(str(path)).missing == {"A1P1", "A2 P3"}


@pytest.mark.parametrize("line", ["A1P1.skeleton", "raw/A1P1", "A1P1, A2P1", "# mine"])
def test_a_missing_list_of_what_are_no_names_is_told(tmp_path: Path, line: str) -> None:
    """What it lists would be trained on all the same."""
    path = tmp_path / "mine.toml"
    path.write_text(own_spec(missing="'list.txt'"))
    (tmp_path / "list.txt").write_text(f"A2P1\n{line}\n")
    with pytest.raises(ValueError, match=f"missing lists '{line}', .* one a line, without folder and suffix"):
        load_spec(str(path))
    (tmp_path / "list.txt").write_bytes(b"\xff")
    with pytest.raises(
        ValueError, match=r"missing = 'list\.txt': .*can't decode byte 0xff.*; expected a list"
    ):
        load_spec(str(path))


def test_an_action_without_a_class_is_told_from_a_name_of_another_data_set() -> None:
    """Who numbers actions from 0 would lose one class, and call the others by the wrong name."""
    spec = parse_spec(own_spec())
    names = ("A1P1", "A0P1", "A3P9", "walk")
    assert [spec.action_without_class(name) for name in names] == [None, 0, 3, None]
    assert [spec.parse_name(name) is None for name in names] == [False, True, True, True]


def test_some_of_what_trains_can_be_held_out() -> None:
    """To choose settings by; the published test samples must not be looked at for that, nor be trained on."""
    spec = load_spec("ucla")
    chosen = spec.protocol("xview@subject-1-6")
    assert chosen.split({"camera": 2, "subject": 5}) == "train"
    assert chosen.split({"camera": 2, "subject": 6}) == "test"
    assert chosen.split({"camera": 3, "subject": 6}) is None
    assert chosen.split({"camera": 3, "subject": 5}) is None
    assert chosen.title.endswith("; of what trains, subject 1, 6 tests")
    by_camera = spec.protocol("xview@camera-2")
    assert by_camera.fields == ("camera",)
    assert [by_camera.split({"camera": camera}) for camera in (1, 2, 3)] == ["train", "test", None]


@pytest.mark.parametrize("rest", ["", "subject", "subject-", "subject-x", "setup-1", "action-1", "subject_1"])
def test_what_cannot_be_held_out_is_told(rest: str) -> None:
    with pytest.raises(
        ValueError, match=rf"protocol xview@{rest}: expected .*\(subject, camera, replication\)"
    ):
        load_spec("ucla").protocol(f"xview@{rest}")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"reader": '"csv"'}, "reader 'csv': expected one of ntu, ucla"),
        ({"classes": ""}, "the key 'classes' is missing"),
        ({"actions": "[1, 2, 3]"}, "actions: 3 actions for 2 classes; expected one for each"),
        ({"actions": "[7, 7]"}, "actions has 7 twice; expected another number for each class"),
        ({"name_pattern": "'A(?P<action>\\d)'"}, "splits by 'subject', which no name carries"),
        ({"default_protocol": '"whole"'}, "default_protocol: mine has no protocol 'whole'; it has: half"),
        ({"max_bodies": "0"}, "max_bodies is 0"),
        ({"max_bodies": "1.5"}, "max_bodies is 1.5; expected a whole number"),
        ({"fps": "[]"}, "fps is .*; expected a finite number above 0"),
        ({"fps": "true"}, "fps is True"),
        ({"pair_actions": "[2, 3]"}, "pair_actions names 3; expected numbers of the spec's actions"),
        ({"pair_actions": "['kick']"}, "pair_actions is .*; expected a list of whole numbers"),
        ({"pair_actions": "2"}, "pair_actions is 2; expected a list of whole numbers"),
        ({"fps": "0"}, "fps is 0"),
        ({"fps": "inf"}, "fps is inf; expected a finite number above 0"),
        ({"classes": "[5, 'wave']"}, "classes is .*; expected a list of names, as text"),
        ({"classes": "'ab'"}, "classes is 'ab'; expected a list of names, as text"),
        ({"classes": "['kick', 'kick']"}, "classes has 'kick' twice"),
        ({"title": "5"}, "title is 5; expected text"),
        ({"max_bodies": "17"}, "max_bodies is 17; expected a whole number from 1 to 16"),
        ({"max_bodies": "'1'"}, "max_bodies is '1'; expected a whole number"),
        ({"mising": "'list.txt'"}, "unknown key 'mising'; did you mean 'missing'"),
        ({"missing": "5"}, "missing is 5; expected text"),
        ({"missing": "'list.txt'"}, "No such file or directory; expected a list of names"),
        ({"aliases": "'x'"}, "aliases is 'x'; expected a table"),
        ({"aliases": "{ xview = ['half'] }"}, "aliases: xview stands for .*; expected one of"),
        ({"aliases": "{ 'x/y' = 'half' }"}, "protocol 'x/y': expected letters, digits"),
        ({"aliases": "{ xview = 'xview4' }"}, "aliases: xview stands for 'xview4'; expected one of"),
        ({"aliases": "{ half = 'half' }"}, "aliases: half is a protocol of its own"),
        ({"actions": "['1', 2]"}, "actions is .*; expected a list of whole numbers"),
        ({"name": "'../mine'"}, "as it names a folder"),
        ({"name": "'mine/../yours'"}, "as it names a folder"),
        ({"name_pattern": "'A(?P<action>'"}, "not a regular expression"),
    ],
)
def test_own_spec_says_what_is_wrong(tmp_path: Path, changes: dict[str, str], message: str) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(own_spec(**changes))
    with pytest.raises(ValueError, match=message.replace("\\", "\\\\")):
        load_spec(str(path))


@pytest.mark.parametrize(
    ("there", "instead", "message"),
    [
        ("train = [1]", "train = [1]\ntests = [2]", r"unknown key 'protocols\.half\.tests'; did you mean"),
        ("train = [1]", 'train = ["1"]', r"protocols\.half\.train is \['1'\]; expected a list of whole"),
        ("train = [1]", 'train = "13"', r"protocols\.half\.train is '13'; expected a list of whole numbers"),
        ("train = [1]", "train = [1]\ntest = [true]", r"protocols\.half\.test is \[True\]; expected"),
        ("train = [1]", "train = [1]\ntest = [2, 1]", r"protocol half has \[1\] on both sides"),
        (
            "root = 2",
            "root = 2\nend = [3, 4, 2]",
            r"unknown key 'skeleton\.end'; did you mean 'skeleton\.ends'",
        ),
        ("spine = [1, 2]", "spine = [1, 1]", r"skeleton\.spine is \[1, 1\]; expected two different joints"),
        ("spine = [1, 2]", "spine = [1.5, 2]", r"skeleton\.spine is \[1\.5, 2\]; expected a list of 2 whole"),
        ('"chest"', "2", "expected a list of names, as text"),
        ("centre = 1", "centre = 1.0", r"skeleton\.root and centre is \[2, 1\.0\]; expected"),
        ("root = 2", "root = 0", "there is no joint 0: the 4 of skeleton.joints are numbered from 1 to 4"),
        ("[1, 2], [3, 2]", "[0, 1], [2, 1]", "there is no joint 0: the 4 of skeleton.joints are numbered"),
        ("bones = [[1, 2], [3, 2], [4, 2]]", "bones = 3", "skeleton.bones is 3; expected a list of pairs"),
        ('"left hand", "right hand"', '"hand", "hand"', "skeleton.joints has 'hand' twice"),
        ("train = [1]", "train = []", r"protocols\.half\.train is empty; expected whose samples"),
        ("train = [1]", "train = [1]\ntest = []", r"protocols\.half\.test is empty"),
        ("[protocols.half]", "[[protocols]]", r"protocols is \[.*\]; expected a table, \[protocols\]"),
        ("[protocols.half]", "[protocols.'ha/lf']", "protocol 'ha/lf': expected letters, digits"),
        ('field = "subject"', "field = 3", r"protocols\.half\.field is 3; expected text"),
        ('field = "subject"', "", r"the key 'protocols\.half\.field' is missing"),
        ("train = [1]", "", r"the key 'protocols\.half\.train' is missing"),
        ("root = 2", "", r"the key 'skeleton\.root' is missing"),
        ("spine = [1, 2]", "", r"the key 'skeleton\.spine' is missing"),
    ],
)
def test_a_slip_in_a_group_does_not_change_the_split_in_silence(
    tmp_path: Path, there: str, instead: str, message: str
) -> None:
    """`tests` instead of `test` would test on every other camera, and no figure would say so."""
    assert there in own_spec()
    path = tmp_path / "mine.toml"
    path.write_text(own_spec().replace(there, instead, 1))
    with pytest.raises(ValueError, match=message):
        load_spec(str(path))


def test_a_joint_has_one_other_side(tmp_path: Path) -> None:
    """A mirrored body would have two left hands."""
    path = tmp_path / "mine.toml"
    path.write_text(own_spec().replace("[[3, 4]]", "[[3, 4], [1, 3]]"))
    with pytest.raises(ValueError, match=r"mirror_pairs: joint 3 \(left hand\) is named twice"):
        load_spec(str(path))


def test_ends_are_three_joints_or_left_out(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(own_spec())
    assert load_spec(str(path)).skeleton.ends is None
    path.write_text(own_spec().replace("root = 2", "root = 2\nends = [3, 4, 2]"))
    assert load_spec(str(path)).skeleton.ends == (2, 3, 1)
    for ends, message in (
        ("[3, 4]", r"skeleton.ends is \[3, 4\]; expected three joints: left hand, right hand, head"),
        ("[3, 3, 2]", r"skeleton.ends is \[3, 3, 2\]; expected three joints"),
        ("[3, 4, 5]", r"there is no joint 5: the 4 of skeleton\.joints are numbered from 1 to 4"),
    ):
        path.write_text(own_spec().replace("root = 2", f"root = 2\nends = {ends}"))
        with pytest.raises(ValueError, match=message):
            load_spec(str(path))


def test_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(ValueError, match="expected ntu120, ntu60, ucla, or the path of a spec file"):
        load_spec("ntu61")


ONE_BONE = "every joint but the root must be the child of exactly one bone;"


@pytest.mark.parametrize(
    ("bones", "message"),
    [
        ("[[1, 2], [3, 2], [4, 2], [4, 1]]", f"{ONE_BONE} joint 4 (right hand) is that of 2"),
        ("[[1, 2], [4, 2]]", f"{ONE_BONE} joint 3 (left hand) is that of 0"),
        ("[[1, 2], [3, 2], [4, 2], [2, 1]]", f"{ONE_BONE} the root, joint 2 (chest) is that of 1"),
        (
            "[[1, 2], [3, 4], [4, 3]]",
            "they do not form one tree under the root; joint 3 (left hand) does not hang on it",
        ),
    ],
)
def test_bones_are_one_tree(bones: str, message: str) -> None:
    """A joint on two bones has no single parent, and one on none would not move with the body."""
    with pytest.raises(ValueError, match=re.escape(f"skeleton.bones: {message}")):
        parse_spec(own_spec().replace("[[1, 2], [3, 2], [4, 2]]", bones))


@pytest.mark.parametrize(
    ("there", "instead"),
    [
        ("centre = 1", "centre = 5"),
        ("centre = 1", "centre = 0"),
        ("spine = [1, 2]", "spine = [1, 5]"),
        ("shoulders = [4, 3]", "shoulders = [5, 3]"),
        ("mirror_pairs = [[3, 4]]", "mirror_pairs = [[3, 5]]"),
    ],
)
def test_every_joint_that_a_skeleton_names_exists(there: str, instead: str) -> None:
    """Counted from 0 by mistake, joint 0 would be the last one, and every body be centred on a hand."""
    assert there in own_spec()
    with pytest.raises(ValueError, match=rf"skeleton\.{there.split()[0]}: there is no joint [05]"):
        parse_spec(own_spec().replace(there, instead))


def test_samples_of_neither_side_are_not_used() -> None:
    """A protocol that names who tests would test on everybody else as well."""
    half = parse_spec(own_spec().replace("train = [1]", "train = [1]\ntest = [2]")).protocol("half")
    assert [half.split({"subject": subject}) for subject in (1, 2, 3)] == ["train", "test", None]


def test_a_name_is_the_data_sets_own_as_a_whole() -> None:
    """Files beside the recordings, such as a video's, would be read as recordings of that name."""
    assert load_spec("ntu60").parse_name("S001C001P001R001A001_rgb") is None
    named = parse_spec(own_spec(name_pattern="'A(?P<action>\\d)(P(?P<subject>\\w))?'"))
    assert named.parse_name("A1P2") == {"action": 1, "subject": 2, "label": 0}
    assert [named.parse_name(name) for name in ("A1", "A1Px")] == [None, None]


def test_classes_are_named_in_the_order_of_their_actions() -> None:
    """Sorted, the names would stand beside other classes than those they are of."""
    spec = parse_spec(own_spec(actions="[7, 3]"))
    assert [spec.labels[action] for action in (7, 3)] == [0, 1]


def test_cameras_are_taken_for_simultaneous_only_where_the_spec_says_so() -> None:
    """Recordings of other performances would be pulled together as views of one."""
    assert not parse_spec(own_spec()).simultaneous_cameras
    assert parse_spec(own_spec(simultaneous_cameras="true")).simultaneous_cameras
    with pytest.raises(ValueError, match="simultaneous_cameras is 'no'; expected true or false"):
        parse_spec(own_spec(simultaneous_cameras="'no'"))


def test_what_a_name_may_carry_is_checked() -> None:
    """A misspelt field would never be split by; without an action no sample has a label."""
    for pattern in ("'A(?P<action>\\d)P(?P<subjekt>\\d)'", "'P(?P<subject>\\d)'"):
        with pytest.raises(ValueError, match="it needs 'action' and may have"):
            parse_spec(own_spec(name_pattern=pattern))
