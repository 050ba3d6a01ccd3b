"""Failures of jobs that are queued elsewhere, on MongoDB: `job_failures`, which the server itself forgets."""

from __future__ import annotations

from datetime import datetime

from pymongo import ReturnDocument

from .client import Mongo
from .times import stamp


class MongoJobFailures:
    """`persistence.ports.JobFailures` in one collection. Raises as `Mongo` does."""

    def __init__(self, mongo: Mongo) -> None:
        self._mongo = mongo

    async def add(self, name: str, *, known: int, at: datetime) -> int:
        counted = {"$add": [{"$max": ["$failures", known]}, 1]}
        adding = [{"$set": {"failures": counted, "failed_at": {"$max": ["$failed_at", stamp(at)]}}}]
        found = await self._mongo.write(
            lambda database: database.job_failures.find_one_and_update(
                {"_id": name}, adding, upsert=True, return_document=ReturnDocument.AFTER
            )
        )
        return int(found["failures"])
