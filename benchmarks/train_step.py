"""How fast is a training step, beside an ST-GCN written the usual way? `python -m benchmarks.train_step`

Both have the same layers and weights and get the same batch; ours only the bodies that are there.
"""

from dataclasses import replace
from functools import partial
from pathlib import Path

import click
import torch

from benchmarks.command import benchmark
from benchmarks.contest import ENCODER, OURS, PLAIN, PRECISION, STEP, Contest, with_pairs
from benchmarks.data import find_recordings, mixed_samples, scratch_folder
from benchmarks.limits import Machine, costliest, measure_demand, measure_machine
from benchmarks.pairs import CPU, WALL, Clock, compare
from benchmarks.peak import peak_megabytes
from benchmarks.references.plain_stgcn import refuse_unlike
from benchmarks.report import Report
from model.device import choose_device
from model.recipe import load_recipe
from pipeline.normalize import NormalizeConfig

HOLD_TO = {"cpu": 1.8, "cuda": 3.0}
BATCH = {"cpu": 16, "cuda": 256}
DTYPE = {"float32": torch.float32, "bf16": torch.bfloat16}
SMALL = ("model.encoder.widths=[4, 4, 4, 4, 8, 8]", "model.decoder.widths=[4, 4, 4, 4, 4]")
QUICK_FRAMES, QUICK_BATCH = 16, 4
SIDES = (
    "Ours has the fused Adam, as in training, the plain one torch's default. On a CPU both use freed memory "
    "again (model.device). On a GPU ours computes in bf16, the plain one in float32 (convolutions: TF32)."
)
LIMIT = (
    "The limit is the larger of bytes / bandwidth and operations / peak. Every operation counts as if it "
    "read its inputs from memory and wrote its outputs there."
)


@benchmark("How fast is a training step, beside an ST-GCN written the usual way?", rounds=7)
@click.option("--frames", type=click.IntRange(8), default=200, show_default=True, help="Of every sample.")
@click.option("--batch", type=click.IntRange(2), help="Samples of a batch.  [default: 16, on a GPU 256]")
@click.option("--recipe", default="compact", show_default=True, help="Built-in recipe or TOML file.")
@click.option("--device", help="cpu, cuda or cuda:1.  [default: cuda if there is one, else cpu]")
@click.option("--threads", type=click.IntRange(1), default=1, show_default=True, help="Of torch, on a CPU.")
def main(
    raw: Path | None,
    rounds: int,
    quick: bool,
    frames: int,
    batch: int | None,
    recipe: str,
    device: str | None,
    threads: int,
) -> None:
    chosen = choose_device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    refuse_unlike(load_recipe(recipe))
    wanted = load_recipe(recipe, SMALL if quick else ())
    if chosen.type not in HOLD_TO:
        raise click.BadParameter(f"device {chosen.type}: expected cpu or cuda")
    count, frames = (QUICK_BATCH, QUICK_FRAMES) if quick else (batch or BATCH[chosen.type], frames)
    with scratch_folder() as scratch:
        recordings = find_recordings(raw, scratch, quick=quick)
        samples = with_pairs(mixed_samples(recordings, count, NormalizeConfig(frames=frames)))
    contest = Contest(wanted, samples, chosen, threads)
    contest.check()
    on = f"{threads} threads" if chosen.type == "cpu" else chosen.type
    what = f"{count} samples of {frames} frames, {recordings.origin}; {on}"
    measure(contest, rounds, what, processes=not quick).show()


def measure(contest: Contest, rounds: int, what: str, *, processes: bool) -> Report:
    """Speed beside the plain one, share of the machine's limit, peak memory.

    processes: measure memory as it should be, each time in a process of its own.
    """
    device = contest.device
    clocks = (gpu_clock(device),) if device.type == "cuda" else (WALL, CPU)
    names = [f"{name}, {clock.name}" for name in (ENCODER, STEP) for clock in clocks]
    report = Report("train_step", what, dict.fromkeys(names, HOLD_TO[device.type]))
    pairs = contest.pairs()
    dtype = DTYPE[PRECISION[device.type]]
    before = measure_machine(device, dtype, clocks[-1])
    found = compare(pairs, rounds, *clocks)
    after = measure_machine(device, dtype, clocks[-1])
    for name, comparison in zip(names, found, strict=True):
        report.ratio(replace(comparison, name=name))
    best = {name: comparison.ours_R.max() for name, comparison in zip(names, found, strict=True)}
    tell_limits(contest, before.or_better(after), clocks[-1], best, report)
    for name in (ENCODER, STEP):
        for side in (OURS, PLAIN):
            megabytes = peak_megabytes(partial(contest.work, name, side), device, apart=processes)
            report.figure(f"{name}, peak memory, {side}", megabytes, "MB")
    bodies = sum(len(bodies_BCTV) for bodies_BCTV in contest.samples)
    report.figure("bodies of a sample", bodies / len(contest.samples), "on average")
    report.note(SIDES)
    return report


def tell_limits(
    contest: Contest, machine: Machine, clock: Clock, best: dict[str, float], report: Report
) -> None:
    """How near our step comes to what this machine could do, and what takes its time.

    best: our samples per second in the best round, by the comparison's name.
    """
    for name in (ENCODER, STEP):
        work = contest.work(name, OURS)
        work()
        demand, shares = measure_demand(work), costliest(work, contest.device)
        seconds = len(contest.samples) / best[f"{name}, {clock.name}"]
        report.figure(f"{name}, operations", demand.operations / 1e9, "GFLOP")
        report.figure(f"{name}, read and written", demand.moved / 1e9, "GB")
        report.figure(
            f"{name}, of the limit, {clock.name}", 100 * demand.least_seconds(machine) / seconds, "%"
        )
        told = ", ".join(f"{kind} {share:.0%}" for kind, share in shares)
        report.note(f"{name}, where ours spends its time: {told}.")
    report.figure("the machine: copy", machine.bandwidth / 1e9, "GB/s read + written")
    report.figure("the machine: matrix product", machine.peak / 1e9, "GFLOP/s")
    report.note(LIMIT)


def gpu_clock(device: torch.device) -> Clock:
    """Seconds by the GPU's own events; asking waits until the work that was sent there is done."""
    stream = torch.cuda.current_stream(device)
    origin = stream.record_event(torch.cuda.Event(enable_timing=True))

    def now() -> float:
        event = stream.record_event(torch.cuda.Event(enable_timing=True))
        event.synchronize()
        return float(origin.elapsed_time(event)) / 1e3

    return Clock("GPU", now)


if __name__ == "__main__":
    main()
