"""Batch -> encoder -> losses -> checkpoint -> report."""
