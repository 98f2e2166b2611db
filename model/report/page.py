"""The report of one or several runs: one HTML page that opens from disk without a network, and its pictures.

OUT              the page, everything in it
OUT-NAME.png     the same pictures as files, beside it
"""

import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from markupsafe import Markup

from model.checkpoint import Checkpoint, load_checkpoint
from model.published import same_split
from model.question import check_fit, usual_protocol
from model.report.album import Album, Picture
from model.report.datasets import data_set_title
from model.report.embedding import embed
from model.report.figures import draw_curves, draw_embedding
from model.report.groups import make_groups
from model.report.player import player_fragment
from model.report.runs import Gap, ReportedRun, eval_command, gather, recipe_differences, recipe_rows
from model.report.saved import SavedEvaluation
from model.report.scene import scene_of
from model.report.templates import read_part, render
from model.report.words import percent_text
from model.run import Run
from pipeline.store.publish import publish_bytes
from pipeline.store.shards import Shards

# What reading a run, its shards or a picture's data may end in, none of which may cost the rest of the page.
PROBLEMS = (ValueError, RuntimeError, OSError, MemoryError)
CURVE_PERCENTS = (0, 1, 5, 10, 20, 30, 40, 50)

OnStage = Callable[[str], None]


@dataclass(frozen=True, eq=False)
class Trained:
    """A run that can be looked into: its newest checkpoint, the shards that it was trained on or those that
    were given, an evaluation of that data set, and the folder in which evaluations left features."""

    name: str
    features: Path
    checkpoint: Checkpoint
    shards: Shards
    evaluation: SavedEvaluation


@dataclass(frozen=True, eq=False)
class Player:
    """A sample in 3D. rebuilds: whether a decoder's work is among what it shows."""

    html: Markup
    rebuilds: bool


def write_report(
    runs: Sequence[Run],
    out: Path,
    *,
    shards: Shards | None = None,
    sample: str | None = None,
    device: torch.device | None = None,
    program: str = "cpstn",
    on_stage: OnStage = lambda _: None,
    on_note: Callable[[str], None] = lambda _: None,
) -> Path:
    """Write the page to `out`, an HTML file, and its pictures beside it; returns its path.

    runs: the first is the one that the others' gains are measured by, and whose sample the player shows.
    shards: whose test samples are drawn; by default those that each run was trained on.
    sample: key of the player's sample; by default the first test sample.
    device: where the encoders run; by default the CPU.  program: what commands on the page begin with.

    What a run lacks is said on the page, with the command that makes it, and to `on_note`. Raises ValueError
    if no run has an evaluation, the given shards do not fit a run, or a sample is asked for that is not
    there, or that the first run cannot show; OSError if the page cannot be written.
    """
    reported = gather(runs, program)
    gaps = [gap for run in reported for gap in run.gaps]
    trained = [found for run in reported if (found := _trained(run, shards, gaps))]
    shown = next((found for found in trained if found.name == reported[0].name), None)
    if shown is None and sample is not None:
        raise ValueError(_not_shown(sample, reported[0].name, gaps))
    player = None
    if shown is not None:
        on_stage("a sample in 3D")
        player = _player(shown, sample, gaps)
    album = Album(out)
    on_stage("drawing curves and tables")
    curves, groups = _curves(reported, album), make_groups(reported, album)
    embeddings: list[tuple[str, Picture]] = []
    for found in trained:
        on_stage(f"t-SNE of the test samples' features, {found.name}")
        embeddings += _embedding(found, device or torch.device("cpu"), album, gaps)
    content = _render(
        runs=reported,
        groups=groups,
        curves=curves,
        embeddings=embeddings,
        player=player,
        gaps=gaps,
        program=program,
        differences=recipe_differences(reported),
        whole_recipes={run.name: recipe_rows(run) for run in reported if run.recipe},
        curve_percents=CURVE_PERCENTS,
    )
    publish_bytes(out, content.encode())
    for gap in gaps:
        on_note(f"{gap.run}: {gap.what}" + (f"; {program} {gap.command}" if gap.command else ""))
    return out


