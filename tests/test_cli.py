"""The commands as a user types them: they work one after the other, and every mistake gets one line."""

import errno
import importlib.metadata
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

import cli
from cli import main
from data_specs.read import load_spec
from model.recipe import load_recipe
from pipeline.normalize import MOST_FRAMES, NormalizeConfig
from pipeline.preprocess import PreprocessConfig
from tests.commands import call, fails, works

TINY = [
    "--set=epochs=2",
    "--set=batch_size=16",
    "--set=model.encoder.widths=[4, 4, 4, 4, 8, 8]",
    "--set=model.decoder.widths=[4, 4, 4, 4, 4]",
]


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which a small data set was preprocessed and a small run trained."""
    folder = tmp_path_factory.mktemp("work")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        works("synthesize", "ucla", "raw", "--samples", "60")
        works("preprocess", "ucla", "raw", "--frames", "16", "--workers", "2")
        works("train", "--shards", *TINY)
    return folder


@pytest.fixture
def inside(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(workplace)
    return workplace


def test_inspect_gives_the_promised_keys(inside: Path) -> None:
    facts = json.loads(works("inspect", "shards/ucla", "--json"))
    assert facts["samples"] == 60
    assert facts["shards"] == 1
    assert facts["rejected"] == 0
    assert facts["protocols"]["xview"]["train"] + facts["protocols"]["xview"]["test"] == 60
    files = json.loads((inside / "shards/ucla/manifest.json").read_text())["files"]
    assert facts["bytes"] == sum((inside / "shards/ucla" / name).stat().st_size for name in files)
    assert "xview3" in works("inspect", "shards/ucla")


@pytest.mark.usefixtures("inside")
def test_verify_says_that_all_is_sound() -> None:
    assert "all sound" in works("verify", "shards/ucla")


@pytest.mark.usefixtures("inside")
def test_verify_names_the_damaged_file(tmp_path: Path) -> None:
    works("preprocess", "ucla", "raw", "--frames", "8", "--out", str(tmp_path / "out"))
    shard = tmp_path / "out/skeletons.zarr/c/0/0/0/0/0"
    content = bytearray(shard.read_bytes())
    content[1000] ^= 1
    shard.write_bytes(content)
    result = call("verify", str(tmp_path / "out"))
    assert result.exit_code == 1
    assert "skeletons.zarr/c/0/0/0/0/0" in result.stdout
    assert "1 of 4 files are damaged; run the preprocess command again" in result.stderr
    works("preprocess", "ucla", "raw", "--frames", "8", "--out", str(tmp_path / "out"))
    assert "all sound" in works("verify", str(tmp_path / "out"))


def test_train_leaves_a_plain_run_behind(inside: Path) -> None:
    run = inside / "runs/ucla-001"
    assert len(list((run / "checkpoints").glob("step-*.pt"))) == 2
    assert "epochs = 2" in (run / "recipe.toml").read_text()
    assert list(run.glob("events.out.tfevents.*"))


def test_eval_prints_a_table_and_writes_it_beside_the_run(inside: Path) -> None:
    printed = works("eval", "--label-fraction", "0.5")
    words = (
        "linear",
        "nearest neighbours, k = 20",
        "semi-supervised",
        "untrained encoder",
        "input statistics",
    )
    for word in (*words, "raw coordinates", "macro-F1"):
        assert word in printed
    run = inside / "runs/ucla-001"
    table = json.loads((run / "eval-ucla-xview.json").read_text())
    assert table["train_samples"] + table["test_samples"] == 60
    for score in table["scores"]:
        assert 0 <= score["top1"]["mean"] <= (score["top5"]["mean"] if score["top5"] else 1) <= 1
        assert sum(map(sum, score["confusion"])) == table["test_samples"]
    labels = {score["labels"] for score in table["scores"]}
    assert labels == {table["train_samples"], *(n for n in labels if n <= table["train_samples"] / 2 + 10)}
    assert (run / "eval-ucla-xview-confusion.png").read_bytes()[:4] == b"\x89PNG"
    assert works("eval", "--label-fraction", "0.5") == printed
    ids = run / "subsets/ucla-xview-0.5-seed-0.txt"
    by_file = works("eval", "--mode", "linear", "--subset", str(ids))
    found = rows_of(by_file)
    assert len(found) == 8  # four kinds of features, on all labels and on these
    assert found <= rows_of(printed)
    assert f" labels: those of {ids.name}\n" in by_file
    assert "those of" not in printed


def rows_of(printed: str) -> set[tuple[str, ...]]:
    """A table's rows, each behind the heading that it stands under, without the space that fills columns."""
    rows, heading = set(), ""
    for line in printed.splitlines():
        cells = tuple(re.split(" {2,}", line.strip()))
        if len(cells) == 1 and (found := re.fullmatch(r"(.* labels)( \(fraction .*\))?", cells[0])):
            heading = found[1]
        elif heading and len(cells) > 1:
            rows.add((heading, *cells))
    return rows


