"""A vendor on loopback: it serves written transcripts, or answers in any vendor's wire format as the prompt directs."""

from .server import FakeVendor, Record, running

__all__ = ["FakeVendor", "Record", "running"]
