"""What every object with an id of its own is."""

from __future__ import annotations

import strawberry


@strawberry.interface(description="Anything that can be asked for again by its id alone (Relay).")
class Node:
    id: strawberry.ID = strawberry.field(description="Global: it says what it names by how it begins.")