def test_eval_repeats_with_other_labels(inside: Path) -> None:
    printed = works("eval", "--mode", "linear,knn", "--label-fraction", "0.3,0.5", "--seeds", "2")
    assert " ± " in printed
    assert (inside / "runs/ucla-001/subsets/ucla-xview-0.3-seed-1.txt").exists()


@pytest.mark.usefixtures("inside")
@pytest.mark.parametrize(
    ("options", "name"),
    [
        ((), "encoded-ucla-xview.npy"),
        (("--untrained",), "encoded-untrained-ucla-xview.npy"),
        (("--untrained", "--whiten"), "encoded-untrained-whitened-ucla-xview.npy"),
    ],
)
def test_encode_writes_every_sample_beside_the_run(options: tuple[str, ...], name: str) -> None:
    printed = works("encode", *options).split("\n")
    x_ND, table = np.load(printed[1]), pd.read_csv(printed[2])
    assert printed[0] == f"60 samples, {x_ND.shape[1]} numbers each"
    assert printed[1] == f"runs/ucla-001/{name}"
    assert len(x_ND) == len(table) == 60


def test_report_makes_a_page(inside: Path) -> None:
    works("eval", "--mode", "knn")
    assert "runs/ucla-001/report.html" in works("report", "ucla-001")
    assert "<canvas" in (inside / "runs/ucla-001/report.html").read_text()


def test_view_makes_a_page(inside: Path, tmp_path: Path) -> None:
    page = tmp_path / "player.html"
    arguments = ("--sample", key_in(inside), "--run", "ucla-001", "--out", str(page), "--no-open")
    assert key_in(inside) in works("view", "shards/ucla", *arguments)
    assert "<canvas" in page.read_text()


@pytest.mark.usefixtures("inside")
def test_eval_says_where_a_share_is_less_than_a_label_a_class() -> None:
    told = call("eval", "--mode", "linear", "--label-fraction", "0.001").stderr
    assert (
        "note: a share of 0.001 leaves 10 of 10 classes without a label; one of every class is used" in told
    )
    assert "in all 10 of " in told
    told = call("eval", "--mode", "linear", "--label-fraction", "0.5").stderr
    assert "without a label" not in told
    assert "note: a share" not in told


@pytest.mark.usefixtures("inside")
def test_eval_says_where_a_share_is_another_than_was_asked_for() -> None:
    """Of a few samples a class the nearest whole number may be half as much again."""
    told = call("eval", "--mode", "knn", "--label-fraction", "0.16").stderr
    found = re.search(r"note: a share of 0\.16, rounded .*, is (\d+) of (\d+) labels \((.*) %\)", told)
    assert found
    assert 100 * int(found[1]) / int(found[2]) == pytest.approx(float(found[3]), rel=1e-2)


