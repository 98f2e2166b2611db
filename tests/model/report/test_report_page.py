"""The page as text: what stands in it, what it says of what is missing, what never gets into it."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch

from model.recipe import load_recipe
from model.report.page import write_report
from model.run import Run
from model.train import train
from pipeline.store.shards import Shards
from tests.model.conftest import TINY
from tests.model.report.made_up import evaluation_table, made_from, score_table, write_evaluation, write_run


def report(runs: list[Run], tmp_path: Path, **options: object) -> str:
    path = write_report(runs, tmp_path / "out" / "page.html", **options)  # type: ignore[arg-type]
    return path.read_text(encoding="utf-8")


def simple(scores: list[dict[str, Any]] | None = None, **changes: Any) -> dict[str, Any]:
    """An evaluation that costs one picture only."""
    return evaluation_table(scores or [score_table()], **changes)


def test_everything_is_there(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for section in ("glance", "runs", "curves", "accuracy", "fractions", "confusion", "classes", "features",
                    "player"):  # fmt: skip
        assert f'<h2 id="{section}">' in text
        assert f'<a href="#{section}">' in text
    names = {path.name.removeprefix("report-") for path in page.parent.glob("*.png")}
    assert names == {
        "curves.png",
        "fractions-ucla-xview3.png",
        "confusion-ucla-xview3-first.png",
        "confusion-ucla-xview3-second.png",
        "gains-ucla-xview3-second.png",
        "features-first.png",
    }
    assert text.count("data:image/png;base64,") == len(names)
    assert "second</strong> saw 17 of the" in " ".join(text.split())


def test_the_page_asks_nothing_of_a_network(page: Path) -> None:
    text = re.sub(r"data:[\w/;+,=-]*", "", page.read_text(encoding="utf-8"))
    assert not re.search(r"https?:|//[a-z]+\.|@import|url\(", text)
    assert "default-src 'none'" in text


def test_recipes_are_compared_where_they_differ(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    table = text[text.index("Where the recipes differ") : text.index("<details>")]
    keys = re.findall(r"<code>(.*?)</code>", table)
    assert "lr" in keys
    assert "model.encoder.widths" in keys
    assert "temperature" not in keys


def test_what_a_recipe_has_no_use_for_is_no_difference(tmp_path: Path) -> None:
    """Two baselines differ in a dozen keys that decide nothing of either, and in a few that do."""
    changes = {
        "graph": ("model.recurrent.hidden=8", "view.shear=0.5"),
        "gru": ("model.backbone=gru", "spatial_weight=0", "temporal_weight=0", "model.encoder.kernel=3"),
        "wide": ("model.backbone=gru", "spatial_weight=0", "temporal_weight=0", "model.recurrent.hidden=9"),
    }
    runs = [write_run(tmp_path / name, simple(), changes=some, steps=1) for name, some in changes.items()]
    rows = dict(re.findall(r"<code>([\w.]+)</code></th>((?:<td>[^<]*</td>){3})", report(runs, tmp_path)))
    assert rows["model.recurrent.hidden"] == "<td></td><td>256</td><td>9</td>"
    assert rows["view.shear"] == "<td>0.5</td><td>1</td><td>1</td>"
    assert "model.encoder.kernel" not in rows


def test_the_protocol_that_a_recipe_leaves_open_is_named(tmp_path: Path) -> None:
    runs = [write_run(tmp_path / name, simple(), changes=changes, steps=1)
            for name, changes in (("open", ()), ("named", ("protocol=xview1",)))]  # fmt: skip
    rows = re.findall(r"<code>protocol</code></th><td>(.*?)</td><td>(.*?)</td>", report(runs, tmp_path))
    assert rows == [("xview", "xview1")]
    same = write_run(tmp_path / "same", simple(), changes=("protocol=xview",), steps=1)
    assert "Their recipes do not differ" in report([runs[0], same], tmp_path)
    other = write_run(tmp_path / "other", simple(pretrained_on="mine"), steps=1)
    assert "<code>protocol</code></th><td>the data set&#39;s default</td>" in report([other], tmp_path)


def test_a_data_set_has_one_name(tmp_path: Path) -> None:
    """The heading of a table says of what it is."""
    text = report([write_run(tmp_path / "run", simple(), steps=1)], tmp_path)
    assert "<td>Northwestern-UCLA</td>" in text
    assert "<td>ucla</td>" not in text
    assert not re.search(r"<caption><span>[^<]*Northwestern-UCLA", text)
    other = report([write_run(tmp_path / "other", simple(pretrained_on="ntu120"), steps=1)], tmp_path)
    assert "<td>NTU RGB+D 120 (transfer)</td>" in other


def test_the_shards_of_every_run_are_named_and_differences_said(tmp_path: Path, trained_run: Run) -> None:
    runs = []
    for name, shards in (
        ("here", {"name": "ucla", "frames": 200}),
        ("there", {"name": "raw", "frames": 200}),
    ):
        run = write_run(tmp_path / name, steps=1)
        write_evaluation(run, simple(made_from=made_from({}, shards=name), shards=shards))
        runs.append(run)
    text = report(runs, tmp_path)
    assert '<td class="whole">ucla</td><td class="number">200</td>' in text
    assert '<td class="whole">raw</td><td class="number">200</td>' in text
    assert "here was evaluated on the shards ucla, there on raw: their baselines may" in text
    assert "their baselines" not in report([trained_run], tmp_path)


def test_details_are_of_the_classifier_of_the_headline(page: Path) -> None:
    """Asking for fewer labels as well does not change what the confusions are of."""
    text = " ".join(page.read_text(encoding="utf-8").split())
    words = "Of the linear classifier on the trained encoder, with all 1,020 labels; top-1 75.1 % (first), "
    assert text.count(f'<p class="quiet">{words}78.3 % (second).</p>') == 2
    assert "Accuracy of each class: second minus first." in text


def test_what_names_of_features_hold_is_explained_beside_the_table(tmp_path: Path) -> None:
    scores = [score_table(), score_table(features="trained encoder and input statistics, whitened")]
    text = report([write_run(tmp_path / "run", simple(scores), steps=1)], tmp_path)
    assert "<em>whitened</em>: what only tells changed copies of a recording apart" in text
    assert "<em>raw coordinates</em>" not in text
    assert "<em>" not in report([write_run(tmp_path / "plain", simple(), steps=1)], tmp_path)


def test_few_labels_stand_as_the_share_that_they_are(tmp_path: Path) -> None:
    few = score_table(fraction=0.1) | {"labels": 60}
    text = report([write_run(tmp_path / "run", simple([few], train_samples=177), steps=1)], tmp_path)
    assert '<td class="number">60</td><td class="number">33.9 %</td>' in text
    assert "linear, trained encoder, 33.9 % of the labels" in text


def test_the_same_runs_give_the_same_page(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", simple(), steps=2)
    first = report([run], tmp_path)
    assert report([run, Run(run.folder)], tmp_path) == first


def test_what_a_run_lacks_is_said_with_the_command_that_makes_it(tmp_path: Path) -> None:
    bare = Run(tmp_path / "not evaluated")
    bare.folder.mkdir()
    old = write_run(tmp_path / "old", simple() | {"version": 1}, steps=2)
    (old.folder / "recipe.toml").write_text("= [")
    unfinished = write_run(tmp_path / "unfinished", steps=2)
    write_evaluation(unfinished, simple(made_from=made_from({}, step=7)))
    told: list[str] = []
    text = report([bare, old, unfinished], tmp_path, program="python ../cli.py", on_note=told.append)
    text = " ".join(text.split()).replace('<code class="command">', "<code>")
    missing = text[text.index('aria-labelledby="missing"') :]
    for words in (
        "not evaluated</strong>: it has not been evaluated. <code>python ../cli.py eval --run &#39;",
        "not evaluated</strong>: it has no checkpoint. <code>python ../cli.py train --resume &#39;",
        "not evaluated</strong>: its folder holds no logs for TensorBoard",
        "not evaluated</strong>: its recipe.toml cannot be read",
        "an evaluation of version 1; expected 5. <code",
        "old</strong>: its recipe.toml cannot be read",
        "unfinished</strong>: it was evaluated before its end, at step 7 of 40. <code",
    ):
        assert words in missing, words
    assert f"not evaluated: it has not been evaluated; python ../cli.py eval --run '{bare.folder}'" in told
    assert "old: its recipe.toml cannot be read" in told
    assert len(told) == missing.count("</strong>: ")


def test_no_run_with_an_evaluation_is_an_error_that_names_the_command(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", steps=1)
    with pytest.raises(ValueError, match=r"run: it has not been evaluated.* first: cpstn eval --run .*run"):
        report([run], tmp_path)
    write_evaluation(run, evaluation_table()).write_text("{")
    with pytest.raises(ValueError, match=r"eval-ucla-xview3\.json: damaged: not an evaluation"):
        report([run], tmp_path)
    assert not (tmp_path / "out").exists()


def test_an_outdated_evaluation_is_said(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", simple(), steps=1)
    for name in ("step-00000050.pt", "step-of-mine.pt"):
        path = run.folder / "checkpoints" / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"damaged")
    text = report([run], tmp_path)
    assert "was evaluated at step 40, before its newest checkpoint, of step 50" in text
    assert "no features and no player" in text
    assert 'id="features"' not in text


def test_copies_of_training_samples_are_named(tmp_path: Path) -> None:
    """NW-UCLA as it is distributed: to remember a fifth of the test samples is enough."""
    others = {"mean": 0.6543, "deviation": None, "by_seed": [0.6543]}
    score = score_table() | {"top1_without_copies": others}
    text = report([write_run(tmp_path / "run", simple([score], copied=21))], tmp_path)
    assert "21 of the 464 test samples" in " ".join(text.split())
    assert "65.4 % without copies" in text
    assert ">without copies</th>" in text
    assert "65.4</td>" in text
    assert "a classifier that memorises gets them right" in " ".join(text.split())
    assert "<small>p" not in text
    assert "without copies" not in report([write_run(tmp_path / "plain", simple())], tmp_path)


def test_every_run_has_its_own_counts(tmp_path: Path) -> None:
    """Of runs on other samples, those of the first are not everybody's."""
    others = {"mean": 0.6543, "deviation": None, "by_seed": [0.6543]}
    less = score_table() | {"labels": 900, "top1_without_copies": others}
    less["confusion"][0][0] += 3
    counts = {"train_samples": 900, "test_samples": 400, "copied": 95}
    runs = [
        write_run(tmp_path / "a", simple(), steps=1),
        write_run(tmp_path / "b", simple([less], **counts), steps=1),
    ]
    text = " ".join(report(runs, tmp_path).split())
    assert "1,020 training and 464 test samples for a; 900 training and 400 test samples for b" in text
    assert "On Northwestern-UCLA, xview3, 95 of the 400 test samples for b hold the very numbers" in text
    assert "The 400 test samples for b are a part of Northwestern-UCLA, xview3" in text
    compared, of_a, of_b = re.findall(r'<table class="accuracies.*?</table>', text)
    columns = [table.count(">without copies</th>") for table in (compared, of_a, of_b)]
    labels = [re.findall(r'<td class="number">([\d,]+)</td><td class="number">100 %', table)
              for table in (compared, of_a, of_b)]  # fmt: skip
    assert columns == [2, 0, 1]
    assert labels == [["1,020", "900"], ["1,020"], ["900"]]
    classes = text[text.index('<table class="classes">') :]
    assert re.findall(r'</th><td class="number">([^<]+)</td>', classes)[:2] == ["9 / 12", "10"]


