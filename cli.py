"""The commands. Each parses, asks the library, and prints; heavy imports wait inside."""

import json
import math
import os
import shlex
import signal
import sys
import time
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

try:
    import click
except ModuleNotFoundError:  # the first thing that a newcomer meets
    sys.stderr.write("Error: not set up yet: run `make setup`, then `source .venv/bin/activate`\n")
    sys.exit(2)

from model.failure import Failure, Program
from model.terminal import bar, print_ablation, print_description, print_scores, status, training_bar

if TYPE_CHECKING:
    from model.recipe import Recipe
    from pipeline.store.shards import Shards

SHARDS, RUNS = Path("shards"), Path("runs")
PATH = click.Path(path_type=Path)
NEW_FILE = click.Path(path_type=Path, dir_okay=False)
SEEDS = click.IntRange(1, 1000)


def _is_number(_: click.Context, parameter: click.Parameter, value: float) -> float:
    """No range excludes NaN."""
    if math.isnan(value):
        raise click.BadParameter("nan is no number", param=parameter)
    return value


def _is_page(_: click.Context, parameter: click.Parameter, value: Path | None) -> Path | None:
    """What is there is replaced: by a slip it would be a recipe or a recording."""
    if value is not None and value.suffix != ".html":
        raise click.BadParameter(f"{value}: expected a name that ends in .html", param=parameter)
    return value


# Options that several commands have.
TRAINING_SHARDS = click.option(
    "--shards",
    metavar="[DIR|URL]",
    is_flag=False,
    flag_value="",
    default="",
    help="Folder, or its http(s) address.  [default: newest in shards/]",
)
DEVICE = click.option("--device", help="cpu, cuda, cuda:1, mps.  [default: the best there is]")
THREADS = click.option(
    "--threads", type=click.IntRange(1), default=2, show_default=True, help="Threads that make views."
)


@click.group(cls=Program, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="cpstn")
def main() -> None:
    """From raw 3D skeleton recordings to trained action representations."""
    import logging

    # Of a request that is tried again, pipeline.store.web tells in a line of its own.
    logging.getLogger("urllib3").setLevel(logging.ERROR)


@main.command(short_help="Turn raw recordings into shards.")
@click.argument("dataset")
@click.argument("raw", nargs=-1, required=True, type=PATH)
@click.option("--out", type=PATH, help="Output folder.  [default: shards/DATASET]")
@click.option("--format", "format_", default="zarr", show_default=True, help="zarr, webdataset or both.")
@click.option(
    "--frames", type=click.IntRange(3, 100_000), default=200, show_default=True, help="Frames to store."
)
@click.option("--resample", default="linear", show_default=True, help="linear, nearest or pad.")
@click.option("--gaps", default="zero", show_default=True, help="Frames without a body: zero or interpolate.")
@click.option("--max-bodies", type=click.IntRange(1, 16), help="Bodies to keep.  [default: the data set's]")
@click.option("--stitch/--no-stitch", default=True, help="Join tracks of one person.  [default: stitch]")
@click.option("--denoise/--no-denoise", default=True, help="Drop spurious bodies.  [default: denoise]")
@click.option("--centre/--no-centre", default=True, help="Centre on the first seen frame.  [default: centre]")
@click.option("--align/--no-align", default=True, help="Turn upright and face on.  [default: align]")
@click.option(
    "--min-frames", type=click.IntRange(1), default=1, show_default=True, help="Leave out shorter recordings."
)
@click.option("--keep-missing", is_flag=True, help="Keep samples on the official missing list.")
@click.option("--strict", is_flag=True, help="Fail if any recording cannot be read.")
@click.option(
    "--shard-samples", type=click.IntRange(1, 65_536), default=512, show_default=True, help="Shard size."
)
@click.option("--workers", type=click.IntRange(1), help="Parallel workers.  [default: all cores]")
@click.option(
    "--processes", type=click.IntRange(1), help="Spread the workers over so many.  [default: as it pays]"
)
@click.option("--cluster", metavar="ADDRESS", help="Let the workers of a running dask scheduler do it.")
@click.option("--overwrite", is_flag=True, help="Replace shards made with other settings.")
def preprocess(
    dataset: str,
    raw: tuple[Path, ...],
    out: Path | None,
    format_: str,
    min_frames: int,
    keep_missing: bool,
    strict: bool,
    shard_samples: int,
    workers: int | None,
    processes: int | None,
    cluster: str | None,
    overwrite: bool,
    max_bodies: int | None,
    **normalising: Any,
) -> None:
    """Turn raw recordings into shards.

    DATASET is ntu60, ntu120, ucla or the path of a spec file. RAW are folders, searched deep, and zip
    archives.
    """
    from data_specs.read import load_spec
    from pipeline import preprocess as job_module
    from pipeline.cluster import check_spread
    from pipeline.normalize import NormalizeConfig

    if cluster and (workers or processes):
        raise ValueError("--cluster brings its own workers; leave --workers and --processes out")
    check_spread(workers, processes)
    spec = load_spec(dataset)
    config = job_module.PreprocessConfig(
        NormalizeConfig(max_bodies=max_bodies or spec.max_bodies, **normalising),
        format_,
        min_frames,
        keep_missing,
        shard_samples,
    )
    started, kept = time.perf_counter(), list[int]()
    job = job_module.prepare(
        spec, list(raw), out or SHARDS / spec.name, config, overwrite=overwrite, on_note=_note
    )
    with bar("files", len(job.recordings)) as advance:
        job_module.run(
            job,
            workers=workers,
            processes=processes,
            cluster=cluster,
            strict=strict,
            on_recordings=lambda n: advance(n, ""),
            on_kept=kept.append,
        )
    seconds = time.perf_counter() - started
    from pipeline.store.shards import open_shards  # and pandas, for which no recording has to wait
    from pipeline.unseen import collapsed_bones

    shards = open_shards(job.out)
    print_description(shards)
    for child, parent in collapsed_bones(shards):
        _note(
            f"{child} and {parent} are in one place in every recording that was looked at: one of them was "
            f"never seen, or is what coordinates are relative to. 0 0 0 means unseen; add a constant to these"
        )
    count, there = len(job.recordings), sum(kept)
    if there == count:
        click.echo(f"{_recordings(count)}: all there already")
    else:
        rate = (count - there) / seconds
        more = f", {there:,} of {count:,} were there already" if there else ""
        click.echo(f"{_recordings(count - there)} in {seconds:.1f} s, {rate:,.0f} a second{more}")
    _say_next("train", "--shards", job.out)


