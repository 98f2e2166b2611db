"""What the classifiers are given, against plain computations."""

import numpy as np
import pytest
import torch

from data_specs.read import load_spec
from model import features as features_module
from model.cpstn import CPSTN, ModelConfig
from model.features import coordinates_extractor, encoder_features, extract_features, statistics_extractor
from model.pooling import mean_over_bodies
from model.stgcn import DecoderConfig, EncoderConfig
from pipeline.samples import Samples

# N sample, M body, C coordinate, T frame, V joint
N, M, C, T, V = 5, 2, 3, 13, 25
CPU = torch.device("cpu")
NUM_BODIES = np.array([1, 2, 1, 2, 2])


class Memory:
    """Shards in memory."""

    def __init__(self) -> None:
        self.data_NMCTV = np.random.default_rng(5).normal(size=(N, M, C, T, V)).astype(np.float32)
        self.shape = self.data_NMCTV.shape

    def read_bodies(
        self,
        rows_N: "np.ndarray[tuple[int], np.dtype[np.int64]]",
        num_bodies_N: "np.ndarray[tuple[int], np.dtype[np.int64]]",
        out_PCTV: "np.ndarray[tuple[int, ...], np.dtype[np.float32]]",
    ) -> None:
        parts = [self.data_NMCTV[row, :bodies] for row, bodies in zip(rows_N, num_bodies_N, strict=True)]
        out_PCTV[:] = np.concatenate(parts)


@pytest.fixture
def memory() -> Memory:
    return Memory()


@pytest.fixture
def samples(memory: Memory) -> Samples:
    labels_N, skeleton = np.array([3, 1, 4, 1, 5]), load_spec("ntu60").skeleton
    return Samples(memory, np.arange(N), NUM_BODIES, labels_N, np.arange(N), skeleton)


def test_statistics_equal_their_definition(memory: Memory, samples: Samples) -> None:
    skeleton = load_spec("ntu60").skeleton
    features = extract_features(statistics_extractor(skeleton), samples, CPU, batch_size=2)
    assert features.labels_N.tolist() == [3, 1, 4, 1, 5]
    assert features.x_ND.shape == (N, 4 * 3 * 3 * C * V)
    for n in range(N):
        bodies = []
        for x_CTV in memory.data_NMCTV[n, : NUM_BODIES[n]]:
            motion_CTV = np.zeros_like(x_CTV)
            motion_CTV[:, :-1] = x_CTV[:, 1:] - x_CTV[:, :-1]
            streams = np.concatenate([x_CTV, x_CTV - x_CTV[:, :, list(skeleton.parents)], motion_CTV])
            spans = [streams, *np.array_split(streams, 3, axis=1)]
            bodies.append(
                np.concatenate([f.ravel() for s in spans for f in (s.mean(1), s.std(1), np.abs(s).mean(1))])
            )
        np.testing.assert_allclose(features.x_ND[n], np.mean(bodies, axis=0), atol=1e-5)


def test_coordinates_lie_in_the_slots_of_their_bodies(memory: Memory, samples: Samples) -> None:
    features = extract_features(coordinates_extractor(M), samples, CPU, batch_size=2)
    expected = memory.data_NMCTV.copy()
    for n in range(N):
        expected[n, NUM_BODIES[n] :] = 0
    np.testing.assert_array_equal(features.x_ND, expected.reshape(N, -1))


def test_of_many_frames_coordinates_are_means(
    memory: Memory, samples: Samples, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Thirty thousand numbers a sample would be more than a classifier can be fitted on."""
    monkeypatch.setattr(features_module, "COORDINATE_FRAMES", 1)
    features = extract_features(coordinates_extractor(M), samples, CPU)
    first = memory.data_NMCTV[:, 0].mean(axis=2).reshape(N, -1)
    np.testing.assert_allclose(features.x_ND[:, : C * V], first, atol=1e-6)


def test_encoder_features_do_not_depend_on_the_batches(samples: Samples) -> None:
    config = ModelConfig(
        encoder=EncoderConfig(widths=(4, 4, 4, 4, 6, 6)), decoder=DecoderConfig(widths=(4, 4, 4, 4, 4))
    )
    torch.manual_seed(0)
    model = CPSTN(load_spec("ntu60").skeleton, config)
    one_by_one = encoder_features(model, samples, CPU, batch_size=1)
    together = encoder_features(model, samples, CPU, batch_size=N)
    assert one_by_one.x_ND.shape == (N, model.representation_size)
    torch.testing.assert_close(one_by_one.x_ND, together.x_ND, atol=1e-5, rtol=1e-4)
    assert not together.x_ND.requires_grad


def test_mean_over_bodies_counts_present_ones_only() -> None:
    x_PD = torch.tensor([[1.0, 10.0], [3.0, 30.0], [5.0, 50.0]])
    result = mean_over_bodies(x_PD, torch.tensor([0, 0, 1]), 2)
    torch.testing.assert_close(result, torch.tensor([[2.0, 20.0], [5.0, 50.0]]))
