"""Acting people: what a user learns, tries out or measures on them must hold for real ones.

Axes: N recording, B body track, T frame, V joint, C coordinate.
"""

import dataclasses
from collections import defaultdict

import numpy as np
import pytest
from numpy.typing import NDArray

from data_specs.read import load_spec
from data_specs.spec import DatasetSpec
from pipeline.raw.acts import PELVIS
from pipeline.raw.motion import outwards, record
from pipeline.raw.names import plan
from pipeline.raw.sensor import Track

NTU60, UCLA = load_spec("ntu60"), load_spec("ucla")


@dataclasses.dataclass(frozen=True)
class Recording:
    metadata: dict[str, int]
    title: str
    tracks: list[Track]


def recordings(spec: DatasetSpec, samples: int) -> list[Recording]:
    made = []
    for planned in plan(spec, samples):
        metadata = spec.parse_name(planned.name)
        assert metadata is not None
        made.append(Recording(metadata, spec.classes[metadata["label"]], record(spec, planned.name, 0)))
    return made


@pytest.fixture(scope="module")
def every_ntu_class() -> list[Recording]:
    return recordings(NTU60, 60)


# ---- the body's tree


@pytest.mark.parametrize("spec", [NTU60, UCLA], ids=lambda spec: spec.name)
def test_outwards_goes_from_the_pelvis_along_bones_to_every_joint(spec: DatasetSpec) -> None:
    """Or a limb would move without what it hangs on."""
    reached = {PELVIS}
    for joint, parent in outwards(spec.skeleton):
        assert parent in reached
        assert {(joint, parent), (parent, joint)} & set(spec.skeleton.bones)
        assert joint not in reached
        reached.add(joint)
    assert reached == set(range(spec.skeleton.num_joints))


# ---- bodies


def test_people_are_people(every_ntu_class: list[Recording]) -> None:
    """Or bone features and alignment, tuned on synthetic data, would be tuned to monsters."""
    tracks = [track for recording in every_ntu_class for track in recording.tracks]
    assert {state for track in tracks for state in np.unique(track.states_TV)} == {1, 2}
    for track in tracks:
        assert track.present_T.all()
        seen_TV = track.states_TV == 2
        assert seen_TV.mean() > 0.9
        for child, parent in NTU60.skeleton.bones:
            length_T = np.linalg.norm(track.xyz_TVC[:, child] - track.xyz_TVC[:, parent], axis=-1)
            typical = np.median(length_T)
            assert 0.02 < typical < 0.65
            error_T = np.abs(length_T - typical)[seen_TV[:, child] & seen_TV[:, parent]]
            assert error_T.mean() < 0.02, "noise of millimetres"
        steps_T = np.linalg.norm(np.diff(track.xyz_TVC[:, NTU60.skeleton.centre], axis=0), axis=-1)
        assert np.quantile(steps_T, 0.99) < 0.12


def test_people_stand_upright_and_the_right_way_round() -> None:
    """Or left and right, up and down, near and far would be exchanged against the real sensor."""
    for recording in recordings(UCLA, 60):
        if recording.title == "stand up":  # begins seated
            continue
        first_VC = recording.tracks[0].xyz_TVC[0]
        lower, upper = UCLA.skeleton.spine
        right, left = UCLA.skeleton.shoulders
        up_C, across_C = first_VC[upper] - first_VC[lower], first_VC[right] - first_VC[left]
        assert up_C[1] > 0.8 * np.linalg.norm(up_C)
        # x to the right of who faces the sensor, and nobody turns more than the cameras' 45 degrees and a bit
        assert across_C[0] > 0.25 * np.linalg.norm(across_C)
        feet_C = first_VC[[15, 19]].mean(axis=0) - first_VC[[14, 18]].mean(axis=0)
        assert np.cross(up_C, across_C)[2] * feet_C[2] > 0, "toes point where the face looks"
        assert 1.2 < np.ptp(first_VC[:, 1]) < 2.1
        assert 2 < first_VC[:, 2].mean() < 4.5


def test_who_sits_down_ends_low_and_who_stands_up_begins_low(every_ntu_class: list[Recording]) -> None:
    """Or a class that undoes another would look the same as that other one."""
    heights = {}
    for recording in every_ntu_class:
        xyz_TVC = recording.tracks[0].xyz_TVC
        hips_T = xyz_TVC[:, PELVIS, 1] - xyz_TVC[:, (14, 18), 1].mean(axis=1)
        heights[recording.title] = hips_T[:5].mean(), hips_T[-5:].mean()
    assert heights["sit down"][1] < 0.8 * heights["sit down"][0]
    assert heights["stand up"][0] < 0.8 * heights["stand up"][1]