@main.command()
@click.argument("shards")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def inspect(shards: str, as_json: bool) -> None:
    """Say what is in SHARDS, a folder or its http(s) address."""
    from pipeline.store.shards import open_shards

    opened = open_shards(shards)
    if as_json:
        click.echo(json.dumps(opened.describe(), indent=1, ensure_ascii=False))
    else:
        print_description(opened)


@main.command(short_help="Re-read every byte of SHARDS against its checksums.")
@click.argument("shards")
def verify(shards: str) -> None:
    """Re-read every byte of SHARDS, a folder or its http(s) address, against the manifest's checksums."""
    from pipeline.store.damage import REPAIR
    from pipeline.store.manifest import load_manifest
    from pipeline.store.shards import verify_shards

    manifest = load_manifest(shards)
    problems = verify_shards(shards)
    for name, lines in problems.items():
        for line in lines:
            click.echo(f"{name}: {line}")
    if problems:
        raise Failure(f"{len(problems)} of {len(manifest.files)} files are damaged; {REPAIR}", 1)
    click.echo(f"{shards}: {len(manifest.files)} files, {manifest.bytes:,} bytes, all sound")


@main.command(short_help="Write believable recordings in a data set's raw format.")
@click.argument("dataset")
@click.argument("out", type=PATH)
@click.option("--samples", type=click.IntRange(1), required=True, help="Recordings to write.")
@click.option("--seed", default=0, show_default=True, help="Another seed, other people.")
@click.option(
    "--oddities", type=click.FloatRange(0, 1), default=0.0, show_default=True, help="Share of odd files."
)
@click.option(
    "--layout", default="json", show_default=True, help="For ucla: json, or text as first released."
)
def synthesize(dataset: str, out: Path, samples: int, seed: int, oddities: float, layout: str) -> None:
    """Write believable recordings of DATASET to OUT, in its raw format."""
    from data_specs.read import load_spec
    from pipeline.raw.synthetic import synthesize as write

    spec = load_spec(dataset)
    with bar("recordings", samples) as advance:
        write(
            spec,
            out,
            samples,
            seed=seed,
            oddities=oddities,
            layout=layout,
            on_recording=lambda: advance(1, ""),
        )
    click.echo(f"{out}: {_recordings(samples)} of {spec.title}")
    _say_next("preprocess", dataset, out)


