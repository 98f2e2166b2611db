"""Which code of this project decides what is written.

Another version may write other bytes from equal settings: what is half done is not finished by it.
"""

import hashlib
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[1]
# From a raw file to the numbers of a sample.
DECIDING = ("data_specs/*.py", "pipeline/normalize*.py", "pipeline/raw/*.py", "pipeline/shard_task.py")
ALL = ("data_specs/*.py", "pipeline/**/*.py")


@cache
def code_digest(patterns: tuple[str, ...] = DECIDING) -> str:
    """Twelve hex digits of the SHA-256 over these modules' text; patterns: relative to the project's root."""
    digest = hashlib.sha256()
    for path in sorted({path for pattern in patterns for path in ROOT.glob(pattern)}):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:12]
