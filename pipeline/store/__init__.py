"""What preprocessing writes: shards and their manifest."""
