"""Traces for OpenTelemetry and for Atatus. Where neither is turned on, nothing of theirs is imported."""