def test_figures_on_a_part_of_a_split_are_not_set_beside_the_papers(tmp_path: Path) -> None:
    """Ten actions of NTU-60, or the demo, are easier: a lead over the paper there would be none."""
    text = report([write_run(tmp_path / "run", simple(test_samples=177))], tmp_path)
    assert "The 177 test samples are a part of Northwestern-UCLA, xview3" in " ".join(text.split())
    assert '<th scope="row">paper, Table 1</th>' not in text
    assert text.count("85.12</td>") == 1  # in the paper's own table
    for test_samples in (464, 462):  # without those of fewer than seven frames, as the paper
        whole = report([write_run(tmp_path / f"{test_samples}", simple(test_samples=test_samples))], tmp_path)
        assert '<th scope="row">paper, Table 1</th>' in whole
        assert "are a part of" not in whole


def test_statistics_with_distances_stand_beside_an_encoder_that_sees_them(tmp_path: Path) -> None:
    scores = [score_table(), score_table(features="input statistics, with distances", by_seed=(0.6,))]
    text = report([write_run(tmp_path / "run", simple(scores))], tmp_path)
    assert '<th scope="row">input statistics, with distances</th><td>60.0</td>' in text


def test_a_gain_over_the_untrained_encoder_has_its_p_value(tmp_path: Path) -> None:
    trained = score_table() | {"versus_untrained": {"won": 9, "lost": 4, "p": 0.2668}}
    scores = [trained, score_table(features="untrained encoder", by_seed=(0.7,))]
    text = report([write_run(tmp_path / "run", simple(scores))], tmp_path)
    assert '<td class="difference level">+5.0 <small>p&nbsp;0.27</small></td>' in text
    assert "McNemar" in text
    assert "McNemar" not in report([write_run(tmp_path / "plain", simple())], tmp_path)