def test_pairs_face_each_other(every_ntu_class: list[Recording]) -> None:
    """Or two-person classes would not have a second body to handle."""
    for recording in every_ntu_class:
        is_pair = 50 <= recording.metadata["action"] <= 60
        assert len({track.body_id for track in recording.tracks}) == len(recording.tracks) == 1 + is_pair
        if is_pair and recording.metadata["action"] not in (59, 60):
            xyz_BTVC = np.stack([track.xyz_TVC for track in recording.tracks])
            apart_T = np.linalg.norm(xyz_BTVC[0, :, 20] - xyz_BTVC[1, :, 20], axis=-1)
            assert 0.25 < apart_T.min() < apart_T.max() < 2
            forwards_BC = forwards(xyz_BTVC[:, 0])
            assert forwards_BC[0] @ forwards_BC[1] < -0.5


def test_a_users_own_actions_are_done_by_as_many_as_its_spec_says() -> None:
    """Action 55 of a data set of somebody's own need be no hug."""
    alone = dataclasses.replace(NTU60, name="own", pair_actions=frozenset())
    others = dataclasses.replace(NTU60, name="own", pair_actions=frozenset({7}))
    for action, spec, bodies in ((55, alone, 1), (55, NTU60, 2), (7, others, 2), (55, others, 1)):
        assert len(record(spec, f"S001C001P001R001A{action:03d}", 0, 5)) == bodies


def forwards(xyz_BVC: NDArray[np.float64]) -> NDArray[np.float64]:
    """Unit vectors (B, C): where chests look, from the shoulders and the spine."""
    across_BC, up_BC = xyz_BVC[:, 8] - xyz_BVC[:, 4], xyz_BVC[:, 20] - xyz_BVC[:, 0]
    ahead_BC = np.cross(up_BC, across_BC)
    return np.asarray(ahead_BC / np.linalg.norm(ahead_BC, axis=1, keepdims=True))


# ---- performances and classes


def test_a_recording_is_as_long_as_asked() -> None:
    """Or a recording of a single frame, of which the real data sets have some, could not be tried out."""
    for num_frames in (1, 7):
        (track,) = record(UCLA, "a01_s02_e03_v01", 0, num_frames)
        assert track.xyz_TVC.shape == (num_frames, 20, 3)
        assert track.states_TV.shape == (num_frames, 20)
        assert track.present_T.shape == (num_frames,)
        assert np.isfinite(track.xyz_TVC).all()


def test_the_same_performance_is_seen_by_several_cameras() -> None:
    """Or cross-view experiments on synthetic data would compare different motions."""
    one_class = dataclasses.replace(UCLA, classes=UCLA.classes[:1], labels={1: 0})
    takes = defaultdict(list)
    for recording in recordings(one_class, 3 * 10):
        take = recording.metadata["subject"], recording.metadata["replication"]
        takes[take].append(recording.tracks[0].xyz_TVC)
    assert {len(views) for views in takes.values()} == {3}
    for one, two, _ in takes.values():
        a, b = ((xyz_TVC - xyz_TVC.mean(axis=(0, 1))).reshape(-1, 3) for xyz_TVC in (one, two))
        u, _, vt = np.linalg.svd(a.T @ b)  # the rotation that fits best (Kabsch)
        assert np.sqrt(((a @ u @ vt - b) ** 2).mean()) < 0.03
        assert np.sqrt(((a - b) ** 2).mean()) > 0.05


def test_classes_can_be_learnt_but_not_for_nothing() -> None:
    """Or a model trained on synthetic data would learn nothing, or everything at once."""
    features, labels, trains = [], [], []
    for recording in recordings(UCLA, 150):
        xyz_TVC = recording.tracks[0].xyz_TVC
        xyz_TVC = xyz_TVC - xyz_TVC[0, UCLA.skeleton.centre]
        features.append(np.concatenate([xyz_TVC.mean(axis=0).ravel(), xyz_TVC.std(axis=0).ravel()]))
        labels.append(recording.metadata["label"])
        trains.append(UCLA.protocol("xsub").split(recording.metadata) == "train")
    features_NC, labels_N, trains_N = np.array(features), np.array(labels), np.array(trains)
    distances = np.linalg.norm(features_NC[~trains_N, None] - features_NC[None, trains_N], axis=-1)
    accuracy = np.mean(labels_N[trains_N][distances.argmin(axis=1)] == labels_N[~trains_N])
    assert 0.35 < accuracy < 0.97, "chance is 0.1"