@main.command(short_help="Train CP-STN, or a baseline, on shards.")
@TRAINING_SHARDS
@click.option(
    "--recipe",
    metavar="NAME|FILE",
    help="compact, wide, paper, paper:ROW of Table 5, best, contrast, a baseline's, or a TOML "
    "file.  [default: compact]",
)
@click.option(
    "--set",
    "changes",
    multiple=True,
    metavar="KEY=VALUE",
    help="Change a key of the recipe; as often as you like.",
)
@click.option("--name", help="Name of the run.  [default: DATASET-001 and so on]")
@click.option("--resume", metavar="RUN", help="Go on with a run that was stopped.")
@DEVICE
@THREADS
@click.option(
    "--objective",
    help="cpstn, supervised (from scratch, with labels), or a baseline's.  [default: the recipe's]",
)
@click.option("--label-fraction", type=float, help="Of the training labels, for supervised.  [default: all]")
@click.option(
    "--keep", type=click.IntRange(1), default=3, show_default=True, help="Checkpoints to keep, the newest."
)
@click.option(
    "--save-minutes",
    type=click.FloatRange(0),
    callback=_is_number,
    default=10.0,
    show_default=True,
    help="Save so often, and after every epoch.",
)
def train(
    shards: str,
    recipe: str | None,
    changes: tuple[str, ...],
    name: str | None,
    resume: str | None,
    device: str | None,
    threads: int,
    objective: str | None,
    label_fraction: float | None,
    keep: int,
    save_minutes: float,
) -> None:
    """Train CP-STN on shards, without labels; its encoder with labels; or a baseline, by its recipe.

    On several GPUs with torchrun.
    """
    from model.config import key_of
    from model.device import choose_device
    from model.parallel import device_of_rank, joined
    from model.recipe import load_recipe
    from model.run import Run, find_run
    from model.train import train as run_training
    from model.unused import unused_keys
    from pipeline.store.shards import newest_shards, open_shards

    asked = {"objective": objective, "label_fraction": label_fraction}
    changes += tuple(f"{key}={value}" for key, value in asked.items() if value is not None)
    chosen_device = device_of_rank(choose_device(device))
    with joined(chosen_device) as ranks:
        if resume:
            if changes or name or recipe:
                raise ValueError(
                    "--resume goes on with the run's own recipe and name; leave --recipe, --set, --name, "
                    "--objective and --label-fraction out"
                )
            run = find_run(resume, RUNS)
            opened, chosen = run.open_shards(shards), run.recipe()
        else:
            opened, chosen = (
                open_shards(shards or newest_shards(SHARDS)),
                load_recipe(recipe or "compact", changes),
            )
            run = Run(Path(ranks.first_says(lambda: str(_new_run(opened, chosen, name, ranks.world)))))
        if ranks.is_first:
            unused = unused_keys(chosen)
            for key in map(key_of, changes):
                if key in unused:
                    _note(f"{key} decides nothing here: no part of what is trained has a use for it")
            click.echo(f"training on {opened.location} into {run.folder}, on {ranks.describe(chosen_device)}")
        with training_bar() if ranks.is_first else nullcontext(lambda _: None) as show:
            run_training(
                opened,
                chosen,
                run,
                device=chosen_device,
                threads=threads,
                resume=bool(resume),
                keep=keep,
                save_minutes=save_minutes,
                ranks=ranks,
                on_progress=show,
                on_note=_note,
            )
    if ranks.is_first:
        click.echo(f"{run.checkpoint}")
        _say_next("eval", "--run", run.folder)


