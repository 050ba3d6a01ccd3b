"""Configs and price rules on MongoDB."""
