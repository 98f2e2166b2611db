"""The report of runs: one page to open from disk, and a player of skeletons."""
