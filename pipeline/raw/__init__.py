"""Recordings as they lie on the user's disk."""
