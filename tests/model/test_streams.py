"""The encoder sees the streams that the recipe names, and no motion where nobody was.

Axes: P present body, C coordinate, T frame, V joint.
"""

from dataclasses import replace

import pytest
import torch

from data_specs.read import load_spec
from model.cpstn import CPSTN, ModelConfig
from model.stgcn import DecoderConfig, EncoderConfig
from model.streams import bones, distances, motion, streams

P, C, T, V = 2, 3, 7, 20
SKELETON = load_spec("ucla").skeleton


def some_bodies() -> torch.Tensor:
    return torch.randn(P, C, T, V, generator=torch.Generator().manual_seed(0))


def test_bones_and_motion_equal_a_loop() -> None:
    """A bone that points the wrong way, or a motion a frame late, would still train."""
    x_PCTV = some_bodies()
    bones_PCTV, motion_PCTV = bones(x_PCTV, SKELETON), motion(x_PCTV)
    for child, parent in SKELETON.bones:
        assert torch.equal(bones_PCTV[..., child], x_PCTV[..., child] - x_PCTV[..., parent])
    assert not bones_PCTV[..., SKELETON.root].any()
    for frame in range(T - 1):
        assert torch.equal(motion_PCTV[:, :, frame], x_PCTV[:, :, frame + 1] - x_PCTV[:, :, frame])
    assert not motion_PCTV[:, :, -1].any()


def test_coming_going_and_masking_are_no_motion() -> None:
    """A jump from nowhere would be the largest motion of all, and tell a masked view from an unmasked one."""
    x_PCTV = some_bodies()
    x_PCTV[0, :, 3] = 0
    x_PCTV[1, :, 5:] = 0
    motion_PCTV = motion(x_PCTV)
    assert not motion_PCTV[0, :, 2:4].any()
    assert not motion_PCTV[1, :, 4:].any()
    assert motion_PCTV[0, :, [0, 1, 4, 5]].abs().amin(dim=0).all()


def test_a_joint_that_leaves_the_origin_moves() -> None:
    """Centred, the centre joint of the first frame lies in 0 0 0 and is there all the same: only a body whose
    every joint does is absent."""
    x_PCTV = some_bodies()
    x_PCTV[:, :, 0, 2] = 0
    assert torch.equal(motion(x_PCTV)[:, :, 0, 2], x_PCTV[:, :, 1, 2])


def test_distances_equal_a_loop_and_are_those_of_any_view() -> None:
    """Another joint than hands and head, or one coordinate forgotten, would still train."""
    x_PCTV = some_bodies()
    found_PCTV = distances(x_PCTV, SKELETON)
    ends = [SKELETON.joints.index(name) for name in ("left hand", "right hand", "head")]
    for p in range(P):
        for channel, end in enumerate(ends):
            for t in range(T):
                for v in range(V):
                    apart = (x_PCTV[p, :, t, v] - x_PCTV[p, :, t, end]).square().sum().sqrt()
                    assert abs(found_PCTV[p, channel, t, v] - apart) < 1e-5
    turn, _ = torch.linalg.qr(torch.randn(3, 3, generator=torch.Generator().manual_seed(1)))
    moved_PCTV = torch.einsum("cd,pdtv->pctv", turn, x_PCTV) + 2
    torch.testing.assert_close(distances(moved_PCTV, SKELETON), found_PCTV)


def test_an_absent_body_has_no_distances() -> None:
    x_PCTV = some_bodies()
    x_PCTV[:, :, 3:5] = 0
    assert not distances(x_PCTV, SKELETON)[:, :, 3:5].any()


def test_distances_need_ends() -> None:
    """Shards carry their spec; one without hands and head is told so, not given something else."""
    nameless = replace(SKELETON, ends=None)
    with pytest.raises(ValueError, match=r"ends = \[left hand, right hand, head\], which the spec"):
        CPSTN(nameless, ModelConfig(streams=("joint", "distance")))
    CPSTN(nameless, ModelConfig())


def test_streams_lie_one_behind_the_other() -> None:
    """Weights of a checkpoint belong to channels: their order is part of what is stored."""
    x_PCTV = some_bodies()
    found_PCTV = streams(x_PCTV, ("motion", "joint"), SKELETON)
    assert torch.equal(found_PCTV[:, :3], motion(x_PCTV))
    assert torch.equal(found_PCTV[:, 3:], x_PCTV)


def test_a_model_encodes_all_its_streams() -> None:
    """A stream that the encoder does not see would be an option without effect."""
    torch.manual_seed(0)
    config = ModelConfig(
        encoder=EncoderConfig(widths=(4, 4), strides=(2, 1), kernel=3),
        decoder=DecoderConfig(widths=(4, 4, 4, 4, 4), kernel=3),
        projection=(6, 5),
        streams=("joint", "bone", "motion", "distance"),
    )
    model = CPSTN(SKELETON, config).eval()
    seen: list[torch.Tensor] = []
    model.encoder.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    model.encode(some_bodies())
    assert torch.equal(seen[0], streams(some_bodies(), config.streams, SKELETON))


@pytest.mark.parametrize("names", [(), ("joint", "joint"), ("depth",)])
def test_other_streams_are_refused(names: tuple[str, ...]) -> None:
    """A stream twice only costs time, and an unknown one must not be left out in silence."""
    with pytest.raises(
        ValueError, match=r"streams is .*; expected some of joint, bone, motion, distance, each once"
    ):
        ModelConfig(streams=names)
