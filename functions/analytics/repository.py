"""Stores facts and counters in DynamoDB: a fact and its counter change in the same transaction."""

from collections.abc import Iterator, Mapping, Sequence
from datetime import date, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from boto3.dynamodb.conditions import Key
from botocore.exceptions import BotoCoreError, ClientError

from analytics.domain import Counter, Fact, Figures, Kind, Tally, months, sum_by_counter
from orderflow.dynamodb import ATTEMPTS, CONDITION_FAILED, NO_ERROR, is_retryable, pause_after, reason_codes
from orderflow.serialization import timestamp

if TYPE_CHECKING:
    from mypy_boto3_dynamodb.service_resource import DynamoDBServiceResource


class NotCounted(Exception):
    """The transaction failed, or its response was lost. The text is the error code."""


class Analytics:
    """The analytics table."""

    def __init__(self, dynamodb: "DynamoDBServiceResource", table: str) -> None:
        self._client = dynamodb.meta.client
        self._table = table

    def count(self, facts: Sequence[Fact], now: datetime) -> int:
        """Counts the facts that have not been counted before, in one transaction, and returns how many these are.

        Args:
            facts: of different events, and within the limits of a transaction (`analytics.domain.chunks`).

        Raises:
            NotCounted: it is safe to count the same facts again.
        """
        failures = 0
        while facts:
            try:
                self._client.transact_write_items(TransactItems=self._writes(facts, now))
                return len(facts)
            except self._client.exceptions.TransactionCanceledException as error:
                codes = reason_codes(error)
                # A failed condition means that the fact exists. The writes of the facts come first in the transaction.
                new = [fact for fact, code in zip(facts, codes, strict=False) if code != CONDITION_FAILED]
                if len(new) < len(facts):
                    facts = new
                    continue
                failures += 1
                if failures == ATTEMPTS or not is_retryable(codes):
                    raise NotCounted(", ".join(sorted(set(codes) - {NO_ERROR}))) from error
                pause_after(failures)
            except ClientError as error:
                raise NotCounted(error.response["Error"]["Code"]) from error
            except BotoCoreError as error:
                raise NotCounted(type(error).__name__) from error
        return 0

    def _writes(self, facts: Sequence[Fact], now: datetime) -> list[Any]:
        """Returns the writes of a transaction: the facts, in the same order, and then the counters."""
        is_new = {"TableName": self._table, "ConditionExpression": "attribute_not_exists(pk)"}
        puts = [{"Put": {**is_new, "Item": _fact_item(fact, now)}} for fact in facts]
        return [*puts, *({"Update": self._update(*sums)} for sums in sum_by_counter(facts).items())]

    def _update(self, counter: Counter, sums: Mapping[Kind, Tally]) -> dict[str, Any]:
        values = {
            f"{kind}{name.capitalize()}": value for kind, tally in sums.items() for name, value in vars(tally).items()
        }
        day, promotion = counter
        return {
            "TableName": self._table,
            "Key": {"pk": f"SALES#{day.isoformat()[:7]}", "sk": f"{day}#{promotion or ''}"},
            "UpdateExpression": "ADD " + ", ".join(f"{name} :{name}" for name in values),
            "ExpressionAttributeValues": {f":{name}": value for name, value in values.items()},
        }

    def figures(self, first: date, last: date) -> Iterator[Figures]:
        """Returns the figures from the first to the last day, both included, sorted by day and promotion."""
        between = Key("sk").between(f"{first}#", f"{last}$")  # "$" is the character after "#"
        pages = self._client.get_paginator("query")
        for month in months(first, last):
            condition: Any = Key("pk").eq(f"SALES#{month}") & between
            for page in pages.paginate(TableName=self._table, KeyConditionExpression=condition):
                yield from map(_figures, page["Items"])


def _fact_item(fact: Fact, now: datetime) -> dict[str, Any]:
    promotion = {"promotion": fact.promotion} if fact.promotion else {}
    counted = {"day": fact.day.isoformat(), **promotion, "kind": fact.kind.value, **vars(fact.tally)}
    return {"pk": f"FACT#{fact.event_id}", "sk": "FACT", **counted, "countedAt": timestamp(now)}


def _figures(item: Mapping[str, Any]) -> Figures:
    day, _, promotion = item["sk"].partition("#")
    sales = {kind.value: _tally(item, kind) for kind in Kind}
    return Figures(day=date.fromisoformat(day), promotion=promotion or None, **sales)


def _tally(item: Mapping[str, Any], kind: Kind) -> Tally:
    orders, items, revenue = (item.get(f"{kind}{name}", Decimal(0)) for name in ("Orders", "Items", "Revenue"))
    return Tally(int(orders), int(items), revenue)
