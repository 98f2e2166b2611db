"""The commands on a GPU, or on one that is not there: `python -m tests.gpu.session`.

Reads a command's arguments as a line of JSON and answers with another: exit code, output, how often the host
waited in all, and in each step but the first. The GPU is a real one where torch knows such; else `LD_PRELOAD`
names what `pretend.build` made, of the kind that PRETEND names.
"""

import json
import sys
import warnings
from collections import Counter
from itertools import pairwise
from typing import Any

import torch
from click.testing import CliRunner
from torch.optim.optimizer import register_optimizer_step_post_hook

from cli import main
from model import classify
from tests.gpu import pretend


def serve() -> None:
    if torch.version.cuda is None:
        pretend.install()
        waits = pretend.waits
    else:
        waits = waits_of_a_real_one()
    classify.PENALTIES = (300.0,)  # the many small operations of fifty fits take minutes on the pretended one
    after_steps: list[Counter[str]] = []
    register_optimizer_step_post_hook(lambda *_: after_steps.append(Counter(waits)))
    for line in sys.stdin:
        waits.clear()
        after_steps.clear()
        result = CliRunner().invoke(main, json.loads(line))
        steps = [after - before for before, after in pairwise(after_steps)]
        answer = {"code": result.exit_code, "output": result.output, "waits": waits, "steps": steps}
        print(json.dumps(answer), flush=True)


def waits_of_a_real_one() -> Counter[str]:
    """Counts what torch warns of as synchronising."""
    waits: Counter[str] = Counter()

    def told(message: Warning | str, category: type[Warning], filename: str, lineno: int, *_: Any) -> None:
        if "synchronizing CUDA operation" in str(message):
            waits[f"{category.__name__} at {filename}:{lineno}"] += 1

    warnings.simplefilter("always")
    warnings.showwarning = told  # type: ignore[assignment]
    torch.cuda.set_sync_debug_mode("warn")
    return waits


if __name__ == "__main__":
    serve()
