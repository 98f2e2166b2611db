"""Compact versions of the methods that the paper's tables compare with; see docs/baselines.md."""
