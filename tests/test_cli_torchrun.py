"""`train` started by torchrun: several processes, one run, and a stop that costs nothing."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import torch

from model.checkpoint import load_checkpoint
from model.run import Run
from pipeline.store.shards import Shards

ROOT = Path(__file__).parents[1]
TINY = (
    "epochs=2",
    "batch_size=4",
    "accumulate=2",
    "model.encoder.widths=[4, 4, 4, 4, 8, 8]",
    "model.decoder.widths=[4, 4, 4, 4, 4]",
)


def start(folder: Path, *arguments: str) -> "subprocess.Popen[str]":
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    return subprocess.Popen(
        [sys.executable, *torchrun, str(ROOT / "cli.py"), "train", "--device", "cpu", *arguments],
        cwd=folder,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finished(process: "subprocess.Popen[str]") -> str:
    """What it printed; its exit code must be 0."""
    printed, said = process.communicate(timeout=300)
    assert process.returncode == 0, said
    return printed


def test_two_processes_that_were_stopped_go_on_to_the_same_bits(shards: Shards, tmp_path: Path) -> None:
    """Accumulating as well; and one of the two writes the run and says so, the other is silent."""
    sets = [f"--set={change}" for change in TINY]
    printed = finished(start(tmp_path, "--shards", str(shards.folder), "--name", "whole", *sets))
    assert printed.count("training on ") == 1
    assert "on cpu, 2 processes" in printed
    process = start(tmp_path, "--shards", str(shards.folder), "--name", "stopped", *sets)
    stopped = Run(tmp_path / "runs/stopped")
    while not stopped.checkpoints:  # of the first epoch's end
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=60)
    at = load_checkpoint(stopped)
    assert f"stopped at step {at.step} of {at.steps}, saved in " in said
    assert at.step < at.steps
    assert "terminate called" not in said
    assert set(re.findall(r"step-(\d+)\.pt", said)) == {f"{at.step:08d}"}  # by either process
    assert finished(start(tmp_path, "--resume", "stopped")).count("training on ") == 1
    found, expected = (load_checkpoint(run).content for run in (stopped, Run(tmp_path / "runs/whole")))
    assert found["step"] == expected["step"]
    for name, weights in expected["model"].items():
        assert torch.equal(found["model"][name], weights), name
