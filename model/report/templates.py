"""The files beside this one that a page is put together from."""

from collections.abc import Callable, Mapping
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

FOLDER = Path(__file__).parent


def render(template: str, filters: Mapping[str, Callable[..., str]] | None = None, **content: object) -> str:
    """A template with its content. Whatever is not `Markup` is escaped; what it needs must be given."""
    environment = Environment(
        loader=FileSystemLoader(FOLDER),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= filters or {}
    return environment.get_template(template).render(**content)


def read_part(name: str) -> str:
    """A style sheet or script as it is."""
    return (FOLDER / name).read_text(encoding="utf-8")
