"""The error for files that are not what was written."""


class DamagedError(ValueError):
    """What lies on disk is not what was written: nobody's mistake, but nothing to go on with either."""