@main.command(name="eval", short_help="Evaluate a run: linear, nearest neighbours, semi, fine-tuned.")
@click.option("--run", "run_name", metavar="DIR", help="Run to evaluate.  [default: newest in runs/]")
@click.option(
    "--mode",
    "modes",
    metavar="MODES",
    help="Of linear,knn,semi,finetune.  [default: linear,knn and, with few labels, semi]",
)
@click.option(
    "--label-fraction",
    "fractions",
    metavar="SHARES",
    help="Also with these shares of the labels, such as 0.01,0.1.",
)
@click.option(
    "--subset",
    "subsets",
    multiple=True,
    type=PATH,
    metavar="FILE",
    help="Labels of these samples instead, a key a line; several files of a size are repetitions.",
)
@click.option(
    "--seeds",
    type=SEEDS,
    default=1,
    show_default=True,
    help="Repetitions with other labels and fine-tunings.",
)
@click.option("--whiten", is_flag=True, help="Also on features whitened by the scatter of views.")
@click.option(
    "--fuse",
    multiple=True,
    metavar="RUN",
    help="Also the linear classifiers of this run and that one, fused.",
)
@click.option("--shards", help="Folder, or its http(s) address.  [default: those of the run]")
@click.option("--protocol", help="Train/test split.  [default: the one of the run]")
@DEVICE
def evaluate(
    run_name: str | None,
    modes: str | None,
    fractions: str | None,
    subsets: tuple[Path, ...],
    seeds: int,
    whiten: bool,
    fuse: tuple[str, ...],
    shards: str | None,
    protocol: str | None,
    device: str | None,
) -> None:
    """Evaluate a run: linear and nearest neighbours on the frozen encoder, semi-supervised, fine-tuned.

    Beside it stand an untrained encoder, statistics of the input and its raw coordinates.
    """
    from model.checkpoint import load_checkpoint
    from model.device import choose_device
    from model.evaluate import evaluate as run_evaluation
    from model.evaluation_file import save_evaluation, to_table
    from model.memory import evaluation_memory_explained
    from model.question import Question, usual_protocol
    from model.run import find_run

    chosen_device = choose_device(device)
    shares = _numbers("--label-fraction", fractions)
    default = "linear,knn,semi" if subsets or any(share < 1 for share in shares) else "linear,knn"
    asked = _listed(modes or default)
    run = find_run(run_name, RUNS)
    checkpoint = load_checkpoint(run, _note)
    beside = [find_run(name, RUNS) for name in fuse]
    if len({one.name for one in (run, *beside)}) <= len(beside):
        raise ValueError(f"--fuse {', '.join(fuse)}: expected other runs than {run.folder}, each name once")
    others = {one.name: load_checkpoint(one, _note) for one in beside}
    opened = run.open_shards(shards, _note)
    chosen = protocol or usual_protocol(checkpoint, opened.spec)
    question = Question(asked, chosen, shares, subsets, seeds, whiten)
    costly = " and ".join(name for name, given in (("--whiten", whiten), ("--fuse", fuse)) if given)
    with evaluation_memory_explained(chosen_device, costly), status() as say:
        result = run_evaluation(
            opened,
            checkpoint,
            question,
            device=chosen_device,
            fuse=others,
            keep=run,
            on_stage=say,
            on_note=_note,
        )
    try:
        print_scores(to_table(result, run.name), run.folder)  # before anything is written, which may fail
    finally:
        saved = save_evaluation(result, run.folder)  # also where nobody reads on, as behind `| head`
    click.echo("\n".join(map(str, saved.paths)))
    _say_next("report", run.folder)


@main.command(short_help="Write what a run's encoder makes of every sample.")
@click.option("--run", "run_name", metavar="DIR", help="Run to encode by.  [default: newest in runs/]")
@click.option("--shards", help="Folder, or its http(s) address.  [default: those of the run]")
@click.option("--protocol", help="Train/test split.  [default: the one of the run]")
@click.option("--untrained", is_flag=True, help="By the same encoder with its first weights.")
@click.option("--whiten", is_flag=True, help="Whitened as eval --whiten does it, without labels.")
@click.option(
    "--out", type=NEW_FILE, metavar="FILE.npy", help="[default: encoded-DATASET-PROTOCOL.npy in the run]"
)
@DEVICE
def encode(
    run_name: str | None,
    shards: str | None,
    protocol: str | None,
    untrained: bool,
    whiten: bool,
    out: Path | None,
    device: str | None,
) -> None:
    """Write what a run's encoder makes of every sample, the numbers that eval classifies: a NumPy array, and
    beside it a table of its rows.
    """
    from model.checkpoint import load_checkpoint
    from model.device import choose_device
    from model.encode import encode as run_encoding
    from model.memory import evaluation_memory_explained
    from model.question import usual_protocol
    from model.run import find_run

    chosen_device = choose_device(device)
    run = find_run(run_name, RUNS)
    checkpoint = load_checkpoint(run, _note)
    opened = run.open_shards(shards, _note)
    chosen = protocol or usual_protocol(checkpoint, opened.spec)
    kind = f"encoded{'-untrained' * untrained}{'-whitened' * whiten}"
    with evaluation_memory_explained(chosen_device), bar("samples", opened.manifest.samples) as advance:
        written = run_encoding(
            opened,
            run,
            checkpoint,
            chosen,
            out or run.folder / f"{kind}-{opened.manifest.dataset}-{chosen}.npy",
            trained=not untrained,
            whiten=whiten,
            device=chosen_device,
            on_samples=lambda n: advance(n, ""),
            on_note=_note,
        )
    click.echo(f"{written.samples:,} samples, {written.features:,} numbers each")
    click.echo("\n".join(map(str, written.paths)))


