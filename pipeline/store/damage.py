"""The error for files that are not what was written."""

# What a user can do about shards that are not as they were written.
REPAIR = (
    "run the preprocess command again where they were made, which keeps what is whole (with --overwrite, if "
    "another version of this program made them)"
)


class DamagedError(ValueError):
    """What lies on disk is not what was written: nobody's mistake, but nothing to go on with either."""
