"""Batches: many completions under one id, done in their own time and none lost."""
