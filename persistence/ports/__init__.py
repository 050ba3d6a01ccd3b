"""What the use cases ask of a store. Protocols only: no driver is reachable from here.

Every read takes the organisation: tenant scope is part of the store's own query.
"""

from .audit import Audit, AuditStore
from .batches import BatchStore
from .documents import ChangeFeed, ConfigStore, PriceStore
from .errors import Conflict, StoreConflictError, StoreUnavailableError
from .files import LINK_SECONDS_AT_MOST, ObjectStore
from .keys import ApiKeyStore
from .ledger import InflightLog, LedgerStore
from .limits import LimitStore
from .provider_keys import ProviderKeyStore
from .queue import Delivery, JobFailures, JobQueue
from .reservations import Leases, Reservations
from .shared import LISTENER_BACKLOG, REPLAYED_AT_MOST, Counters, Events, Replays, SharedValues
from .trusted import TrustedDocumentStore
from .webhooks import WebhookOutbox, WebhookStore

__all__ = [
    "LINK_SECONDS_AT_MOST",
    "LISTENER_BACKLOG",
    "REPLAYED_AT_MOST",
    "ApiKeyStore",
    "Audit",
    "AuditStore",
    "BatchStore",
    "ChangeFeed",
    "ConfigStore",
    "Conflict",
    "Counters",
    "Delivery",
    "Events",
    "InflightLog",
    "JobFailures",
    "JobQueue",
    "Leases",
    "LedgerStore",
    "LimitStore",
    "ObjectStore",
    "PriceStore",
    "ProviderKeyStore",
    "Replays",
    "Reservations",
    "SharedValues",
    "StoreConflictError",
    "StoreUnavailableError",
    "TrustedDocumentStore",
    "WebhookOutbox",
    "WebhookStore",
]
