"""The executor: graphql-core's, with compiled plans where a selection is made of plain fields alone."""

from __future__ import annotations

from functools import cached_property
from typing import Any

from graphql import (
    ExecutionResult,
    GraphQLError,
    GraphQLOutputType,
    GraphQLResolveInfo,
    OperationType,
    is_non_null_type,
)
from graphql.execution import Executor
from graphql.execution.collect_fields import FieldDetailsList, collect_fields
from graphql.pyutils import Path, is_awaitable
from strawberry.execution import optimized_is_awaitable
from strawberry.schema.schema import StrawberryGraphQLCoreExecutionContext
from strawberry.schema.schema_converter import GraphQLCoreConverter
from strawberry.types.field import StrawberryField

from .plan import Compiler, OnlyField, OperationPlans, Plan, PlanCache, is_usual

MAX_FAILURES = 10
"""Of plans, in one operation or event; then it goes on without. Most of an answer may be completed twice each time."""


class CompiledExecutor(StrawberryGraphQLCoreExecutionContext):
    """For `strawberry.Schema(execution_context_class=...)`. Answers as Strawberry's own executor does, to the letter.

    Two things run by plan: the value of a query's or mutation's field, once its resolver has given it, and the events
    of a subscription. What a plan can't complete is completed anew, the same value, by graphql-core. And an operation
    of one root field, as most are, goes without the machinery that runs several.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._failures_left = MAX_FAILURES
        self._conditions: tuple[object, ...] = ()
        self._plans: OperationPlans | None = self._find_plans()

    def execute_operation(self, serially: bool | None = None) -> Any:
        only = self._only_field()
        if only is None:
            return super().execute_operation(serially)
        name, details, parent = only
        try:
            value = self.execute_field(parent, self.root_value, details, Path(None, name, parent.name), None)
        except GraphQLError as error:
            return self._failed(error)
        return self._answer_later(name, value) if self.is_awaitable(value) else self.build_response({name: value})

    async def _answer_later(self, name: str, value: Any) -> Any:
        try:
            return self.build_response({name: await value})
        except GraphQLError as error:
            return self._failed(error)

    def _failed(self, error: GraphQLError) -> Any:
        self.collected_errors.add(error, None)
        return self.build_response(None)

    def complete_value(
        self,
        return_type: GraphQLOutputType,
        field_details_list: FieldDetailsList,
        info: GraphQLResolveInfo[Any],
        path: Path,
        result: Any,
        position_context: Any,
    ) -> Any:
        composite = field_details_list[0].node.selection_set is not None and not is_non_null_type(return_type)
        if composite and self._plans is not None and position_context is None:
            plan = self._plan(return_type, field_details_list)
            if plan is not None:
                try:
                    return plan(result)
                except Exception:  # noqa: BLE001  # graphql-core meets it again, and words and places it
                    self._failures_left -= 1
                    if not self._failures_left:
                        self._plans = None
        return super().complete_value(return_type, field_details_list, info, path, result, position_context)

    def build_per_event_executor(self, payload: Any) -> Executor[Any]:
        plan = self._event_plan
        return self.stock_event(payload) if plan is None else _CompiledEvent(self, *plan, payload)

    def stock_event(self, payload: Any) -> CompiledExecutor:
        event = super().build_per_event_executor(payload)
        assert isinstance(event, CompiledExecutor)  # noqa: S101  # it is a copy of this one
        # graphql-core keeps what each event collected for as long as the subscription lasts, and never finds it again.
        event._relevant_sub_fields = {}
        return event

    def _find_plans(self) -> OperationPlans | None:
        if (
            (self.middleware_manager is not None and self.middleware_manager.middlewares)
            or any(fragment.variable_signatures for fragment in self.fragments.values())
            or self.is_awaitable not in (is_awaitable, optimized_is_awaitable)
        ):
            return None
        plans = PlanCache.of(self.schema).plans(self.operation, tuple(self.fragment_definitions.values()))
        variables = self.variable_values.coerced
        self._conditions = tuple(variables.get(name) for name in plans.conditions)
        return plans if all(isinstance(value, bool) for value in self._conditions) else None

    def _plan(self, type_: GraphQLOutputType, details: FieldDetailsList) -> Plan | None:
        assert self._plans is not None  # noqa: S101  # the caller has looked
        key = (self._conditions, type_, *[id(detail.node) for detail in details])
        return self._plans.get(key, lambda: Compiler(self.schema, self.collect_subfields).compile(type_, details))

    def _only_field(self) -> OnlyField | None:
        """The one root field of a query or mutation, collected once for each value of its conditions."""
        if self._plans is None or self.abort_signal is not None or self.hooks is not None:
            return None
        return self._plans.only_field(self._conditions, self._find_only_field)

    def _find_only_field(self) -> OnlyField | None:
        root = self.schema.get_root_type(self.operation.operation)
        if root is None or self.operation.operation is OperationType.SUBSCRIPTION:
            return None
        try:
            collected = collect_fields(self.schema, self.fragments, self.variable_values, root, self.operation)
        except RecursionError:  # graphql-core meets it again, and words it
            return None
        if len(collected.grouped_field_set) != 1:
            return None
        [(name, details)] = collected.grouped_field_set.items()
        known = self.schema.get_field(root, details[0].node.name.value) is not None
        return (name, details, root) if known and all(map(is_usual, details)) else None

    @cached_property
    def _event_plan(self) -> tuple[str, Plan] | None:
        """Response name and plan of the one root field of a subscription."""
        root = self.schema.subscription_type
        if root is None or self._plans is None or self.abort_signal is not None or self.hooks is not None:
            return None
        collected = collect_fields(self.schema, self.fragments, self.variable_values, root, self.operation)
        if len(collected.grouped_field_set) != 1 or self.operation.operation is not OperationType.SUBSCRIPTION:
            return None
        [(name, details)] = collected.grouped_field_set.items()
        field = self.schema.get_field(root, details[0].node.name.value)
        definition = field and field.extensions.get(GraphQLCoreConverter.DEFINITION_BACKREF)
        # The resolver of a Strawberry subscription gives back the event.
        if field is None or not isinstance(definition, StrawberryField) or not definition.is_subscription:
            return None
        plan = self._plan(field.type, details)
        return None if plan is None else (name, plan)


class _CompiledEvent(CompiledExecutor):
    """One event of a subscription. It has none of an executor's state, which only graphql-core's own path reads."""

    def __init__(self, executor: CompiledExecutor, name: str, plan: Plan, payload: Any) -> None:
        self._executor = executor
        self._name = name
        self._event = plan
        self._payload = payload

    def execute_operation(self, serially: bool | None = None) -> Any:
        try:
            return ExecutionResult({self._name: self._event(self._payload)}, None)
        except Exception:  # noqa: BLE001  # as in complete_value
            return self._executor.stock_event(self._payload).execute_operation(serially)
