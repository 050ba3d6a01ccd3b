"""Stores: ports, stored records and one driver a file."""