@pytest.mark.parametrize(
    ("mode", "features", "fraction", "expected"),
    [
        ("linear", "trained encoder", 1, [("untrained encoder", "60.0"), ("paper, Table 1", "85.12")]),
        ("linear", "trained encoder", 0.1, [("input statistics", "80.0")]),
        ("supervised", "encoder and linear layer", 0.1, [("input statistics", "80.0")]),
        ("semi", "trained encoder", 0.1, []),
        ("finetune", "trained encoder", 1, []),
    ],
)
def test_a_card_sets_like_beside_like(
    tmp_path: Path, mode: str, features: str, fraction: float, expected: list[tuple[str, str]]
) -> None:
    """Fine-tuned on a tenth of the labels beside frozen on all would make a gain of nothing."""
    scores = [
        score_table(mode, features, by_seed=(0.7,), fraction=fraction),
        score_table(features="untrained encoder", by_seed=(0.6,)),
        score_table(features="input statistics", by_seed=(0.8,), fraction=0.1),
    ]
    text = report([write_run(tmp_path / "run", simple(scores))], tmp_path)
    cards = text[text.index('<div class="card">') : text.index('<h2 id="runs">')]
    assert "70.0" in cards
    assert re.findall(r'<th scope="row">(.*?)</th><td>(.*?)</td>', cards) == expected


