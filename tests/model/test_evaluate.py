"""The evaluation as a whole, on recordings whose classes differ: what must be found, what must not leak."""

import copy
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pytest
import torch
from numpy.testing import assert_array_equal
from torch import nn

from data_specs.read import load_spec
from model.batch_norm import FrameNorm
from model.bench import ENCODER_WEIGHT, whitened_features
from model.calibrate import calibrated
from model.checkpoint import Checkpoint, load_checkpoint, new_model
from model.classify import fit_chosen, fused_evaluation, linear_evaluation, nearest_neighbours
from model.evaluate import Evaluation, evaluate
from model.features import (
    FLOOR_STREAMS,
    Features,
    Pair,
    batch_norms,
    encoder_features,
    extract_features,
    statistics_extractor,
)
from model.finetune import finetune
from model.question import Question, labelled_sets, read_parts, usual_protocol
from model.recipe import FinetuneConfig, load_recipe
from model.run import Run
from model.scores import COORDINATES, INPUT_STATISTICS, MORE_STATISTICS, TRAINED, UNTRAINED, result_of_scores
from model.subset import write_subset
from model.supervised import head_scores, labelled_keys
from model.train import train
from model.whitening import fit_whitening, view_scatter
from pipeline.loader import sequential_batches
from pipeline.normalize import NormalizeConfig
from pipeline.preprocess import PreprocessConfig, prepare, run
from pipeline.raw.synthetic import synthesize
from pipeline.samples import split_samples
from pipeline.store.shards import Shards, open_shards

CPU = torch.device("cpu")
TINY = (
    "epochs=1",
    "batch_size=16",
    "model.encoder.widths=[4, 4, 4, 4, 8, 8]",
    "model.decoder.widths=[4, 4, 4, 4, 4]",
    "finetune.epochs=1",
)
EVERYTHING = Question(("linear", "knn", "semi", "finetune"), "xview", (0.5,), seeds=2)


