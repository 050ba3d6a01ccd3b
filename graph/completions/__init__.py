"""Completions: their types, inputs and fields."""