@pytest.mark.parametrize(
    ("untrained", "p", "standing"),
    [(0.7, 0.049, "ahead"), (0.8, 0.049, "behind"), (0.7, 0.05, "level"), (0.8, 1.0, "level")],
)
def test_a_difference_is_coloured_where_it_is_more_than_chance(
    tmp_path: Path, untrained: float, p: float, standing: str
) -> None:
    trained = score_table() | {"versus_untrained": {"won": 9, "lost": 4, "p": p}}
    others = [score_table(features=name, by_seed=(untrained,))
              for name in ("untrained encoder", "input statistics")]  # fmt: skip
    text = report([write_run(tmp_path / "run", simple([trained, *others]))], tmp_path)
    expected = [standing, "level", "level"]  # of the untrained, statistics and the paper
    assert re.findall(r'<td class="difference (\w+)">', text) == expected


def test_names_cannot_break_out_of_the_page(tmp_path: Path) -> None:
    evil = "</td><script>alert(1)</script>"
    classes = [evil, *(f"class {number}" for number in range(9))]
    run = write_run(tmp_path / "<b>&run", simple([score_table(features=evil)], classes=classes), steps=1)
    text = report([run], tmp_path)
    assert "<script>alert" not in text
    assert "<b>&run" not in text
    assert "&lt;b&gt;&amp;run" in text


def test_runs_of_one_name_are_told_apart(tmp_path: Path) -> None:
    runs = [write_run(tmp_path / parent / "run", simple(), steps=1) for parent in ("a", "b")]
    text = report(runs, tmp_path)
    assert f"{tmp_path.as_posix()}/a/run" in text
    assert len(list((tmp_path / "out").glob("page-confusion-*.png"))) == 2


def test_two_names_of_one_split_are_one_table(tmp_path: Path) -> None:
    runs = [
        write_run(tmp_path / protocol, simple(protocol=protocol), steps=1)
        for protocol in ("xview", "xview3", "xview1")
    ]
    text = report(runs, tmp_path)
    assert text.count('<table class="accuracies compared">') == 1
    assert text.count('<table class="accuracies">') == 2 + 1  # all measures of two runs, and the third one
    assert text.count("85.12</td>") == 1 + 1 + 2  # in the column, in the paper's table, on two cards


def test_one_run_under_two_names_of_a_split_shows_all_its_rows(tmp_path: Path) -> None:
    """What was measured under the one name would be gone because of the other."""
    run = write_run(tmp_path / "run", simple(protocol="xview"), steps=1)
    write_evaluation(run, simple(protocol="xview3"))
    assert report([run], tmp_path).count('<table class="accuracies">') == 2


