"""The usage ledger on PostgreSQL, with TimescaleDB or without."""