def test_view_says_what_it_cannot_show(
    workplace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("webbrowser.open", lambda _: False)
    shards, without = (
        str(workplace / "shards/ucla"),
        ("--set", "spatial_weight=0", "--set", "temporal_weight=0"),
    )
    works("train", "--shards", shards, *TINY, *without, "--name", "contrast")
    told = call("view", shards, "--run", "contrast", "--out", "player.html").stderr
    assert "note: contrast has no decoders that rebuild a view" in told
    assert "note: no browser was found; open player.html yourself" in told


@pytest.mark.usefixtures("inside")
@pytest.mark.parametrize("protocol", ["xsub", "xview@camera-2"])
def test_eval_follows_another_protocol(protocol: str) -> None:
    assert protocol in works("eval", "--run", "runs/ucla-001", "--mode", "knn", "--protocol", protocol)


def test_supervised_training_on_a_share_of_the_labels(
    workplace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Table 4's ST-GCN: the same encoder from scratch, on as many labels as the others are given."""
    monkeypatch.chdir(tmp_path)
    shards = str(workplace / "shards/ucla")
    works("train", "--shards", shards, *TINY, "--objective", "supervised", "--label-fraction", "0.5")
    printed = works("eval", "--mode", "knn")
    (path,) = Path("runs/ucla-001").glob("eval-*.json")
    table = json.loads(path.read_text())
    (row,) = (score for score in table["scores"] if score["mode"] == "supervised")
    train = pd.read_csv(f"{shards}/samples.csv").query("camera != 3")
    assert row["labels"] == sum(max(1, round(0.5 * count)) for count in train["label"].value_counts())
    assert "supervised" in printed


def test_a_run_that_held_samples_out_is_evaluated_on_them(
    workplace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Settings are chosen so: the published test samples take no part."""
    monkeypatch.chdir(tmp_path)
    shards = workplace / "shards/ucla"
    works("train", "--shards", str(shards), "--name", "chosen", *TINY, "--set", "protocol=xview@subject-1-6")
    works("eval", "--mode", "knn")
    table = json.loads(Path("runs/chosen/eval-ucla-xview@subject-1-6.json").read_text())
    facts = pd.read_csv(shards / "samples.csv").query("camera != 3")
    held_out = facts["subject"].isin([1, 6])
    assert (table["train_samples"], table["test_samples"]) == ((~held_out).sum(), held_out.sum())
    assert table["seen_in_training"] == 0


def test_draw_makes_a_picture(inside: Path, tmp_path: Path) -> None:
    assert "a01_" in works("draw", "shards/ucla", str(tmp_path / "views.png"), "--sample", key_in(inside))
    assert (tmp_path / "views.png").read_bytes()[:4] == b"\x89PNG"


def key_in(folder: Path) -> str:
    return sorted((folder / "raw").iterdir())[0].stem


@pytest.mark.usefixtures("inside")
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["preprocess", "ntu61", "raw"], "no data set 'ntu61'"),
        (["preprocess", "ntu60", "raw"], "the files look like NW-UCLA (ucla)"),
        (["preprocess", "ucla", "nowhere"], "nowhere: no such file or folder"),
        (["preprocess", "ucla", "raw", "--frames", "20"], "frames: 16 there, 20 now"),
        (["preprocess", "ucla", "raw", "--frames", "2", "--out", "x"], "2 is not in the range"),
        (["preprocess", "ucla", "raw", "--frames", f"{MOST_FRAMES + 1}"], f"range 3<=x<={MOST_FRAMES}"),
        (["preprocess", "ucla", "raw", "--resample", "cubic", "--out", "x"], "expected one of linear"),
        (["preprocess", "ucla", "raw", "--format", "hdf5", "--out", "x"], "expected one of zarr"),
        (["preprocess", "ucla", "raw", "--out", "/dev/null/x"], "cannot be written"),
        (
            ["preprocess", "ucla", "raw", "--out", "short", "--min-frames", "1000"],
            "all 60 recordings have fewer than 1000 frames; a smaller --min-frames lets some be used",
        ),
        (
            ["preprocess", "ucla", "raw", "--out", "x", "--workers", "3", "--processes", "2"],
            "--workers 3 cannot be spread evenly over --processes 2; --workers 2 --processes 2 can",
        ),
        (["preprocess", "ucla", "raw", "--out", "x", "--shard-samples", "0"], "0 is not in the range"),
        (["synthesize", "ucla", "x", "--samples", "0"], "0 is not in the range"),
        (["synthesize", "ucla", "/dev/null/x", "--samples", "3"], "cannot be written"),
        (["synthesize", "ucla", "raw", "--samples", "3"], "raw: holds files already; expected a new or an"),
        (["inspect", "raw"], "holds no shards"),
        (["inspect", "nowhere"], "no such folder"),
        (["inspect", "shards/ucla/samples.csv"], "samples.csv: a file; expected a folder of shards"),
        (["verify", "nowhere"], "no such folder"),
        (["train", "--shards", "raw"], "holds no shards"),
        (["train", "--set", "epoch=1"], "did you mean 'epochs'?"),
        (["train", "--set", "protocol=xset"], "ucla has no protocol 'xset'"),
        (["train", "--recipe", "papr"], "no recipe 'papr'"),
        (["train", "--recipe", "my/papr.toml"], "my/papr.toml: no such file: expected"),
        (["draw", "shards/ucla", "views.jpg"], "views.jpg: expected a name that ends in .png"),
        (["train", "--device", "gpu"], "device 'gpu' cannot be used here; expected cpu"),
        (["train", "--device", "meta"], "device 'meta' cannot be used here; expected cpu"),
        (["train", "--set", "batch_size=1"], "a batch is one sample (batch_size 1, "),
        (["train", "--name", "ucla-001"], "exists already"),
        (["train", "--resume", ""], "--resume: an empty value; leave it out, or say which"),
        (["train", "--shards", "--name="], "--name: an empty value"),
        (["preprocess", "ucla", ""], "an empty value; leave it out"),
        (["train", "--save-minutes", "nan"], "nan is no number"),
        (
            ["synthesize", "ucla", "x", "--samples", "3", "--oddities", "nan"],
            "oddities is nan; it is a share, from 0 to 1",
        ),
        (["train", "--set", "epochs=100000000000000000000000000"], "epochs has 27 digits; expected at most"),
        (["train", "--set", "views=[1, 2]"], "views[0] is 1; expected a word"),
        (["eval", "--seeds", "100000"], "100000 is not in the range"),
        (["inspect", "x" * 300], "File name too long"),
        (["preprocess", "ucla", "raw", "--out", "x" * 300], "cannot be written: File name too long"),
        (["inspect", "http://exa mple/x"], "expected a folder, or an address such as"),
        (["train", "--resume", "ucla-007"], "no run 'ucla-007'; runs under runs/: ucla-001"),
        (
            ["train", "--resume", "ucla-001", "--set", "epochs=3"],
            "leave --recipe, --set, --name, --objective and",
        ),
        (["eval", "--label-fraction", "10"], "label fraction is 10"),
        (["eval", "--label-fraction", "0.1;0.2"], "--label-fraction '0.1;0.2': expected numbers"),
        (["eval", "--mode", "linear,nearest"], "unknown mode 'nearest'"),
        (["eval", "--mode", "semi"], "mode semi needs a label fraction below 1"),
        (
            ["train", "--shards", "--set", "protocol=xview@subject-1-99"],
            "protocol xview@subject-1-99 finds no training sample of subject 99 to hold out",
        ),
        (["eval", "--subset", "nowhere.txt"], "nowhere.txt: not a readable id file: No such file"),
        (["eval", "--subset", "x", "--label-fraction", "0.1"], "leave the label fraction out"),
        (["report"], "Missing argument"),
        (["report", "ucla-007"], "no run 'ucla-007'"),
        (["report", "ucla-001", "--out", "x.toml"], "x.toml: expected a name that ends in .html"),
        (["view", "shards/ucla", "--no-open", "--out", "x.json"], "x.json: expected a name that ends in"),
        (["train", "--shards", "--set", "seed=99999999999"], "digits; expected at most 4,294,967,296"),
        (["report", "ucla-001", "runs/ucla-001"], "ucla-001 runs/ucla-001: expected each run once"),
        (["draw", "shards/ucla", "/dev/null/x.png"], "/dev/null/x.png: cannot be written: Not a directory"),
        (["view", "shards/ucla", "--sample", "a99", "--no-open"], "no sample 'a99'"),
        (["eval", "--run", "ucla-007"], "no run 'ucla-007'"),
        (["eval", "--fuse", "ucla-007"], "no run 'ucla-007'"),
        (["eval", "--fuse", "ucla-001"], "expected other runs than runs/ucla-001, each name once"),
        (["eval", "--protocol", "xset"], "ucla has no protocol 'xset'"),
        (["encode", "--protocol", "xset"], "ucla has no protocol 'xset'"),
        (["encode", "--out", "x.csv"], "x.csv: expected a name that ends in .npy"),
        (["encode", "--out", "/dev/null/x.npy"], "/dev/null: cannot be written: Not a dir"),
        (["draw", "shards/ucla", "x.png", "--sample", "a99"], "no sample 'a99'"),
        (
            ["view", "shards/ucla", "--no-open", "--out", "/dev/null/x.html"],
            "/dev/null/x.html: cannot be wri",
        ),
        (["draw", "shards/ucla", "runs"], "File 'runs' is a directory"),
        (["view", "shards/ucla", "--no-open", "--out", "runs"], "File 'runs' is a directory"),
        (["report", "ucla-001", "--out", "runs"], "File 'runs' is a directory"),
        (["synthesize", "ucla", "x", "--samples", "5", "--layout", "xml"], "xml"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_users_mistake_gets_one_line_and_exit_code_2(arguments: list[str], message: str) -> None:
    assert message in fails(2, *arguments)


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (["preprocess", "ucla", "raw", "--out", "x"], "stopped; the same command goes on"),
        (["synthesize", "ucla", "x", "--samples", "3"], "stopped; what it wrote so far is no whole data set"),
        (["inspect", "shards/ucla"], "stopped"),
    ],
)
@pytest.mark.usefixtures("inside")
def test_a_stop_says_how_to_go_on_where_one_can(
    monkeypatch: pytest.MonkeyPatch, command: list[str], said: str
) -> None:
    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    for function in ("preprocess.prepare", "raw.synthetic.synthesize", "store.shards.open_shards"):
        monkeypatch.setattr(f"pipeline.{function}", stop)
    assert fails(130, *command).startswith(f"Error: {said}")


@pytest.mark.usefixtures("inside")
def test_a_full_disk_is_a_failure_that_names_the_file(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The system itself says neither which file it was nor what to do."""

    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, "write_bytes", full)
    page = tmp_path / "x.html"
    expected = f"Error: {page}: cannot be written: No space left on device; make room, then try again"
    assert fails(1, "view", "shards/ucla", "--no-open", "--out", str(page)) == expected


@pytest.mark.usefixtures("inside")
def test_a_folder_whose_name_is_no_text_is_refused_at_once() -> None:
    """Linux takes any bytes for a name; after hours of training, an evaluation could not be written."""
    odd = os.fsdecode(b"shards-\xff")
    shutil.copytree("shards/ucla", odd)
    for command in (["train", "--shards", odd, *TINY], ["preprocess", "ucla", "raw", "--out", odd]):
        assert r"shards-\xff: not UTF-8; expected a folder whose name is text: rename it" in fails(
            2, *command
        )
    shutil.rmtree(odd)


def test_a_second_preprocess_says_that_nothing_was_to_do(inside: Path) -> None:
    printed = works("preprocess", "ucla", "raw", "--frames", "16")
    assert "60 recordings: all there already\n" in printed
    shard = next((inside / "shards/ucla/records").iterdir())
    shard.unlink()
    assert re.search(
        r"60 recordings in .* s, .* a second\n", works("preprocess", "ucla", "raw", "--frames", "16")
    )


def test_a_report_refuses_shards_of_another_skeleton(inside: Path, tmp_path: Path) -> None:
    """Before it takes the place of a page that was right."""
    works("synthesize", "ntu60", str(tmp_path / "raw"), "--samples", "8")
    works("preprocess", "ntu60", str(tmp_path / "raw"), "--frames", "16", "--out", str(tmp_path / "ntu"))
    works("eval", "--mode", "knn", "--run", "ucla-001")
    said = fails(2, "report", "ucla-001", "--shards", str(tmp_path / "ntu"), "--out", "other.html")
    assert "skeletons of 25 joints; the run was trained on ucla with 20" in said
    assert not (inside / "other.html").exists()


def test_a_run_whose_shards_were_replaced_is_told(inside: Path, tmp_path: Path) -> None:
    shutil.copytree(inside / "runs/ucla-001", tmp_path / "moved")
    facts = {"shards": str(inside / "shards/ucla"), "manifest": "of others"}
    (tmp_path / "moved/run.json").write_text(json.dumps(facts))
    for command in (["eval", "--mode", "knn"], ["encode"]):
        told = call(*command, "--run", str(tmp_path / "moved")).stderr
        assert f"shards/ucla holds other shards now than those that {tmp_path}/moved was trained on" in told
        assert "other shards" not in call(*command, "--run", "ucla-001").stderr
    works("report", str(tmp_path / "moved"))
    assert "holds other shards now than those that" in (tmp_path / "moved/report.html").read_text()


def test_an_evaluation_that_nobody_reads_on_is_kept(inside: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As behind `| head -1`: measuring took minutes."""

    def nobody_reads(*_: object) -> None:
        raise BrokenPipeError

    saved = inside / "runs/ucla-001/eval-ucla-xview.json"
    saved.unlink(missing_ok=True)
    monkeypatch.setattr("cli.print_scores", nobody_reads)
    call("eval", "--run", "ucla-001", "--mode", "knn")
    assert json.loads(saved.read_text())["protocol"] == "xview"


@pytest.mark.usefixtures("inside")
@pytest.mark.parametrize(("closed", "code"), [(">&-", 0), ("2>&-", 0), (">/dev/full", 1)])
def test_an_output_that_takes_nothing_is_no_traceback(closed: str, code: int) -> None:
    command = shlex.join([sys.executable, cli.__file__, "inspect"])
    for arguments in ("shards/ucla", "--help"):
        done = subprocess.run(f"{command} {arguments} {closed}", shell=True, capture_output=True, text=True)
        assert done.returncode == code
        assert "Traceback" not in done.stderr


def test_shards_that_were_moved_are_asked_for(inside: Path, tmp_path: Path) -> None:
    """Nothing is lost: they are somewhere else."""
    shutil.copytree(inside / "runs/ucla-001", tmp_path / "moved")
    run = str(tmp_path / "moved")
    (tmp_path / "moved/run.json").write_text(json.dumps({"shards": str(tmp_path / "old"), "manifest": "x"}))
    for command in (["eval", "--run", run], ["encode", "--run", run], ["train", "--resume", run]):
        said = fails(2, *command)
        assert f"{tmp_path}/old: no such folder" in said
        assert said.endswith(f"{run} was trained on them: say where they are, by --shards")
    (tmp_path / "moved/run.json").write_text("{")
    assert fails(2, "eval", "--run", run).endswith("; name its shards by --shards")
    assert "trained encoder" in works("eval", "--mode", "knn", "--run", run, "--shards", "shards/ucla")


def test_a_change_that_decides_nothing_is_told(inside: Path) -> None:
    """Units of a network that this recipe does not have: the run would be taken for another one."""
    changes = ["--set", "model.recurrent.hidden=9", "--set", "lr=2e-4"]
    told = call("train", "--name", "told", "--shards", "shards/ucla", *TINY, *changes).stderr
    assert [line for line in told.splitlines() if line.startswith("note: ")] == [
        "note: model.recurrent.hidden decides nothing here: no part of what is trained has a use for it"
    ]
    shutil.rmtree(inside / "runs/told")


def test_scores_are_shown_where_they_cannot_be_kept(inside: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Minutes of work, of a run in somebody else's folder."""

    def refuse(path: Path, *_: object, **__: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    shutil.copytree(
        inside / "runs/ucla-001", inside / "runs/theirs", ignore=shutil.ignore_patterns("features", "results")
    )
    monkeypatch.setattr("model.kept.published", refuse)
    monkeypatch.setattr("model.evaluation_file.publish_bytes", refuse)
    result = call("eval", "--mode", "knn", "--run", "theirs")
    assert result.exit_code == 2
    assert "trained encoder" in result.stdout
    assert result.stderr.splitlines()[-1].endswith("eval-ucla-xview.json: Permission denied")
    shutil.rmtree(inside / "runs/theirs")


def test_a_run_that_cannot_be_written_to_says_so_in_a_line(
    inside: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    works("train", "--name", "short", "--shards", *TINY)
    (inside / "runs/short/checkpoints").rename(inside / "runs/short/kept")
    monkeypatch.setattr("os.access", lambda *_: False)
    said = fails(2, "train", "--resume", "short")
    assert said == "Error: runs/short: cannot be written: Permission denied"
    (inside / "runs/short/kept").rename(inside / "runs/short/checkpoints")
    assert "short" in works("train", "--resume", "short")  # nothing is left to be done there
    shutil.rmtree(inside / "runs/short")


def test_actions_without_a_class_are_told(inside: Path, tmp_path: Path) -> None:
    """They are left out, and the others may be called by the wrong names."""
    spec = tmp_path / "nine.toml"
    text = Path(load_spec.__code__.co_filename).with_name("ucla.toml").read_text()
    text = text.replace('name = "ucla"', 'name = "nine"')
    spec.write_text(text.replace("actions = [1, 2, 3,", "actions = [1, 2, 17,"))
    command = ["preprocess", str(spec), str(inside / "raw"), "--frames", "16", "--out", str(tmp_path / "out")]
    result = call(*command)
    assert result.exit_code == 0
    assert (
        "note: recordings of action 3, for which nine has no class, left out: 6 (first: a03_" in result.stderr
    )
    spec.write_text(
        text.replace("actions = [1, 2, 3, 4, 5, 6, 8, 9, 11, 12]", f"actions = {[*range(20, 30)]}")
    )
    said = fails(2, *command, "--overwrite")
    assert "recordings: 60, none of nine (first: a01_" in said
    assert "recordings of action 1, 2, 3 to 12, for which nine has no class, left out: 60 " in said


def test_an_archive_that_is_not_searched_is_told(inside: Path, tmp_path: Path) -> None:
    """A whole data set may lie in it."""
    shutil.copytree(inside / "raw", tmp_path / "raw")
    (tmp_path / "raw/nw-ucla.tar.xz").write_bytes(b"")
    result = call(
        "preprocess", "ucla", str(tmp_path / "raw"), "--frames", "16", "--out", str(tmp_path / "out")
    )
    assert result.exit_code == 0
    assert (
        "note: archives not searched, as they are no zip or lie in one: 1 (first: nw-ucla.tar.xz)"
        in result.stderr
    )


def test_before_anything_was_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert "run preprocess first" in fails(2, "train", "--shards")
    assert "run train first" in fails(2, "eval")


def test_synthesize_counts_recordings_whatever_the_number_of_files(tmp_path: Path) -> None:
    printed = works("synthesize", "ucla", str(tmp_path / "raw"), "--samples", "3", "--layout", "text")
    assert f"{tmp_path}/raw: 3 recordings of " in printed


@pytest.mark.usefixtures("inside")
def test_what_to_type_next_can_be_typed(tmp_path: Path) -> None:
    """A folder with a blank in its name would be taken for two."""
    printed = works("synthesize", "ucla", str(tmp_path / "my raw"), "--samples", "2")
    assert shlex.split(printed.splitlines()[-1])[-2:] == ["ucla", str(tmp_path / "my raw")]


@pytest.mark.parametrize(("called", "program"), [("cpstn", "cpstn"), ("cli.py", "python cli.py")])
def test_a_report_names_commands_as_the_program_was_called(tmp_path: Path, called: str, program: str) -> None:
    """Whoever has it installed has no cli.py."""
    (tmp_path / "run.json").write_text("{}")
    result = CliRunner().invoke(main, ["report", str(tmp_path)], prog_name=called)
    assert result.stderr.endswith(f"evaluate a run first: {program} eval --run {tmp_path}\n")


def test_strict_is_a_failure(tmp_path: Path) -> None:
    raw = tmp_path / "raw"
    works("synthesize", "ucla", str(raw), "--samples", "12")
    (raw / "a01_s01_e09_v01.json").write_text('{"skeletons": [[')
    assert "1 recordings could not be read" in fails(
        1, "preprocess", "ucla", str(raw), "--strict", "--out", str(tmp_path / "out")
    )
    printed = works("preprocess", "ucla", str(raw), "--out", str(tmp_path / "out"))
    assert "rejected" in printed
    assert "rejects.csv" in printed


def test_resume_of_a_finished_run_trains_nothing_more(inside: Path) -> None:
    def contents() -> dict[str, bytes]:
        folder = inside / "runs/ucla-001/checkpoints"
        return {path.name: path.read_bytes() for path in folder.iterdir()}

    before = contents()
    works("train", "--resume", "runs/ucla-001")
    assert contents() == before


@pytest.mark.parametrize(
    "command",
    [
        "preprocess",
        "inspect",
        "verify",
        "synthesize",
        "train",
        "eval",
        "encode",
        "ablate",
        "draw",
        "view",
        "report",
    ],
)
def test_every_command_explains_itself(command: str) -> None:
    assert "Usage:" in works(command, "--help")
    assert command in works("--help")


class AskedError(ValueError):
    """In place of the work: what was asked of the library."""


def asked_of(
    monkeypatch: pytest.MonkeyPatch, function: str, *command: str
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The arguments with which a command calls a function of the library."""
    calls: list[tuple[tuple[Any, ...], dict[str, Any]]] = []

    def ask(*arguments: Any, **options: Any) -> None:
        calls.append((arguments, options))
        raise AskedError

    monkeypatch.setattr(function, ask)
    assert call(*command).exit_code == 2
    return calls[0]


@pytest.mark.usefixtures("inside")
def test_eval_asks_what_it_was_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """An option that went nowhere would leave the table of another question."""
    shutil.copytree("runs/ucla-001", "runs/beside")
    options = (
        "--mode",
        "linear, knn",
        "--label-fraction",
        "0.5,1",
        "--seeds",
        "3",
        "--whiten",
        "--fuse",
        "beside",
    )
    (_, _, question), more = asked_of(
        monkeypatch, "model.evaluate.evaluate", "eval", "--run", "ucla-001", *options
    )
    shutil.rmtree("runs/beside")
    assert (question.modes, question.fractions) == (("linear", "knn"), (0.5, 1.0))
    assert (question.seeds, question.whiten) == (3, True)
    assert list(more["fuse"]) == ["beside"]
    assert more["keep"].folder == Path("runs/ucla-001")


def test_preprocess_and_synthesize_ask_what_they_were_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shards of other settings would bear the name of those that were asked for."""
    off = ("--no-stitch", "--no-denoise", "--no-centre", "--no-align", "--keep-missing", "--overwrite")
    numbers = ("--frames=9", "--max-bodies=3", "--min-frames=2", "--shard-samples=7")
    words = ("--resample=pad", "--gaps=interpolate", "--format=both")
    command = ("preprocess", "ucla", "raw", *off, *numbers, *words)
    (_, _, _, config), more = asked_of(monkeypatch, "pipeline.preprocess.prepare", *command)
    steps = dict.fromkeys(("stitch", "denoise", "centre", "align"), False)
    normalising = NormalizeConfig(frames=9, resample="pad", gaps="interpolate", max_bodies=3, **steps)
    assert config == PreprocessConfig(normalising, "both", 2, True, 7)
    assert more["overwrite"]
    options = ("--samples=3", "--seed=5", "--oddities=0.2", "--layout=text")
    _, more = asked_of(monkeypatch, "pipeline.raw.synthetic.synthesize", "synthesize", "ucla", "x", *options)
    assert (more["seed"], more["oddities"], more["layout"]) == (5, 0.2, "text")


@pytest.mark.usefixtures("inside")
def test_train_asks_what_it_was_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """A checkpoint that was to be kept is gone for good; an option comes after --set of the same key."""
    options = ("--keep", "7", "--save-minutes", "0.5", "--threads", "3", "--name", "asked")
    changes = ("--set", "objective=cpstn", "--objective", "supervised")
    (_, recipe, run), more = asked_of(monkeypatch, "model.train.train", "train", *options, *changes)
    shutil.rmtree(run.folder)
    assert (more["keep"], more["save_minutes"], more["threads"], more["resume"]) == (7, 0.5, 3, False)
    assert recipe == load_recipe("compact", ("objective=supervised",))


@pytest.mark.usefixtures("inside")
@pytest.mark.parametrize("command", [("draw", "shards/ucla", "x.png"), ("view", "shards/ucla", "--no-open")])
def test_another_seed_gives_other_views(monkeypatch: pytest.MonkeyPatch, command: tuple[str, ...]) -> None:
    """Whoever asks for another one would believe that views hardly differ."""
    function = {"draw": "model.draw.draw_sample", "view": "model.report.scene.scene_of"}[command[0]]
    arguments, more = asked_of(monkeypatch, function, *command, "--seed", "5")
    assert more.get("seed", arguments[-1]) == 5


@pytest.mark.usefixtures("inside")
def test_another_python_than_the_one_that_was_set_up_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)
    monkeypatch.delitem(sys.modules, "pipeline.store.shards")
    told = fails(2, "inspect", "shards/ucla")
    assert told.endswith("has no pandas: run `make setup`, then `source .venv/bin/activate`")
    assert sys.executable in told

    def not_installed(_: str) -> str:
        raise importlib.metadata.PackageNotFoundError

    monkeypatch.setattr(importlib.metadata, "version", not_installed)
    assert "has no cpstn: run `make setup`" in fails(2, "--version")
