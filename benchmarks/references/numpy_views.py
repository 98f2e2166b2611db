"""The two views of CP-STN in numpy: sample by sample in float64, as feeders do, and tuned for whole batches.

Spatial: rotate by an angle in [0, pi/6] about a random axis, shear by six ratios in [-1, 1], and add Gaussian
noise to a joint in a frame with probability 0.2. Temporal: zeros in the last quarter to three quarters.

Axes: N sample, P packed present body, C coordinate, T frame, V joint, M body slot, J jittered joint.
"""

import math

import numpy as np
from numpy.typing import NDArray

ROTATION, SHEAR = math.pi / 6, 1.0
JITTER_PROBABILITY, JITTER_STD = 0.2, 0.05
MASK_MIN, MASK_MAX = 0.25, 0.75

Array = NDArray[np.float64]


def spatial_view(x_CTVM: Array) -> Array:
    """One sample's spatial view, from numpy's global random state, step by step."""
    rotated_CTVM = transformed(x_CTVM, rotation_matrix())
    return jitter(transformed(rotated_CTVM, shear_matrix()))


def careful_spatial_view(x_CTVM: Array) -> Array:
    """The same with one matrix, and by `einsum`, which is ten times as fast here as `dot`."""
    return jitter(np.einsum("ij,jtvm->itvm", shear_matrix() @ rotation_matrix(), x_CTVM))


def temporal_view(x_CTVM: Array) -> Array:
    """One sample's temporal view."""
    frames = x_CTVM.shape[1]
    hidden = round(np.random.uniform(MASK_MIN, MASK_MAX) * frames)
    masked_CTVM = x_CTVM.copy()
    masked_CTVM[:, frames - min(max(hidden, 1), frames - 1) :] = 0
    return masked_CTVM


def rotation_matrix() -> Array:
    """About a random axis, by Rodrigues' formula."""
    axis = np.random.normal(size=3)
    x, y, z = axis / np.linalg.norm(axis)
    angle = np.random.uniform(0, ROTATION)
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    rotation: Array = np.eye(3) + math.sin(angle) * cross + (1 - math.cos(angle)) * cross @ cross
    return rotation


def shear_matrix() -> Array:
    """With six independent ratios."""
    matrix = np.random.uniform(-SHEAR, SHEAR, (3, 3))
    np.fill_diagonal(matrix, 1)
    return matrix


def transformed(x_CTVM: Array, matrix: Array) -> Array:
    """The matrix on every position, as feeders write it: `dot` of a four-dimensional array, without BLAS."""
    out_TVMC: Array = np.dot(x_CTVM.transpose(1, 2, 3, 0), matrix.T)
    return out_TVMC.transpose(3, 0, 1, 2)


def jitter(x_CTVM: Array) -> Array:
    """Noise on some joints of the bodies and frames that are not empty."""
    noise_CTVM = np.random.normal(0, JITTER_STD, x_CTVM.shape)
    chosen_TVM = np.random.random(x_CTVM.shape[1:]) < JITTER_PROBABILITY
    present_TM: NDArray[np.bool_] = np.any(x_CTVM, axis=(0, 2))
    jittered_CTVM: Array = x_CTVM + noise_CTVM * (chosen_TVM & present_TM[:, np.newaxis])
    return jittered_CTVM


class TunedViews:
    """Both views of a whole batch of packed bodies in float32, as fast as we know how in numpy.

    No Python loop over bodies, frames or joints; joints are chosen by 16 random bits each, and noise is drawn
    for the jittered ones only; everything large goes into given buffers.
    """

    def __init__(self, seed: int) -> None:
        self.random = np.random.Generator(np.random.SFC64(seed))

    def spatial_view(
        self, x_PCTV: NDArray[np.float32], sample_P: NDArray[np.int64], out_PCTV: NDArray[np.float32]
    ) -> None:
        """As `pipeline.augment.spatial_view`. sample_P: each body's sample, 0..N-1."""
        self.transform(x_PCTV, sample_P, out_PCTV)
        self.jitter(x_PCTV, out_PCTV)

    def transform(
        self, x_PCTV: NDArray[np.float32], sample_P: NDArray[np.int64], out_PCTV: NDArray[np.float32]
    ) -> None:
        """Rotate and shear; the bodies of a sample alike."""
        bodies, _, frames, joints = x_PCTV.shape
        flat = (bodies, 3, frames * joints)
        matrix_P33 = self._matrices(int(sample_P[-1]) + 1)[sample_P]
        np.matmul(matrix_P33, x_PCTV.reshape(flat), out=out_PCTV.reshape(flat))

    def jitter(self, x_PCTV: NDArray[np.float32], out_PCTV: NDArray[np.float32]) -> None:
        """Add noise in place. x_PCTV says where a body is not seen: there is none."""
        place_J = self._jittered(x_PCTV)
        noise_3J = self.random.standard_normal((3, len(place_J)), np.float32)
        noise_3J *= np.float32(JITTER_STD)
        flat_out = out_PCTV.reshape(-1)
        for axis in range(3):
            flat_out[place_J + axis * math.prod(x_PCTV.shape[2:])] += noise_3J[axis]

    def temporal_view(
        self, x_PCTV: NDArray[np.float32], sample_P: NDArray[np.int64], out_PCTV: NDArray[np.float32]
    ) -> None:
        """As `pipeline.augment.temporal_view`."""
        frames = x_PCTV.shape[2]
        hidden_N = np.rint(self.random.uniform(MASK_MIN, MASK_MAX, int(sample_P[-1]) + 1) * frames)
        visible_N = frames - np.clip(hidden_N, 1, frames - 1)
        stays_PT = (np.arange(frames) < visible_N[sample_P, np.newaxis]).astype(np.float32)
        np.multiply(x_PCTV, stays_PT[:, np.newaxis, :, np.newaxis], out=out_PCTV)

    def _matrices(self, samples: int) -> NDArray[np.float32]:
        """Shear after rotation, float32 (N, 3, 3)."""
        axis_N3 = self.random.standard_normal((samples, 3))
        axis_N3 /= np.linalg.norm(axis_N3, axis=1, keepdims=True)
        angle_N11 = self.random.uniform(0, ROTATION, (samples, 1, 1))
        cross_N33 = np.cross(np.eye(3), axis_N3[:, np.newaxis])
        rotation_N33 = np.eye(3) + np.sin(angle_N11) * cross_N33
        rotation_N33 += (1 - np.cos(angle_N11)) * cross_N33 @ cross_N33
        shear_N33 = self.random.uniform(-SHEAR, SHEAR, (samples, 3, 3))
        shear_N33[:, range(3), range(3)] = 1
        return (shear_N33 @ rotation_N33).astype(np.float32)

    def _jittered(self, x_PCTV: NDArray[np.float32]) -> NDArray[np.int64]:
        """Where in the flat batch the x of every jittered joint lies; none in frames without the body."""
        bodies, _, frames, joints = x_PCTV.shape
        flat = frames * joints
        words = self.random.integers(0, 2**16, bodies * flat, np.uint16)
        joint_J = np.flatnonzero(words < round(JITTER_PROBABILITY * 2**16))
        place_J: NDArray[np.int64] = joint_J + joint_J // flat * (2 * flat)
        doubtful_J = np.flatnonzero(x_PCTV.reshape(-1)[place_J] == 0)
        if len(doubtful_J) == 0:
            return place_J
        body_J, flat_J = np.divmod(joint_J[doubtful_J], flat)
        is_empty_J = ~x_PCTV[body_J, :, flat_J // joints].any(axis=(1, 2))
        return np.delete(place_J, doubtful_J[is_empty_J])
