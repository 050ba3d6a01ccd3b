"""Configs: their types, inputs and fields."""
