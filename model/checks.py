"""What the fields of a configuration may hold.

Each check raises ValueError that names the field, what was found and what was expected; whoever builds the
configuration puts the group's name before it.
"""

import math
from typing import Any

# Far more than anybody stacks; that many more would fill the memory one by one.
MOST_LAYERS = 100


def check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    """One of the choices."""
    if value not in choices:
        raise ValueError(f"{name} is {value!r}; expected one of {', '.join(choices)}")


def check_some(name: str, values: tuple[str, ...], choices: tuple[str, ...]) -> None:
    """At least one of the choices, each once."""
    if not values or len(set(values)) < len(values) or not set(values) <= set(choices):
        raise ValueError(f"{name} is {list(values)}; expected some of {', '.join(choices)}, each once")


def check_above_zero(config: Any, *names: str) -> None:
    """Finite numbers above 0."""
    for name in names:
        if not 0 < getattr(config, name) < math.inf:
            raise ValueError(f"{name} is {getattr(config, name)}; expected a finite number above 0")


def check_not_negative(config: Any, *names: str) -> None:
    """Finite numbers, 0 or more."""
    for name in names:
        if not 0 <= getattr(config, name) < math.inf:
            raise ValueError(f"{name} is {getattr(config, name)}; expected a finite number, at least 0")


def check_at_most(name: str, value: int, most: int) -> None:
    """A number that is not larger."""
    if value > most:
        raise ValueError(f"{name} is {value}; expected at most {most}")


def check_positive_list(name: str, values: tuple[int, ...], length: int | None = None) -> None:
    """Numbers above 0: so many, or at least one."""
    if not values or min(values) < 1 or (length is not None and len(values) != length):
        raise ValueError(
            f"{name} is {list(values)}; expected {length or 'one or more'} whole numbers above 0"
        )