@main.command(short_help="Train and evaluate the rows of the paper's Table 5.")
@TRAINING_SHARDS
@click.option("--table", default="table5", show_default=True, help="table5, encoders or pretexts.")
@click.option("--rows", help="Only these rows of any table, by name: cp-stn,graph-a.")
@click.option(
    "--recipe",
    metavar="NAME|FILE",
    default="paper",
    show_default=True,
    help="What the rows change, as train --recipe.",
)
@click.option(
    "--set",
    "changes",
    multiple=True,
    metavar="KEY=VALUE",
    help="Change a key in every row; as often as you like.",
)
@click.option(
    "--seeds",
    type=SEEDS,
    default=1,
    show_default=True,
    help="Runs a row, from the recipe's seed on.",
)
@click.option("--name", help="Folder under runs/; what is done there is kept.  [default: ablate-DATASET]")
@DEVICE
@THREADS
def ablate(
    shards: str,
    table: str,
    rows: str | None,
    recipe: str,
    changes: tuple[str, ...],
    seeds: int,
    name: str | None,
    device: str | None,
    threads: int,
) -> None:
    """Train and evaluate the rows of the paper's Table 5, and print the table in the paper's shape.

    Stopped, it goes on where it was when it is run again.
    """
    from model.ablate import ablate as run_ablation
    from model.ablate import plan, save_ablation
    from model.device import choose_device
    from model.run import named_run
    from model.table5 import choose_rows
    from pipeline.store.shards import newest_shards, open_shards

    chosen_device = choose_device(device)
    chosen = choose_rows(table, _listed(rows) if rows else ())
    opened = open_shards(shards or newest_shards(SHARDS))
    folder = named_run(RUNS, name or f"ablate-{opened.manifest.dataset}").folder
    trials = plan(chosen, folder, opened, recipe=recipe, changes=changes, seeds=seeds)
    try:
        result = run_ablation(
            opened,
            trials,
            folder,
            device=chosen_device,
            threads=threads,
            watch=lambda _: training_bar(),
            on_stage=lambda text: click.echo(text, err=True),
        )
    except KeyboardInterrupt:
        click.echo(f"{folder}: the same command goes on with the table", err=True)
        raise
    made_from = {"recipe": recipe, "changes": changes, "seeds": seeds, "shards": opened.manifest.digest}
    files = save_ablation(result, folder, "rows" if rows else table, made_from)
    print_ablation(result, folder)
    click.echo("\n".join(map(str, files)))
    if result.failed:
        raise Failure(f"failed: {', '.join(line.name for line in result.failed)}", 1)


@main.command(short_help="Draw a sample of SHARDS and its two views.")
@click.argument("shards")
@click.argument("picture", type=NEW_FILE)
@click.option("--sample", metavar="KEY", help="Sample to draw.  [default: the first]")
@click.option("--seed", default=0, show_default=True, help="Seed of the views.")
def draw(shards: str, picture: Path, sample: str | None, seed: int) -> None:
    """Draw a sample of SHARDS and its two views to PICTURE, a PNG."""
    from model.draw import draw_sample
    from pipeline.store.shards import open_shards

    key = draw_sample(open_shards(shards), picture, sample, seed)
    click.echo(f"{picture}: {key}")


@main.command(short_help="Make one page of one or several evaluated runs.")
@click.argument("runs", nargs=-1, required=True)
@click.option(
    "--out",
    type=NEW_FILE,
    callback=_is_page,
    metavar="FILE.html",
    help="Page to write.  [default: report.html in the run, or in runs/ for several]",
)
@click.option("--shards", help="Folder, or its http(s) address.  [default: those of each run]")
@click.option("--sample", metavar="KEY", help="Sample that the player shows.  [default: the first tested]")
@DEVICE
def report(
    runs: tuple[str, ...], out: Path | None, shards: str | None, sample: str | None, device: str | None
) -> None:
    """Make one page of RUNS, which opens from disk, and its pictures."""
    from model.device import choose_device
    from model.report.page import write_report
    from model.run import find_run
    from pipeline.store.shards import open_shards

    chosen_device, found = choose_device(device), [find_run(run, RUNS) for run in runs]
    if len({run.folder.resolve() for run in found}) < len(found):
        raise ValueError(f"{' '.join(runs)}: expected each run once")
    page = out or (found[0].folder if len(found) == 1 else RUNS) / "report.html"
    opened = open_shards(shards) if shards else None
    with status() as say:
        written = write_report(
            found,
            page,
            shards=opened,
            sample=sample,
            device=chosen_device,
            program=_program(),
            on_stage=say,
            on_note=_note,
        )
    click.echo(f"{written}")


