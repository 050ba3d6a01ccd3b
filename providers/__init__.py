"""Adapters that talk to model vendors: sans-IO codecs, one HTTP seam, prices."""
