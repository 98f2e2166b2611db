"""What other programs are given of an encoder: every sample's features, in the rows that the table says."""

import json
import shutil
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal

from data_specs.read import load_spec
from model.bench import Bench, whitened_features
from model.calibrate import calibrated
from model.checkpoint import load_checkpoint
from model.encode import EncodedFiles, encode
from model.features import encoder_features
from model.question import read_parts
from model.run import Run
from model.scores import ENCODERS, INPUT_STATISTICS, TRAINED
from pipeline.normalize import NormalizeConfig
from pipeline.preprocess import PreprocessConfig, prepare, run
from pipeline.samples import split_samples
from pipeline.store.shards import Shards, open_shards

CPU = torch.device("cpu")


def encoded(
    shards: Shards, run: Run, path: Path, protocol: str = "xview", **options: object
) -> tuple[np.ndarray, pd.DataFrame]:
    """What was written, as a reader without this project reads it."""
    checkpoint = load_checkpoint(run)
    written = encode(shards, run, checkpoint, protocol, path, device=CPU, **options)  # type: ignore[arg-type]
    x_ND, table = np.load(path), pd.read_csv(path.with_suffix(".csv"))
    assert written == EncodedFiles(tuple(path.with_suffix(s) for s in (".npy", ".csv", ".json")), *x_ND.shape)
    assert x_ND.dtype == np.float32
    assert len(table) == len(x_ND) == len(shards.table)
    return x_ND, table


def fail(*_: object) -> None:
    raise AssertionError("too late")


@pytest.mark.parametrize("trained", [True, False])
def test_each_row_is_what_eval_classifies_of_its_sample(
    shards: Shards, tiny_run: Run, tmp_path: Path, trained: bool
) -> None:
    done: list[int] = []
    x_ND, table = encoded(shards, tiny_run, tmp_path / "x.npy", trained=trained, on_samples=done.append)
    assert sum(done) == len(x_ND)
    assert not {"row", "shard"} & set(table)
    model = load_checkpoint(tiny_run).build_model(trained=trained)
    model = calibrated(model, split_samples(shards, "xview", "train"), CPU)
    for part in ("train", "test"):
        expected = encoder_features(model, split_samples(shards, "xview", part), CPU)
        rows = (table["split"] == part).to_numpy()
        assert_allclose(x_ND[rows], expected.x_ND.numpy(), rtol=1e-4, atol=1e-5)
        assert_array_equal(table["label"][rows], expected.labels_N.numpy())
        assert table["key"][rows].tolist() == shards.split("xview", part)["key"].tolist()
    assert table["class"].tolist() == [shards.spec.classes[label] for label in shards.table["label"]]
    facts = json.loads((tmp_path / "x.json").read_text())
    assert facts["trained"] == trained
    assert facts["step"] == (load_checkpoint(tiny_run).step if trained else 0)
    assert (facts["run"], facts["protocol"]) == (tiny_run.name, "xview")
    assert facts["weights"] == load_checkpoint(tiny_run).weights_digest
    assert facts["recipe"] == load_checkpoint(tiny_run).recipe().to_table()
    assert facts["shards"]["manifest"] == shards.manifest.digest


def test_whitened_features_are_those_that_eval_classifies(
    shards: Shards, tiny_run: Run, tmp_path: Path
) -> None:
    x_ND, table = encoded(shards, tiny_run, tmp_path / "x.npy", whiten=True)
    plain_ND, _ = encoded(shards, tiny_run, tmp_path / "plain.npy")
    parts = read_parts(shards, "xview")
    bench = Bench(shards, load_checkpoint(tiny_run), parts, CPU, None, lambda _: None)
    features = {name: partial(bench.pair, name, bench.encoders[name]) for name in ENCODERS}
    features[INPUT_STATISTICS] = partial(bench.pair, INPUT_STATISTICS, bench.extractors[INPUT_STATISTICS])
    of_eval = whitened_features(bench.extractors, features, parts, CPU, lambda _: None)
    for part, expected in zip(("train", "test"), of_eval[f"{TRAINED}, whitened"](), strict=True):
        rows = (table["split"] == part).to_numpy()
        assert_allclose(x_ND[rows], expected.x_ND.numpy(), rtol=1e-3, atol=1e-4)
    assert not np.allclose(x_ND, plain_ND, rtol=1e-2)
    facts = [json.loads((tmp_path / name).read_text())["whitened"] for name in ("x.json", "plain.json")]
    assert facts == [True, False]


def test_what_a_protocol_does_not_use_is_encoded_too(shards: Shards, tiny_run: Run, tmp_path: Path) -> None:
    _, table = encoded(shards, tiny_run, tmp_path / "x.npy", "xview@camera-2")
    assert table["split"].map({"train": 1, "test": 2}).fillna(3).tolist() == table["camera"].tolist()