@main.command(short_help="Show a sample of SHARDS and its two views in 3D, in the browser.")
@click.argument("shards")
@click.option("--sample", metavar="KEY", help="Sample to show.  [default: the first]")
@click.option("--run", "run_name", metavar="DIR", help="Also what this run's decoders rebuild.")
@click.option("--seed", default=0, show_default=True, help="Seed of the views.")
@click.option(
    "--out",
    type=NEW_FILE,
    callback=_is_page,
    metavar="FILE.html",
    help="Page to write.  [default: KEY.html]",
)
@click.option("--open/--no-open", "show", default=True, help="Open it in the browser.  [default: open]")
def view(
    shards: str, sample: str | None, run_name: str | None, seed: int, out: Path | None, show: bool
) -> None:
    """Show a sample of SHARDS and its two views in 3D: one page for the browser, which needs no network."""
    import webbrowser

    from model.checkpoint import load_checkpoint
    from model.report.player import player_page
    from model.report.scene import scene_of
    from model.run import find_run
    from pipeline.store.publish import publish_bytes
    from pipeline.store.shards import open_shards

    checkpoint = load_checkpoint(find_run(run_name, RUNS), _note) if run_name else None
    scene = scene_of(open_shards(shards), sample, checkpoint=checkpoint, seed=seed)
    page = out or Path(f"{scene.key}.html")
    publish_bytes(page, player_page(scene).encode())
    click.echo(f"{page}: {scene.key}")
    if checkpoint and not scene.rebuilds:
        _note(f"{run_name} has no decoders that rebuild a view")
    if show and not webbrowser.open(page.resolve().as_uri()):
        _note(f"no browser was found; open {page} yourself")


def _listed(text: str) -> tuple[str, ...]:
    """Words between commas."""
    return tuple(word.strip() for word in text.split(","))


def _numbers(option: str, text: str | None) -> tuple[float, ...]:
    """Numbers between commas."""
    try:
        return tuple(float(part) for part in text.split(",")) if text else ()
    except ValueError:
        raise ValueError(
            f"{option} {text!r}: expected numbers with commas between, such as 0.01,0.1"
        ) from None


def _recordings(number: int) -> str:
    return "1 recording" if number == 1 else f"{number:,} recordings"


def _new_run(shards: "Shards", recipe: "Recipe", name: str | None, world: int) -> Path:
    """The folder of a run that was made; a mistake shows before there is one."""
    from model.run import create_next, named_run
    from model.training_set import training_samples

    training_samples(shards, recipe, world)
    made_from = recipe, shards.location, shards.manifest.digest
    if name is None:
        return create_next(RUNS, shards.manifest.dataset, *made_from).folder
    run = named_run(RUNS, name)
    run.create(*made_from)
    return run.folder


def _note(text: str) -> None:
    click.echo(f"note: {text}", err=True)


def _program() -> str:
    """What a command begins with: the name that this program was called by."""
    name = click.get_current_context().find_root().info_name or "cpstn"
    as_typed = sys.argv[0] if Path(sys.argv[0]).name == name else name
    return shlex.join(["python", as_typed] if name.endswith(".py") else [name])


def _say_next(*command: str | Path) -> None:
    """What a newcomer would type next."""
    click.echo(f"next: {_program()} {shlex.join(map(str, command))}")


def start() -> None:
    """`main`, for a process of its own, whose work is done when it ends: a Ctrl-C then would only show where
    in Python's own end it came. What it says goes nowhere where the shell closed the stream, as by `>&-`."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, Path(os.devnull).open("w"))  # noqa: SIM115 - open to the end
    try:
        main()
    finally:
        signal.signal(signal.SIGINT, signal.SIG_IGN)


if __name__ == "__main__":
    start()
