"""The embedded default: SQLite, in one file."""
