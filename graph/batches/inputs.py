"""What batches are asked with."""

from __future__ import annotations

from datetime import datetime
from enum import Enum

import orjson
import strawberry

from graph.completions.inputs import CompleteInput, ConfigRef, LabelInput, aware, labels_of
from graph.inputs import planned
from persistence import batch_records as records
from resolvers.batches.asked import BatchAsked, Given
from resolvers.errors import BadUserInputError

from .lines import Defaults, item_asked


@strawberry.enum(description="Who works on a batch.")
class BatchMode(Enum):
    LIVE = strawberry.enum_value(
        "live", description="Workers of this API, one call after the other: with limits, retries and fallbacks."
    )
    PROVIDER = strawberry.enum_value(
        "provider",
        description="The vendor, by its own batch API at its batch price, within a day: OpenAI and Anthropic.",
    )


@strawberry.enum(description="How far a batch is.")
class BatchState(Enum):
    RUNNING = strawberry.enum_value("running", description="Its items wait for their turns, or run.")
    CANCELLING = strawberry.enum_value("cancelling", description="What has not ended is being stopped.")
    RETRYING = strawberry.enum_value("retrying", description="What failed is being made ready to run anew.")
    COMPLETED = strawberry.enum_value("completed", description="Every item has ended, some maybe with an error.")
    CANCELLED = strawberry.enum_value("cancelled", description="Every item has ended; it was cancelled meanwhile.")

    @classmethod
    def of(cls, state: records.BatchState) -> BatchState:
        return cls.RETRYING if state is records.BatchState.RETRYING_ALL else cls(state.value)

    @property
    def kept_as(self) -> tuple[records.BatchState, ...]:
        found = records.BatchState[self.name]
        return (found, records.BatchState.RETRYING_ALL) if self is BatchState.RETRYING else (found,)


@strawberry.enum(description="How far an item of a batch is.")
class BatchItemState(Enum):
    WAITING = strawberry.enum_value("waiting", description="For its turn, for a limit, or for another try.")
    QUEUED = strawberry.enum_value("queued", description="The next free worker takes it.")
    RUNNING = strawberry.enum_value("running", description="A worker, or the vendor, has it.")
    SUCCEEDED = strawberry.enum_value("succeeded", description="It has an answer.")
    FAILED = strawberry.enum_value("failed", description="It has an error.")
    CANCELLED = strawberry.enum_value("cancelled", description="It was stopped, or never begun.")


@planned
@strawberry.input(description="A batch: its inputs, either here or as a file, and how it is to be worked on.")
class SubmitBatchInput:
    inputs: list[CompleteInput] | None = strawberry.field(
        default=strawberry.UNSET, description="The completions that are asked for, 1 to 1000. Either these or `file`."
    )
    file: str | None = strawberry.field(
        default=strawberry.UNSET,
        description="The name of a file of the organisation's in object storage, as uploadBatchFile tells it: JSON "
        "Lines, of which each is a CompleteInput, with a `customId` of your own beside its fields if you like. Up to "
        "100000 lines of 8 MiB and 10000 values at most, 2 GiB in all with what their configs say. To read it, and to "
        "fill in the configs that it names, costs the CPU that it takes.",
    )
    model: str | None = strawberry.field(
        default=strawberry.UNSET, description='Of inputs that name neither model nor config: "provider/model".'
    )
    config: ConfigRef | None = strawberry.field(
        default=strawberry.UNSET, description="Of inputs that name neither model nor config."
    )
    mode: BatchMode | None = strawberry.field(default=strawberry.UNSET, description="Who works on it; LIVE by default.")
    concurrency: int | None = strawberry.field(
        default=strawberry.UNSET,
        description="In mode LIVE: how many of its items run at once at most, 1 to 10000; absent, any.",
    )
    priority: int | None = strawberry.field(
        default=strawberry.UNSET,
        description="0 to 9, by default 5: of the organisation's batches, those of greater priority go first.",
    )
    deadline: datetime | None = strawberry.field(
        default=strawberry.UNSET,
        description="What has not begun by then fails with DEADLINE_EXCEEDED: within 30 days; absent, in 7 days.",
    )
    webhook: strawberry.ID | None = strawberry.field(
        default=strawberry.UNSET,
        description="The webhook that is told of this batch's end, it alone and whatever events it asks for; absent, "
        "all are that ask for BATCH_COMPLETED.",
    )
    labels: list[LabelInput] | None = strawberry.field(
        default=strawberry.UNSET,
        description="Come to those of each input. Up to 19: each completion also has the label `batch`, its value the "
        "batch's id.",
    )
    idempotency_key: str | None = strawberry.field(
        default=strawberry.UNSET,
        description="Your own name of this batch, unique in the organisation: submitted again, the same batch is told, "
        "and what differs is a CONFLICT.",
    )
    dry_run: bool | None = strawberry.field(
        default=strawberry.UNSET, description="True to have every input checked and priced, and nothing accepted."
    )

    @property
    def defaults(self) -> Defaults:
        return self.model, self.config

    def asked(self) -> BatchAsked:
        """Raises BadUserInputError for what the schema's types can't rule out."""
        if (self.inputs is None) == (self.file is None):
            raise BadUserInputError("give either inputs or file", path=("input",))
        return BatchAsked(
            mode=records.BatchMode[(self.mode or BatchMode.LIVE).name],
            priority=5 if self.priority is None else self.priority,
            concurrency=self.concurrency,
            deadline=aware(self.deadline, ("input", "deadline")),
            webhook=self.webhook,
            idempotency_key=self.idempotency_key,
            labels=labels_of(self.labels, path=("input",)),
            file=self.file,
            defaults=orjson.dumps(self.defaults).decode(),
        )

    def given(self) -> list[Given]:
        """The inputs that are in it."""
        return [_given(each, self.defaults) for each in self.inputs or ()]


def _given(each: CompleteInput, defaults: Defaults) -> Given:
    return Given(orjson.dumps(each), lambda: item_asked(each, defaults))


@planned
@strawberry.input(description="A file that is to be brought.")
class UploadBatchFileInput:
    seconds: int | None = strawberry.field(
        default=strawberry.UNSET, description="For how long the link opens, 60 to 86400; an hour by default."
    )


@planned
@strawberry.input(description="Which batch to cancel.")
class CancelBatchInput:
    id: strawberry.ID = strawberry.field(description="The batch's id.")


@planned
@strawberry.input(description="Which batch to begin anew, and what of it.")
class RetryBatchInput:
    id: strawberry.ID = strawberry.field(description="The batch's id.")
    only_failed: bool | None = strawberry.field(
        default=strawberry.UNSET,
        description="True, as by default, for the items that failed; false for those too that were cancelled.",
    )
