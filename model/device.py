"""Which device computes."""

import torch


def choose_device(name: str | None) -> torch.device:
    """The named device, or the best there is: cuda, mps, cpu. Raises ValueError if it cannot be used."""
    if name is None:
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError):
        raise ValueError(f"device {name!r} cannot be used here; expected cpu, cuda, cuda:1 or mps") from None
    return device
