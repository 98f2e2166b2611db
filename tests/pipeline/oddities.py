"""What a reader must refuse of the oddities that `synthesize` writes."""

UNREADABLE = frozenset({"13 values", "nul", "truncated", "overclaimed"})
