"""The commands on a GPU that is not there: `LD_PRELOAD=LIBRARY python -m tests.gpu.session`.

Reads a command's arguments as a line of JSON and answers with another: exit code, output, how often the host
would have waited in all, and in each step but the first.
"""

import json
import sys
from collections import Counter
from itertools import pairwise

from click.testing import CliRunner
from torch.optim.optimizer import register_optimizer_step_post_hook

from cli import main
from model import classify
from tests.gpu import pretend


def serve() -> None:
    pretend.install()
    classify.PENALTIES = (0.1,)  # the many small operations of fifty fits take minutes here
    after_steps: list[Counter[str]] = []
    register_optimizer_step_post_hook(lambda *_: after_steps.append(Counter(pretend.waits)))
    for line in sys.stdin:
        pretend.waits.clear()
        after_steps.clear()
        result = CliRunner().invoke(main, json.loads(line))
        steps = [after - before for before, after in pairwise(after_steps)]
        answer = {"code": result.exit_code, "output": result.output, "waits": pretend.waits, "steps": steps}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    serve()
