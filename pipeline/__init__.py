"""Raw file -> shard -> batch of views."""
