"""The numpy views must be the views that ours are, or nothing is compared.

Axes: P packed present body, C coordinate, T frame, V joint, M body slot.
"""

import numpy as np
import pytest
from numpy.typing import NDArray

from benchmarks.references import numpy_views
from benchmarks.references.numpy_views import TunedViews

M, C, T, V = 2, 3, 40, 25


@pytest.fixture(autouse=True)
def _seeded() -> None:
    np.random.seed(1)


def sample() -> NDArray[np.float64]:
    """(C, T, V, M); the second body is absent, and the first from frame 30 on."""
    x_CTVM = np.random.default_rng(0).normal(size=(C, T, V, M))
    x_CTVM[..., 1] = 0
    x_CTVM[:, 30:] = 0
    return x_CTVM


def packed() -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Three bodies of two samples; the last is absent from frame 30 on, and at the origin in one joint."""
    x_PCTV = np.random.default_rng(0).normal(size=(3, C, T, V)).astype(np.float32)
    x_PCTV[2, :, 30:] = 0
    x_PCTV[2, :, :30, 3] = 0
    return x_PCTV, np.array([0, 0, 1])


def test_rotations_are_rotations_by_at_most_thirty_degrees() -> None:
    """Anything else would be another augmentation."""
    for _ in range(50):
        matrix = numpy_views.rotation_matrix()
        assert np.allclose(matrix @ matrix.T, np.eye(3))
        assert np.linalg.det(matrix) == pytest.approx(1)
        assert np.trace(matrix) >= 1 + 2 * np.cos(np.pi / 6) - 1e-9


def test_tuned_matrices_are_shears_of_rotations(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without shear, a rotation must be left over, another one for every sample."""
    monkeypatch.setattr(numpy_views, "SHEAR", 0)
    matrix_N33 = TunedViews(0)._matrices(20)
    assert np.allclose(matrix_N33 @ matrix_N33.transpose(0, 2, 1), np.eye(3), atol=1e-6)
    assert np.trace(matrix_N33, axis1=1, axis2=2).min() >= 1 + 2 * np.cos(np.pi / 6) - 1e-6
    assert len(np.unique(matrix_N33[:, 0, 1])) == 20


def test_shears_have_ones_on_the_diagonal_and_six_ratios() -> None:
    """Scaling would be another augmentation."""
    matrix = numpy_views.shear_matrix()
    assert np.diag(matrix).tolist() == [1, 1, 1]
    assert len(np.unique(matrix[~np.eye(3, dtype=bool)])) == 6
    assert np.abs(matrix).max() <= 1


@pytest.mark.parametrize("view", [numpy_views.spatial_view, numpy_views.careful_spatial_view])
def test_a_sample_is_one_linear_map_but_for_the_jittered_joints(view: object) -> None:
    """The careful form must be the same view, only sooner."""
    assert callable(view)
    x_CTVM = sample()
    out_CTVM = view(x_CTVM)
    x, out = x_CTVM[:, :30, :, 0].reshape(C, -1), out_CTVM[:, :30, :, 0].reshape(C, -1)
    best, share = np.eye(3), 1.0
    for _ in range(20):  # fit, leave out what does not fit, fit again
        error = np.abs(out - best @ x).max(axis=0)
        fits = error <= max(np.quantile(error, 0.75), 1e-9)
        best = np.linalg.lstsq(x[:, fits].T, out[:, fits].T, rcond=None)[0].T
        share = float((np.abs(out - best @ x).max(axis=0) < 1e-9).mean())
    assert share == pytest.approx(0.8, abs=0.06)
    assert not out_CTVM[:, 30:].any()
    assert not out_CTVM[..., 1].any()


def test_jitter_moves_a_fifth_of_the_joints_by_five_centimetres() -> None:
    """More noise would cost the reference more."""
    x_CTVM = sample()
    moved = numpy_views.jitter(x_CTVM) - x_CTVM
    changed = moved[:, :30, :, 0]
    assert (changed != 0).any(axis=0).mean() == pytest.approx(0.2, abs=0.05)
    assert changed[changed != 0].std() == pytest.approx(0.05, rel=0.1)
    assert not moved[:, 30:].any()
    assert not moved[..., 1].any()


def test_tuned_jitter_does_the_same() -> None:
    """Joints at the origin of a body that is seen are jittered as well; a body that is not seen never is."""
    x_PCTV, _ = packed()
    out_PCTV = x_PCTV.copy()
    TunedViews(0).jitter(x_PCTV, out_PCTV)
    moved = out_PCTV - x_PCTV
    assert (moved[:2] != 0).any(axis=1).mean() == pytest.approx(0.2, abs=0.03)
    assert np.array_equal((moved != 0).any(axis=1), (moved != 0).all(axis=1))
    assert moved[moved != 0].std() == pytest.approx(0.05, rel=0.05)
    assert not moved[2, :, 30:].any()
    assert moved[2, :, :30, 3].any()


def test_tuned_transform_is_one_map_a_sample() -> None:
    """The two bodies of a sample would drift apart."""
    x_PCTV, sample_P = packed()
    out_PCTV = np.empty_like(x_PCTV)
    TunedViews(0).transform(x_PCTV, sample_P, out_PCTV)
    maps = [
        np.linalg.lstsq(x.reshape(C, -1).T, out.reshape(C, -1).T, rcond=None)[0]
        for x, out in zip(x_PCTV, out_PCTV, strict=True)
    ]
    assert np.allclose(maps[0], maps[1], atol=1e-5)
    assert not np.allclose(maps[0], maps[2], atol=1e-2)


def test_masks_hide_the_tail() -> None:
    """A quarter to three quarters, the same for both bodies of a sample."""
    x_PCTV, sample_P = packed()
    x_PCTV[:] = 1
    out_PCTV = np.empty_like(x_PCTV)
    TunedViews(0).temporal_view(x_PCTV, sample_P, out_PCTV)
    stays_PT = out_PCTV.min(axis=(1, 3))
    assert np.array_equal(stays_PT, out_PCTV.max(axis=(1, 3)))
    assert np.array_equal(stays_PT, np.sort(stays_PT, axis=1)[:, ::-1])
    assert np.array_equal(stays_PT[0], stays_PT[1])
    assert set(stays_PT.sum(axis=1).tolist()) <= set(range(10, 31))
    one_T = numpy_views.temporal_view(np.ones((C, T, V, M))).min(axis=(0, 2, 3))
    assert one_T.tolist() == sorted(one_T.tolist(), reverse=True)
    assert 10 <= one_T.sum() <= 30
