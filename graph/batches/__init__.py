"""Batches in the schema."""
