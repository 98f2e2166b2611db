"""A report's pictures: written as files beside the page, and carried in it."""

import base64
import re
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from markupsafe import Markup

from model.report.figures import DPI


@dataclass(frozen=True)
class Picture:
    """A PNG in the page. uri: all of it.  width, height: CSS pixels."""

    alt: str
    uri: Markup
    width: int
    height: int


@dataclass
class Album:
    """Where pictures go: as files beside the page, and into it."""

    page: Path
    taken: set[str] = field(default_factory=set)

    def add(self, name: str, alt: str, draw: Callable[[Path], None]) -> Picture:
        """Have a picture drawn, under a name made of letters, digits, dots, - and _."""
        safe = re.sub(r"[^\w.-]+", "-", name)
        number = 2
        while (stem := safe if safe not in self.taken else f"{safe}-{number}") in self.taken:
            number += 1
        self.taken.add(stem)
        path = self.page.with_name(f"{self.page.stem}-{stem}.png")
        draw(path)
        content = path.read_bytes()
        width, height = struct.unpack(">II", content[16:24])
        uri = Markup("data:image/png;base64," + base64.b64encode(content).decode("ascii"))
        return Picture(alt, uri, round(width * 100 / DPI), round(height * 100 / DPI))