def test_tars_give_what_the_array_gives(both_shards: Shards, tiny_run: Run, tmp_path: Path) -> None:
    folder = tmp_path / "tars"
    shutil.copytree(both_shards.folder, folder)
    tars = open_shards(folder)
    tars.__dict__["source"] = tars.tars
    x_ND, table = encoded(tars, tiny_run, tmp_path / "tars.npy")
    other_ND, other = encoded(both_shards, tiny_run, tmp_path / "array.npy")
    assert_array_equal(x_ND, other_ND)
    pd.testing.assert_frame_equal(table, other)
    facts = json.loads((tmp_path / "tars.json").read_text())  # of these shards, not of those trained on
    assert facts["shards"] == {"name": "tars", "manifest": both_shards.manifest.digest}


def test_recordings_that_only_test_are_normalised_as_in_training(
    shards: Shards, tiny_run: Run, tmp_path: Path
) -> None:
    (tmp_path / "raw").mkdir()
    for path in (shards.folder.parent / "raw").glob("*_v03.json"):
        shutil.copy(path, tmp_path / "raw")
    config = PreprocessConfig(NormalizeConfig(frames=16))
    run(prepare(shards.spec, [tmp_path / "raw"], tmp_path / "new", config, overwrite=False), workers=1)
    notes: list[str] = []
    x_ND, table = encoded(open_shards(tmp_path / "new"), tiny_run, tmp_path / "x.npy", on_note=notes.append)
    everything_ND, all_of = encoded(shards, tiny_run, tmp_path / "all.npy")
    places = pd.Index(all_of["key"]).get_indexer(pd.Index(table["key"]))
    assert_allclose(x_ND, everything_ND[places], rtol=1e-4, atol=1e-5)
    assert table["split"].eq("test").all()
    assert [note for note in notes if "batch normalisation is measured on those that the run was" in note]


def test_what_to_normalise_by_is_asked_for_where_it_is_gone(
    shards: Shards, tiny_run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """--shards names what to encode there, and not the shards of the run."""
    monkeypatch.setattr(Run, "shards", lambda _: str(tmp_path / "gone"))
    test = shards.table[shards.table["camera"] == 3]
    with pytest.raises(ValueError, match=r"gone.*encode shards with training samples") as error:
        encoded(replace(shards, table=test), tiny_run, tmp_path / "x.npy")
    assert "--shards" not in str(error.value)


def test_an_array_of_other_shards_is_not_replaced_in_silence(
    shards: Shards, tiny_run: Run, tmp_path: Path
) -> None:
    """Both are called by the data set alone."""
    config = PreprocessConfig(NormalizeConfig(frames=24))
    raw = shards.folder.parent / "raw"
    run(prepare(shards.spec, [raw], tmp_path / "new", config, overwrite=False), workers=1)
    notes: list[str] = []
    shutil.copytree(shards.folder, tmp_path / "moved")
    for opened in (shards, shards, open_shards(tmp_path / "moved"), open_shards(tmp_path / "new")):
        assert not notes
        encoded(opened, tiny_run, tmp_path / "x.npy", on_note=notes.append)
    assert notes == [f"{tmp_path / 'x.npy'} was of other shards, and is written over"]


def test_an_array_that_cannot_be_written_is_told_at_once(
    shards: Shards, tiny_run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.access", lambda *_: False)
    with pytest.raises(PermissionError, match="cannot be written"):
        encoded(shards, tiny_run, tmp_path / "x.npy", on_samples=fail)


def test_an_array_that_would_not_be_found_again_is_refused(
    shards: Shards, tiny_run: Run, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=r"x.csv: expected a name that ends in .npy"):
        encoded(shards, tiny_run, tmp_path / "x.csv")


def test_recordings_of_another_skeleton_are_refused(shards: Shards, tiny_run: Run, tmp_path: Path) -> None:
    checkpoint = load_checkpoint(tiny_run)
    strange = replace(checkpoint, content=checkpoint.content | {"spec": load_spec("ntu60").text})
    with pytest.raises(ValueError, match="trained on ntu60 with 25"):
        encode(shards, tiny_run, strange, "xview", tmp_path / "x.npy", device=CPU)


def test_a_table_is_not_left_beside_an_array_of_another_time(
    shards: Shards, tiny_run: Run, tmp_path: Path
) -> None:
    encoded(shards, tiny_run, tmp_path / "x.npy")

    def stop(_: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        encoded(shards, tiny_run, tmp_path / "x.npy", on_samples=stop)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["x.csv", "x.npy"]