def test_another_data_sets_paper_curve_is_said_to_be_one(tmp_path: Path, page: Path) -> None:
    assert "another data set, shown for the shape" in page.read_text(encoding="utf-8")
    classes = [f"action {number}" for number in range(10)]
    evaluation = evaluation_table(dataset="ntu120", protocol="xsub", title="NTU RGB+D 120", classes=classes)
    text = report([write_run(tmp_path / "run", evaluation, steps=1)], tmp_path)
    assert "another data set" not in text
    assert "The paper, Table 4" in text
    assert '<td class="number">89.0</td>' in text


def test_a_sample_that_is_not_there_is_an_error(tmp_path: Path, trained_run: Run, shards: Shards) -> None:
    with pytest.raises(ValueError, match="no sample 'nobody'"):
        report([trained_run], tmp_path, shards=shards, sample="nobody")


def test_a_sample_that_the_first_run_cannot_show_is_an_error(
    tmp_path: Path, trained_run: Run, other_run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The page would be of another sample, or of none, and nothing would say so."""
    stages: list[str] = []
    with pytest.raises(
        ValueError, match=r"--sample nobody: .* second has none \(it has no checkpoint\); name"
    ):
        report([other_run, trained_run], tmp_path, sample="nobody", on_stage=stages.append)
    report([other_run, trained_run], tmp_path, on_stage=stages.append)
    assert "a sample in 3D" not in stages

    def too_short(*_: object, **__: object) -> None:
        raise ValueError("too short for a masked tail")

    monkeypatch.setattr("model.report.page.scene_of", too_short)
    with pytest.raises(ValueError, match="too short for"):
        report([trained_run], tmp_path, sample="a01")
    assert "no player: too short for a masked tail" in report([trained_run], tmp_path)


def test_the_page_says_whether_anything_is_rebuilt(tmp_path: Path, page: Path, shards: Shards) -> None:
    """Two augmented views would be taken for the decoders' work."""
    assert "and what first rebuilds from them" in page.read_text(encoding="utf-8")
    without = (*TINY, "spatial_weight=0", "temporal_weight=0")
    recipe, run = load_recipe("compact", without), Run(tmp_path / "contrast")
    run.create(recipe, shards.folder, shards.manifest.digest)
    train(shards, recipe, run, device=torch.device("cpu"))
    write_evaluation(run, simple())
    text = report([run], tmp_path)
    assert "two views of it by the recipe of contrast, which has no decoders that rebuild a view" in text
    assert "rebuilds" not in text


def same_weights(run: Run, folder: Path) -> Run:
    """Another run with the same checkpoint, without evaluations."""
    copy = Run(folder)
    copy.folder.mkdir()
    for name in ("recipe.toml", "run.json"):
        (copy.folder / name).write_bytes((run.folder / name).read_bytes())
    (copy.folder / "checkpoints").symlink_to(run.folder / "checkpoints")
    return copy


@pytest.mark.parametrize(
    ("evaluated", "shown"),
    [
        ({"xsub": "here", "xview1": "here", "xview3": "elsewhere"}, "xview3"),
        ({"xsub": "elsewhere", "xview1": "here"}, "xview1"),
        ({"xsub": "elsewhere", "xview1": "elsewhere"}, "xsub"),
    ],
)
def test_test_samples_are_those_of_the_runs_own_protocol(
    tmp_path: Path, trained_run: Run, shards: Shards, evaluated: dict[str, str], shown: str
) -> None:
    """By another one a run has been trained on some of them. `xview3` is the split of its own, `xview`."""
    run = same_weights(trained_run, tmp_path / "copy")
    for protocol, place in evaluated.items():
        digest = shards.manifest.digest if place == "here" else place
        write_evaluation(run, simple(protocol=protocol, made_from=made_from({}, shards=digest)))
    text = report([run], tmp_path)
    tested = shards.split(shown, "test")
    assert f"t-SNE of the features of {len(tested)} test samples by copy" in text
    assert f'aria-label="Player of {tested["key"].iloc[0]}:' in text


def test_a_run_that_was_not_evaluated_on_the_shards_gets_no_features(
    tmp_path: Path, trained_run: Run
) -> None:
    copy = same_weights(trained_run, tmp_path / "copy")
    write_evaluation(copy, simple(dataset="other", protocol="all", title="Other"))
    text = report([copy], tmp_path)
    assert "it has not been evaluated on Northwestern-UCLA" in text
    assert 'id="player"' not in text