def _trained(run: ReportedRun, given: Shards | None, gaps: list[Gap]) -> Trained | None:
    """None, and a gap, where the run cannot be looked into."""
    if run.saved_step is None or not run.evaluations:
        return None
    try:
        checkpoint = load_checkpoint(run.run)
        shards = given or run.run.open_shards(on_note=lambda text: gaps.append(Gap(run.name, text)))
        own = usual_protocol(checkpoint, shards.spec)
    except PROBLEMS as error:
        gaps.append(Gap(run.name, f"no features and no player: {error}"))
        return None
    if given is not None:
        check_fit(given, checkpoint)
    evaluation = _shown_evaluation(run.evaluations, shards, own)
    if evaluation is not None:
        return Trained(run.name, run.run.features, checkpoint, shards, evaluation)
    what = f"no features and no player: it has not been evaluated on {shards.spec.title}"
    gaps.append(Gap(run.name, what, f"{eval_command(run.run)} --shards {shlex.quote(str(shards.location))}"))
    return None


def _shown_evaluation(
    evaluations: Sequence[SavedEvaluation], shards: Shards, own: str
) -> SavedEvaluation | None:
    """The one by whose protocol test samples are shown: by `own`, the run's, before any other, whose test
    samples it may have been trained on; then of these shards; then the data set's first. None without any."""
    dataset = shards.manifest.dataset
    return max(
        (found for found in evaluations if found.dataset == dataset),
        key=lambda found: (
            same_split(dataset, found.protocol, own),
            found.evaluated_on == shards.manifest.digest,
        ),
        default=None,
    )


def _curves(reported: list[ReportedRun], album: Album) -> Picture | None:
    curves = {run.name: run.curves for run in reported if run.curves}
    if not curves:
        return None
    alt = f"Training losses over steps: {', '.join(curves)}"
    return album.add("curves", alt, partial(draw_curves, curves=curves))


def _embedding(
    found: Trained, device: torch.device, album: Album, gaps: list[Gap]
) -> list[tuple[str, Picture]]:
    """The run's name and picture; [], and a gap, where there can be none."""
    evaluation = found.evaluation
    try:
        embedding = embed(found.shards, found.checkpoint, evaluation.protocol, device, cache=found.features)
    except PROBLEMS as error:
        gaps.append(Gap(found.name, f"no picture of its features: {error}"))
        return []
    title = f"{found.name}: {evaluation.title}, {evaluation.protocol}, test samples"
    alt = f"t-SNE of the features of {len(embedding.labels_N):,} test samples by {found.name}"
    draw = partial(draw_embedding, embedding=embedding, title=title)
    return [(found.name, album.add(f"features-{found.name}", alt, draw))]


def _not_shown(sample: str, run: str, gaps: list[Gap]) -> str:
    """What to say where the first run has no player."""
    lacks = "; ".join(gap.what for gap in gaps if gap.run == run)
    return (
        f"--sample {sample}: only the first run's player shows a sample, and {run} has none ({lacks}); name "
        "another run first, or leave --sample out"
    )


def _player(found: Trained, sample: str | None, gaps: list[Gap]) -> Player | None:
    """Of the asked-for sample, or the first test sample. Of the latter None, and a gap, where it cannot be
    shown; of the former that is an error."""
    try:
        key = sample or str(found.shards.split(found.evaluation.protocol, "test")["key"].iloc[0])
        scene = scene_of(found.shards, key, checkpoint=found.checkpoint)
        return Player(Markup(player_fragment(scene)), scene.rebuilds)
    except (*PROBLEMS, IndexError) as error:
        if sample is not None:
            raise
        gaps.append(Gap(found.name, f"no player: {error}"))
        return None


def _render(**content: object) -> str:
    filters: dict[str, Callable[..., str]] = {
        "percent": percent_text,
        "points": _points,
        "hundred": _hundred,
        "counts": _counts,
        "data_set": data_set_title,
    }
    return render("page.html.j2", filters, style=Markup(read_part("page.css")), **content)


def _hundred(share: float) -> str:
    """An accuracy as per cent with one digit, as in all tables."""
    return f"{100 * share:.1f}"


def _counts(counts: Sequence[int]) -> str:
    """Of every run, or once where it is the same of all."""
    shown = counts if len(set(counts)) > 1 else counts[:1]
    return " / ".join(f"{count:,}" for count in shown)


def _points(difference: float) -> str:
    """Points of per cent with their sign."""
    return f"{difference:+.1f}".replace("-", "−")
