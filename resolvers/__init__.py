"""The use cases, free of GraphQL: they take and return domain dataclasses."""