@pytest.fixture(autouse=True)
def one_penalty(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is chosen from is tested with the classifiers."""
    monkeypatch.setattr("model.classify.PENALTIES", (1e-2,))


def trained_on(shards: Shards, folder: Path, *changes: str) -> Checkpoint:
    recipe, new = load_recipe("compact", (*TINY, *changes)), Run(folder / "run")
    new.create(recipe, shards.folder, shards.manifest.digest)
    train(shards, recipe, new, device=CPU)
    return load_checkpoint(new)


@pytest.fixture(scope="module")
def checkpoint(shards: Shards, tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    return trained_on(shards, tmp_path_factory.mktemp("runs"))


def tables(evaluation: Evaluation) -> list[dict[str, object]]:
    return [score.to_table(evaluation.copied_N) for score in evaluation.scores]


def test_every_row_is_there_and_repeats_exactly(
    shards: Shards, checkpoint: Checkpoint, tmp_path: Path
) -> None:
    kept = Run(tmp_path)
    results = [evaluate(shards, checkpoint, EVERYTHING, device=CPU, keep=kept) for _ in range(2)]
    assert tables(results[0]) == tables(results[1])
    assert tables(results[0]) == tables(evaluate(shards, checkpoint, EVERYTHING, device=CPU))  # anew
    all_of, half = results[0].train_samples, len(results[0].labelled[1].sets[0])
    frozen = (TRAINED, UNTRAINED, INPUT_STATISTICS, COORDINATES)
    expected: set[tuple[str, str, int | None, int]] = set()
    expected |= {("linear", name, None, labels) for name in frozen for labels in (all_of, half)}
    expected |= {("knn", name, k, labels) for name in frozen for labels in (all_of, half) for k in (1, 20)}
    expected |= {("semi", name, None, half) for name in (TRAINED, UNTRAINED)}
    expected |= {("finetune", name, None, n) for name in (TRAINED, UNTRAINED) for n in (all_of, half)}
    rows = {(score.mode, score.features, score.k, score.labels): score for score in results[0].scores}
    assert set(rows) == expected
    assert len(rows["linear", TRAINED, None, all_of].results) == 1  # nothing random in it
    assert len(rows["linear", TRAINED, None, half].results) == 2
    assert len(rows["finetune", TRAINED, None, all_of].results) == 2
    assert rows["linear", INPUT_STATISTICS, None, all_of].top1 > 0.5  # ten classes; the motions differ


def test_labels_of_test_samples_change_no_classifier(shards: Shards, checkpoint: Checkpoint) -> None:
    table = shards.table.copy()
    is_test = table["camera"] == 3
    table.loc[is_test, "label"] = (table.loc[is_test, "label"] + 1) % 10
    question = Question(("linear", "knn", "semi", "finetune"), "xview", (0.5,))
    plain = evaluate(shards, checkpoint, question, device=CPU)
    shifted = evaluate(replace(shards, table=table), checkpoint, question, device=CPU)
    for one, other in zip(plain.scores, shifted.scores, strict=True):
        assert_array_equal(np.roll(one.confusion, 1, axis=0), other.confusion)


def test_an_id_file_stands_for_its_fraction(shards: Shards, checkpoint: Checkpoint, tmp_path: Path) -> None:
    """A subset that was published must give the numbers that were published with it, and name it."""
    ask = partial(evaluate, shards, checkpoint, device=CPU, fuse={"itself": checkpoint})
    by_fraction = ask(Question(("linear", "knn"), "xview", (0.5,)))
    chosen = by_fraction.labelled[1].sets[0]
    write_subset(tmp_path / "ids.txt", [by_fraction.keys[index] for index in chosen], "half")
    by_file = ask(Question(("linear", "knn"), "xview", subsets=(tmp_path / "ids.txt",)))
    for one, other in zip(by_fraction.scores, by_file.scores, strict=True):
        assert (one.features, one.labels, one.top1) == (other.features, other.labels, other.top1)
        assert (one.subset, other.subset) == (None, "ids.txt" if one.label_fraction < 1 else None)


def test_fine_tuning_on_an_id_file_is_repeated(
    shards: Shards, checkpoint: Checkpoint, tmp_path: Path
) -> None:
    """--seeds says so, and a single fine-tuning has no spread."""
    keys = shards.split("xview", "train")["key"].tolist()
    write_subset(tmp_path / "ids.txt", keys[::2], "half")
    question = Question(("finetune",), "xview", subsets=(tmp_path / "ids.txt",), seeds=2)
    scores = evaluate(shards, checkpoint, question, device=CPU).scores
    assert {len(score.results) for score in scores} == {2}
    assert [score.subset for score in scores] == [None, None, "ids.txt", "ids.txt"]


def test_a_fine_tuned_row_is_of_its_own_encoder_labels_and_seeds(
    shards: Shards, checkpoint: Checkpoint
) -> None:
    """Another encoder's accuracy, or one seed's twice, would stand in a table like any other."""
    recipe = load_recipe("compact", (*TINY, "seed=5"))
    this = Checkpoint(checkpoint.content | {"recipe": recipe.to_table()})
    question = Question(("semi", "finetune"), "xview", (0.5,), seeds=2)
    stages, parts = list[str](), read_parts(shards, "xview")
    found = evaluate(shards, this, question, device=CPU, on_stage=stages.append)
    assert stages[-1].endswith(f"{UNTRAINED}, seed 1, epoch 1 of 1")
    rows = {(score.mode, score.features, score.label_fraction): score.results for score in found.scores}
    for name, is_trained in ((TRAINED, True), (UNTRAINED, False)):
        model = calibrated(this.build_model(trained=is_trained), parts.train, CPU)
        for labels, seed in product(found.labelled, (0, 1)):
            few = parts.train.take(labels.sets[seed % len(labels.sets)])
            tuned, head = finetune(model, few, parts.num_classes, recipe.finetune, CPU, 5 + seed)
            scores_NK = head_scores(tuned, head, parts.test, CPU)
            expected = {"finetune": result_of_scores(scores_NK, torch.tensor(parts.test.labels_N))}
            if labels.fraction < 1:
                train_on, test_on = (encoder_features(tuned, part, CPU) for part in (few, parts.test))
                expected["semi"] = linear_evaluation(train_on, test_on, parts.num_classes, [])
            for mode, result in expected.items():
                own = rows[mode, name, labels.fraction][seed]
                assert_array_equal(own.confusion_KK, result.confusion_KK, f"{mode}, {name}, {seed}")


def test_neighbours_are_those_whose_labels_are_shown(
    shards: Shards, checkpoint: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All training samples vote better than the few of a share; and 20 of them are not 5."""
    ask = partial(evaluate, shards, checkpoint, Question(("knn",), "xview", (0.2,)), device=CPU)
    parts, extractor = read_parts(shards, "xview"), statistics_extractor(shards.spec.skeleton)
    train_on, test_on = (extract_features(extractor, part, CPU) for part in (parts.train, parts.test))
    for numbers in ((1, 20), (1, 5)):
        monkeypatch.setattr("model.modes.NEIGHBOURS", numbers)
        found = ask(keep=Run(tmp_path))
        for labels in found.labelled:
            shown = train_on.take(labels.sets[0])
            expected = nearest_neighbours(shown, test_on, parts.num_classes, numbers)
            for k, result in zip(numbers, expected, strict=True):
                rows = {(score.features, score.k, score.labels): score for score in found.scores}
                (score,) = rows[INPUT_STATISTICS, k, len(shown.labels_N)].results
                assert_array_equal(score.hit_N, result.hit_N)


def test_penalties_are_chosen_by_the_performances_of_the_samples_whose_labels_are_shown(
    shards: Shards, checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By those of others one performance would stand on both sides, and the weakest penalty would win."""
    given: list[tuple[list[int], list[str]]] = []

    def one(train_on: Features, *rest: Any) -> Any:
        given.append((train_on.labels_N.tolist(), rest[-1]))
        return linear_evaluation(train_on, *rest)

    def fused(pairs: Sequence[Pair], *rest: Any) -> Any:
        given.append((pairs[0][0].labels_N.tolist(), rest[-1]))
        return fused_evaluation(pairs, *rest)

    monkeypatch.setattr("model.modes.linear_evaluation", one)
    monkeypatch.setattr("model.modes.fused_evaluation", fused)
    question = Question(("linear", "semi"), "xview", (0.5,))
    result = evaluate(shards, checkpoint, question, device=CPU, fuse={"itself": checkpoint})
    parts, expected = read_parts(shards, "xview"), []
    for labels in result.labelled:
        chosen = labels.sets[0]
        performances = [parts.performances[index] for index in chosen]
        expected.append((parts.train.labels_N[chosen].tolist(), performances))
    assert given == expected * 6 + expected[1:] * 2  # four features alone, two fused; two fine-tuned on half


def test_fine_tuning_moves_a_copy_of_the_encoder(shards: Shards, checkpoint: Checkpoint) -> None:
    model = checkpoint.build_model()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    samples = split_samples(shards, "xview", "train").take(np.arange(12))
    tuned, head = finetune(model, samples, 10, checkpoint.recipe().finetune, CPU, seed=0)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert not torch.equal(
        next(tuned.encoder.parameters()).detach(), next(model.encoder.parameters()).detach()
    )
    assert head.out_features == 10
    again, _ = finetune(model, samples, 10, checkpoint.recipe().finetune, CPU, seed=0)
    other, _ = finetune(model, samples, 10, checkpoint.recipe().finetune, CPU, seed=1)
    weights = [next(one.encoder.parameters()) for one in (tuned, again, other)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


def test_fine_tuning_is_a_plain_loop_with_a_falling_rate(shards: Shards, checkpoint: Checkpoint) -> None:
    """Written out once more. That its accuracy repeats is no sign that it was trained as the paper's is."""
    model = checkpoint.build_model().eval()  # as an evaluation has it
    samples = split_samples(shards, "xview", "train").take(np.arange(12))
    config = FinetuneConfig(epochs=2, batch_size=5, lr=1e-2, schedule="linear")
    tuned, head = finetune(model, samples, 10, config, CPU, seed=3)
    torch.manual_seed(3)
    twin, twin_head = copy.deepcopy(model).train(), nn.Linear(model.representation_size, 10)
    optimiser = torch.optim.Adam([*twin.encoder.parameters(), *twin_head.parameters()])
    random, step = np.random.default_rng(3), 0
    for _ in range(2):
        shuffled = samples.take(random.permutation(12))
        for batch in sequential_batches(shuffled, 5):
            optimiser.param_groups[0]["lr"] = 1e-2 * (1 - step / 6)
            optimiser.zero_grad()
            q_PCtV = twin.encode(batch.original_PCTV)
            scores_NK = twin_head(twin.represent(q_PCtV, batch.sample_P, batch.num_samples))
            nn.functional.cross_entropy(scores_NK, batch.labels_N).backward()
            optimiser.step()
            step += 1
    assert step == 6
    for one, other in ((tuned, twin), (head, twin_head)):
        for name, value in other.state_dict().items():
            torch.testing.assert_close(one.state_dict()[name], value, msg=name)
    assert not tuned.training


def test_fused_runs_are_the_mean_of_their_probabilities(
    shards: Shards, checkpoint: Checkpoint, tmp_path: Path
) -> None:
    """Two streams fused must be both, each with a classifier of its own, on the same labels."""
    motion = 'model.streams=["motion"]', "model.decoder.output=metres"
    other = trained_on(shards, tmp_path, *motion, "seed=3", "lr=0.1")
    question = Question(("linear", "knn"), "xview", (0.5,))
    alone = evaluate(shards, checkpoint, question, device=CPU)
    both = evaluate(shards, checkpoint, question, device=CPU, fuse={"motion": other}, keep=Run(tmp_path))
    assert tables(both)[: len(alone.scores)] == tables(alone)
    assert tables(both) == tables(evaluate(shards, checkpoint, question, device=CPU, fuse={"motion": other}))
    fused = both.scores[len(alone.scores) :]
    assert [(score.mode, score.features, score.label_fraction) for score in fused] == [
        ("linear", f"{kind} encoders, fused with motion", share)
        for kind in ("trained", "untrained")
        for share in (1, 0.5)
    ]
    assert (fused[0].confusion != fused[2].confusion).any()  # trained and untrained
    parts = read_parts(shards, "xview")
    models = [calibrated(one.build_model(), parts.train, CPU) for one in (checkpoint, other)]
    streams = [
        tuple(encoder_features(model, part, CPU) for part in (parts.train, parts.test)) for model in models
    ]
    for row, labels in zip(fused[:2], both.labelled, strict=True):
        (chosen,) = labels.sets
        total_NK = torch.zeros(len(parts.test), parts.num_classes)
        for train_on, test_on in streams:
            shown = [parts.performances[index] for index in chosen]
            classifier = fit_chosen(train_on.take(chosen), parts.num_classes, shown)
            total_NK += classifier(test_on.x_ND).detach().softmax(1)
        assert_array_equal(row.results[0].hit_N, total_NK.argmax(1).numpy() == parts.test.labels_N)
        assert (row.labels, row.fused) == (len(chosen), ("motion",))
    another = evaluate(
        shards, checkpoint, question, device=CPU, fuse={"motion": checkpoint}, keep=Run(tmp_path)
    )
    itself = another.scores[len(alone.scores) :]
    assert itself[0].top1 == pytest.approx(alone.scores[0].top1)  # not what was kept of the other one


def test_an_encoder_that_sees_distances_stands_beside_their_statistics(
    shards: Shards, tmp_path: Path
) -> None:
    """Beside what had less to go by, it would look good for what it was given."""
    found = evaluate(
        shards,
        trained_on(shards, tmp_path, 'model.streams=["joint", "distance"]'),
        Question(("linear",), "xview", whiten=True),
        device=CPU,
    )
    rows = {score.features: score for score in found.scores}
    assert {MORE_STATISTICS, f"{MORE_STATISTICS}, whitened"} <= set(rows)
    parts = read_parts(shards, "xview")
    extractor = statistics_extractor(shards.spec.skeleton, (*FLOOR_STREAMS, "distance"))
    train_on, test_on = (extract_features(extractor, part, CPU) for part in (parts.train, parts.test))
    assert train_on.x_ND.shape[1] == 4 * 3 * 4 * 3 * shards.spec.skeleton.num_joints
    expected = linear_evaluation(train_on, test_on, parts.num_classes, parts.performances)
    assert_array_equal(rows[MORE_STATISTICS].results[0].hit_N, expected.hit_N)


def test_whitening_is_learnt_on_training_samples_and_its_scales_count(shards: Shards) -> None:
    """Fitted to what is tested, or standardised once more, a whitened row would be another method's."""
    parts = read_parts(shards, "xview")
    streams = {TRAINED: ("joint",), UNTRAINED: ("bone",), INPUT_STATISTICS: ("motion",)}
    extractors = {name: statistics_extractor(parts.train.skeleton, seen) for name, seen in streams.items()}
    features = {
        name: (extract_features(one, parts.train, CPU), extract_features(one, parts.test, CPU))
        for name, one in extractors.items()
    }
    asked: dict[str, Callable[[], Pair]] = {name: partial(features.__getitem__, name) for name in features}
    told: list[str] = []
    to_ask = whitened_features(extractors, asked, parts, CPU, told.append)
    assert not told  # nothing is done for what was measured before
    found = {name: ask() for name, ask in to_ask.items()}
    assert told == [f"scatter of the views: {name}" for name in streams]  # each once
    maps = {
        name: fit_whitening(features[name][0], view_scatter(one, parts.train, CPU))
        for name, one in extractors.items()
    }
    assert set(found) == {f"{name}, whitened" for name in streams} | {
        f"{name} and {INPUT_STATISTICS}, whitened" for name in (TRAINED, UNTRAINED)
    }
    for name, pair in found.items():
        first, _, joined = name.removesuffix(", whitened").partition(" and ")
        for part, whitened in enumerate(pair):
            expected_ND = maps[first].apply(features[first][part]).x_ND
            if joined:
                statistics_ND = maps[INPUT_STATISTICS].apply(features[INPUT_STATISTICS][part]).x_ND
                expected_ND = torch.cat([statistics_ND, ENCODER_WEIGHT * expected_ND], 1)
            torch.testing.assert_close(whitened.x_ND, expected_ND, msg=name)
            assert whitened.scaled, name
            assert_array_equal(whitened.labels_N, (parts.train, parts.test)[part].labels_N)


def test_what_to_know_of_the_scores_is_said(shards: Shards, checkpoint: Checkpoint) -> None:
    """A run that was stopped early, and one that saw what is tested, look like any other in a table."""
    told: list[str] = []
    early = Checkpoint(checkpoint.content | {"step": 1})
    recipe = load_recipe("compact", (*TINY, "protocol=xview1")).to_table()
    strange = Checkpoint(checkpoint.content | {"manifest": "another", "recipe": recipe})
    question = Question(("linear",), "xview")
    result = evaluate(shards, early, question, device=CPU, fuse={"bone": strange}, on_note=told.append)
    assert told == [
        f"the run is unfinished, at step 1 of {checkpoint.steps}",
        f"bone was trained on other shards than the run; here it encodes {shards.location}",
        f"training saw {result.test_samples} of {result.test_samples} test samples, without their labels",
    ]
    told.clear()
    evaluate(shards, checkpoint, Question(("knn",), "xview"), device=CPU, on_note=told.append)
    assert told == []
    recipe = load_recipe("compact", (*TINY, "model.whitened=4")).to_table()
    whitened = Checkpoint(checkpoint.content | {"recipe": recipe})
    for whiten in (False, True):
        asked = Question(("knn",), "xview", whiten=whiten)
        evaluate(shards, whitened, asked, device=CPU, on_note=told.append)
        assert len(told) == whiten
    assert "whitened by its recipe" in told[0]


def test_a_fused_run_of_another_skeleton_is_refused(shards: Shards, checkpoint: Checkpoint) -> None:
    """It would be encoded by joints that are not its own."""
    content = checkpoint.content | {"spec": load_spec("ntu60").text}
    strange = replace(checkpoint, content=content)
    with pytest.raises(ValueError, match="strange was trained on ntu60 with 25"):
        evaluate(shards, checkpoint, Question(("linear",), "xview"), device=CPU, fuse={"strange": strange})
    with pytest.raises(ValueError, match="linear classifiers are what is fused; add linear to the modes"):
        evaluate(shards, checkpoint, Question(("knn",), "xview"), device=CPU, fuse={"other": checkpoint})


def test_what_was_calibrated_is_fine_tuned_as_any_other(shards: Shards, checkpoint: Checkpoint) -> None:
    """Statistics averaged over a whole fine-tuning are of weights long gone: from scratch looked worse."""
    model = checkpoint.build_model()
    after = calibrated(model, split_samples(shards, "xview", "train"), CPU)
    momenta = [
        [norm.momentum for norm in one.modules() if isinstance(norm, nn.modules.batchnorm._BatchNorm)]
        for one in (model, after)
    ]
    assert momenta[0] == momenta[1]
    assert 0.1 in momenta[0]


def test_calibration_averages_all_batches_alike_and_forgets_what_training_left(
    shards: Shards, checkpoint: Checkpoint
) -> None:
    """Some of the views' statistics in it would set trained and untrained encoders apart, and a last sample
    by itself would count as much as 64 others. What decoders know of their input stays."""
    samples, other = split_samples(shards, "xview", "train").take(np.arange(65)), checkpoint.build_model()
    for part in batch_norms(other.encoder):
        for number in part.buffers():  # means, variances and a count
            number += 7
    found, expected = (calibrated(one, samples, CPU) for one in (other, checkpoint.build_model()))
    for name, value in expected.state_dict().items():
        torch.testing.assert_close(found.state_dict()[name], value, msg=name)
    means = []
    for batch in sequential_batches(samples, 33):
        x_FD = batch.original_PCTV.transpose(1, 2).flatten(0, 1).flatten(1)
        means.append(x_FD[(x_FD != 0).any(1)].mean(0))
    assert len(means) == 2
    norm = found.encoder.input_norm
    assert isinstance(norm, FrameNorm)
    torch.testing.assert_close(norm.running_mean, torch.stack(means).mean(0))


def test_calibration_is_of_features_without_dropout(shards: Shards, tmp_path: Path) -> None:
    """They are what is classified; dropped ones have other deviations."""
    with_dropout = trained_on(shards, tmp_path, "epochs=1", "model.encoder.dropout=0.5")
    model, samples = with_dropout.build_model(), split_samples(shards, "xview", "train")
    without = replace(with_dropout.recipe(), model=load_recipe("compact", TINY).model)
    other = new_model(shards.spec, without)
    other.load_state_dict(model.state_dict())
    expected = calibrated(other, samples, CPU).state_dict()
    for name, found in calibrated(model, samples, CPU).state_dict().items():
        torch.testing.assert_close(found, expected[name], msg=name)


def test_calibration_changes_statistics_and_no_weight(shards: Shards, checkpoint: Checkpoint) -> None:
    model = checkpoint.build_model(trained=False)
    before = model.state_dict()
    after = calibrated(model, split_samples(shards, "xview", "train"), CPU).state_dict()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed
    assert all("running" in name or "num_batches" in name for name in changed)


def test_a_trained_encoder_is_asked_with_statistics_of_what_it_is_asked_about(
    shards: Shards, checkpoint: Checkpoint
) -> None:
    """Those that training leaves are of sheared and masked views: an untrained encoder had better ones."""
    parts = read_parts(shards, "xview")
    (score, *_) = evaluate(shards, checkpoint, Question(("linear",), "xview"), device=CPU).scores
    assert score.features == TRAINED
    model = calibrated(checkpoint.build_model(), parts.train, CPU)
    train_on, test_on = (encoder_features(model, part, CPU) for part in (parts.train, parts.test))
    expected = linear_evaluation(train_on, test_on, parts.num_classes, parts.performances)
    assert_array_equal(score.results[0].hit_N, expected.hit_N)
    left = encoder_features(checkpoint.build_model(), parts.train, CPU)
    assert not torch.allclose(left.x_ND, train_on.x_ND, rtol=0.1)


def test_calibration_sees_the_first_of_many_samples(
    shards: Shards, checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    """NTU-120 has sixty thousand, and an evaluation is to read them once."""
    train = split_samples(shards, "xview", "train")
    few = calibrated(checkpoint.build_model(), train.take(np.arange(9)), CPU).state_dict()
    monkeypatch.setattr("model.features.MOST_FITTED", 9)
    found = calibrated(checkpoint.build_model(), train, CPU).state_dict()
    assert all(torch.equal(found[name], few[name]) for name in few)


def test_a_stopped_evaluation_goes_on_where_it_was(
    shards: Shards, checkpoint: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fine-tuning on seven shares of NTU-120's labels takes hours."""
    question, calls, notes = (
        Question(("linear", "semi", "finetune"), "xview", (0.5,), seeds=2),
        [0],
        list[str](),
    )
    whole = evaluate(shards, checkpoint, question, device=CPU)

    def counted(*arguments: Any, **options: Any) -> Any:
        calls[0] += 1
        if calls[0] == 6:
            raise KeyboardInterrupt
        return finetune(*arguments, **options)

    monkeypatch.setattr("model.modes.finetune", counted)
    with pytest.raises(KeyboardInterrupt):
        evaluate(shards, checkpoint, question, device=CPU, keep=Run(tmp_path))
    gone_on = evaluate(shards, checkpoint, question, device=CPU, keep=Run(tmp_path), on_note=notes.append)
    assert tables(gone_on) == tables(whole)
    assert calls[0] == 6 + 3  # of eight fine-tunings five were there
    # A linear classifier of four kinds of features on all labels and on two halves; two by all labels of
    # each encoder, and two, evaluated by both modes, on halves.
    assert notes == [
        f"18 of 24 results were there already; without {tmp_path / 'results'} all are measured anew"
    ]
    more = Question(("linear", "semi", "finetune"), "xview", (0.5,), seeds=3)
    evaluate(shards, checkpoint, more, device=CPU, keep=Run(tmp_path))
    assert calls[0] == 9 + 4  # a third seed of each encoder with all labels and with half
    evaluate(shards, checkpoint, replace(more, modes=("semi",)), device=CPU, keep=Run(tmp_path))
    assert calls[0] == 13  # one mode of what was measured by two


def test_what_is_there_already_is_not_even_looked_at(
    shards: Shards, checkpoint: Checkpoint, tmp_path: Path
) -> None:
    """Whitening learns from changed copies of all training samples: minutes on NTU-60."""
    stages, notes = list[str](), list[str]()
    question = Question(("linear", "knn"), "xview", whiten=True)
    hear: dict[str, Any] = {"on_stage": stages.append, "on_note": notes.append}
    for said in (0, 1):
        stages.clear()
        evaluate(shards, checkpoint, question, device=CPU, keep=Run(tmp_path), **hear)
        assert len(notes) == said  # that results were there, where some were
    assert not [stage for stage in stages if stage.startswith(("features", "scatter"))]


def test_features_are_extracted_once_whatever_is_asked_of_them(
    shards: Shards, checkpoint: Checkpoint
) -> None:
    """All of NTU-120 is encoded for it; raw coordinates are too many to be whitened."""
    stages: list[str] = []
    question = Question(("linear", "knn"), "xview", (0.5,), whiten=True)
    found = evaluate(shards, checkpoint, question, device=CPU, on_stage=stages.append)
    asked = [stage for stage in stages if stage.startswith(("features", "scatter"))]
    alike = [TRAINED, UNTRAINED, INPUT_STATISTICS]
    assert [stage for stage in asked if stage.startswith("features")] == [
        f"features: {name}" for name in (*alike, COORDINATES)
    ]
    assert [stage for stage in asked if stage.startswith("scatter")] == [
        f"scatter of the views: {name}" for name in alike
    ]
    assert f"{COORDINATES}, whitened" not in {score.features for score in found.scores}


def test_where_all_features_are_stored_no_encoder_is_built(
    shards: Shards, checkpoint: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A second linear classifier takes seconds, however long it takes to read NTU-120."""
    question = Question(("linear",), "xview")
    first = evaluate(shards, checkpoint, question, device=CPU, keep=Run(tmp_path))
    shutil.rmtree(Run(tmp_path).results)

    def refuse(*_: object) -> NoReturn:
        raise AssertionError("built once more")

    monkeypatch.setattr("model.bench.calibrated", refuse)
    second = evaluate(shards, checkpoint, question, device=CPU, keep=Run(tmp_path))
    assert tables(second) == tables(first)


@pytest.fixture(scope="module")
def ntu_shards(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Shards]:
    """The same few recordings under the names of both data sets, of which one holds the other."""
    folder, made = tmp_path_factory.mktemp("ntu"), {}
    synthesize(load_spec("ntu60"), folder / "raw", 240)
    for name in ("ntu60", "ntu120"):
        config = PreprocessConfig(NormalizeConfig(frames=16))
        run(prepare(load_spec(name), [folder / "raw"], folder / name, config, overwrite=False), workers=1)
        made[name] = open_shards(folder / name)
    return made


def test_a_model_of_another_skeleton_is_refused(
    ntu_shards: dict[str, Shards], checkpoint: Checkpoint
) -> None:
    with pytest.raises(ValueError, match="skeletons of 25 joints; the run was trained on ucla with 20"):
        evaluate(ntu_shards["ntu60"], checkpoint, Question(("linear",), "xsub"), device=CPU)


def test_shards_too_short_for_the_runs_pool_are_refused(shards: Shards, checkpoint: Checkpoint) -> None:
    """Training checks its own shards; these can be others."""
    recipe = load_recipe("compact", (*TINY, "model.pool.spans=[1, 5]"))
    pooled = Checkpoint(checkpoint.content | {"recipe": recipe.to_table()})
    with pytest.raises(ValueError, match=r"model\.pool\.spans holds 5; expected at most the 4 frames"):
        evaluate(shards, pooled, Question(("linear",), "xview"), device=CPU)


def test_transfer_to_another_data_set(ntu_shards: dict[str, Shards], tmp_path: Path) -> None:
    """Pre-training on NTU-120 has seen what NTU-60 tests on, as far as the setups trained with say so."""
    checkpoint = trained_on(ntu_shards["ntu120"], tmp_path, "protocol=xset")
    other = ntu_shards["ntu60"]
    assert usual_protocol(checkpoint, ntu_shards["ntu120"].spec) == "xset"
    assert usual_protocol(checkpoint, other.spec) == other.spec.default_protocol
    result = evaluate(other, checkpoint, Question(("knn",), "xview"), device=CPU)
    assert (result.dataset, result.pretrained_on) == ("ntu60", "ntu120")
    table = ntu_shards["ntu120"].split("xset", "train")
    expected = len(set(table["key"]) & set(other.split("xview", "test")["key"]))
    assert result.seen_in_training == expected
    assert expected > 0


def test_copies_of_training_samples_are_known(shards: Shards, checkpoint: Checkpoint) -> None:
    """A nearest neighbour finds a copy for certain; what it is worth shows on the others."""
    table = shards.table.copy()
    tested, trained = (table.index[table["camera"] == camera] for camera in (3, 1))
    copies = dict(zip(tested[:5], trained[:5], strict=True))
    for test, train_on in copies.items():
        table.loc[test, ["row", "label", "content"]] = table.loc[train_on, ["row", "label", "content"]]
    question = Question(("knn",), "xview3")
    result = evaluate(replace(shards, table=table), checkpoint, question, device=CPU)
    assert result.copied_N.tolist() == [index in copies for index in tested]
    (found,) = [score.results for score in result.scores if (score.features, score.k) == (TRAINED, 1)]
    assert found[0].hit_N[result.copied_N].all()
    assert not evaluate(shards, checkpoint, question, device=CPU).copied_N.any()


def test_test_samples_that_training_saw_are_counted(shards: Shards, checkpoint: Checkpoint) -> None:
    own = evaluate(shards, checkpoint, Question(("knn",), "xview3"), device=CPU)
    assert own.seen_in_training == 0  # another name of the protocol that was trained on
    other = evaluate(shards, checkpoint, Question(("knn",), "xview1"), device=CPU)
    assert other.seen_in_training == other.test_samples


def test_all_labels_come_first_and_once_then_fewer_and_fewer(shards: Shards) -> None:
    """Asked for by its share, too, the row of all labels would be fitted and shown twice."""
    question = Question(("linear",), "xview", fractions=(0.2, 1.0, 0.5, 0.2), seeds=2)
    labelled = labelled_sets(question, read_parts(shards, "xview"))
    assert [(labels.fraction, len(labels.sets)) for labels in labelled] == [(1, 1), (0.5, 2), (0.2, 2)]


def test_a_supervised_run_saw_the_samples_whose_labels_it_used(shards: Shards, tmp_path: Path) -> None:
    checkpoint, told = trained_on(shards, tmp_path, "objective=supervised", "label_fraction=0.3"), list[str]()
    result = evaluate(shards, checkpoint, Question(("knn",), "xview1"), device=CPU, on_note=told.append)
    assert [note.endswith("test samples, with their labels") for note in told] == [True]
    used = labelled_keys(shards, checkpoint.recipe())
    assert checkpoint.samples == len(used)
    expected = set(used) & set(shards.split("xview1", "test")["key"])
    assert 0 < result.seen_in_training == len(expected) < 0.5 * result.test_samples


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"modes": ("linear", "nearest")}, "unknown mode 'nearest'; expected some of linear,knn,semi"),
        ({"modes": ()}, "no mode"),
        ({"modes": ("semi",)}, "needs a label fraction below 1"),
        ({"modes": ("semi",), "fractions": (1.0,)}, "needs a label fraction below 1"),
        ({"modes": ("knn",), "fractions": (0.1,), "subsets": (Path("x"),)}, "leave the label fraction out"),
        ({"modes": ("knn",), "seeds": 0}, "seeds is 0"),
        ({"modes": ("finetune",), "whiten": True}, "classified by linear and knn; add one to the modes"),
        ({"modes": ("knn",), "fractions": (0.1, 1.5)}, "label fraction is 1.5; expected above 0, at most 1"),
        ({"modes": ("knn",), "fractions": (0.0,)}, "label fraction is 0.0; expected above 0"),
    ],
)
def test_questions_that_make_no_sense(asked: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Question(protocol="xview", **asked)  # type: ignore[arg-type]


@pytest.mark.parametrize("mode", ["finetune", "semi"])
def test_fine_tuning_that_runs_away_is_no_accuracy(shards: Shards, checkpoint: Checkpoint, mode: str) -> None:
    """Weights that are no numbers name the first class for everybody, which would stand in the table."""
    recipe = load_recipe("compact", (*TINY, "finetune.lr=1e30")).to_table()
    wild = Checkpoint(checkpoint.content | {"recipe": recipe})
    with pytest.raises(RuntimeError, match=r"no longer numbers after epoch 1 of .*finetune\.lr = 1e\+30"):
        evaluate(shards, wild, Question((mode,), "xview", fractions=(0.5,)), device=CPU)


def test_each_stage_is_said_when_it_begins(shards: Shards, checkpoint: Checkpoint) -> None:
    """A spinner that says "features" while a classifier is fitted for minutes sends people looking there."""
    said: list[str] = []
    evaluate(shards, checkpoint, Question(("linear",), "xview"), device=CPU, on_stage=said.append)
    labels = len(shards.split("xview", "train"))
    assert said[1:3] == [
        "features: trained encoder",
        f"linear classifier on {labels} labels, trained encoder",
    ]
