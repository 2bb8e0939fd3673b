"""What the back office answers, for its documentation and the tests: the functions themselves never import this."""

from datetime import date
from typing import Annotated, Literal

from pydantic import AwareDatetime, BaseModel, Field, WithJsonSchema

from dlq_processor.domain import Kind
from dlq_processor.repository import FailedEventStatus as Status
from orderflow.contracts import ContractModel, Count, Money, Text
from orders.answers import NextCursor

Number = Annotated[int, Field(ge=0)]
# Written out where it is used: orders have a Status too.
FailureStatus = Annotated[str, WithJsonSchema({"type": "string", "enum": list(Status)})]
Day = Annotated[date, Field(description="In UTC.")]


class Tally(ContractModel):
    """So many orders, with so many pieces for so much money."""

    orders: Number
    items: Number
    revenue: Money


class NetTally(ContractModel):
    """What was confirmed less what was cancelled; below zero where more was taken back than sold."""

    orders: int
    items: int
    revenue: Annotated[float, WithJsonSchema({"description": "Money, with two decimals at most.", "type": "number"})]


class SalesTotals(ContractModel):
    """The sums of all days and promotions."""

    confirmed: Tally
    cancelled: Tally
    net: NetTally


class DaySales(ContractModel):
    """What was sold and taken back on a day, under a promotion code or under none."""

    day: Day
    promotion_code: Text | None = None
    confirmed: Tally
    cancelled: Tally


class Sales(ContractModel):
    """What was sold and taken back."""

    first: Annotated[Day, Field(alias="from")]
    last: Annotated[Day, Field(alias="to")]
    totals: SalesTotals
    items: tuple[DaySales, ...]


class PromotionSales(ContractModel):
    """What was ordered, sold and taken back under a promotion code."""

    promotion_code: Text
    placed: Tally
    confirmed: Tally
    cancelled: Tally


class Promotions(ContractModel):
    """What was ordered, sold and taken back, by promotion code."""

    first: Annotated[Day, Field(alias="from")]
    last: Annotated[Day, Field(alias="to")]
    items: tuple[PromotionSales, ...]


class FailedEvent(ContractModel):
    """An event that one of its consumers did not handle."""

    id: Text
    consumer: Text
    event_id: Text
    kind: Kind
    reason: Text
    message: str
    status: FailureStatus
    first_failed_at: AwareDatetime
    last_failed_at: AwareDatetime
    failures: Count
    attempts: Annotated[int, Field(ge=0, description="Automatic retries so far.")]
    order_id: Text | None = None
    detail_type: Text | None = None
    correlation_id: Text | None = None
    mend: Annotated[Text, Field(description="The command that mends what no redrive can.")] | None = None
    resolved_at: AwareDatetime | None = None


class FailedEventPage(ContractModel):
    """Some of the failed events. With `consumer` a page may be short, even empty, and not the last."""

    items: tuple[FailedEvent, ...]
    next_cursor: NextCursor | None = None


class RedrivenEvent(FailedEvent):
    """A failed event after its redrive."""

    outcome: Literal["RESOLVED", "FAILED"]


class RedrivenEvents(ContractModel):
    """What became of the failed events that matched."""

    resolved: Number
    failed: Number
    not_redrivable: Annotated[Number, Field(description="How many no redrive can mend; see their `mend`.")]
    remaining: Annotated[bool, Field(description="Whether there was no time for some: repeat the call.")]


class AvailableChange(ContractModel):
    """How many were available before a change and after it."""

    before: Annotated[Number, Field(alias="from")]
    after: Annotated[Number, Field(alias="to")]


class StockChange(ContractModel):
    """A change of stock that somebody of the staff made."""

    available: AvailableChange
    by: Annotated[Text, Field(description="The subject of their token.")]
    note: Text
    at: AwareDatetime
    version: Count


class Stock(ContractModel):
    """What there is of a product."""

    product_id: Text
    available: Number
    reserved: Number
    version: Annotated[Number, Field(description="The number of changes, reservations and releases too.")]
    changes: Annotated[tuple[StockChange, ...], Field(description="The last ten that staff made, newest first.")]


ANSWERS: dict[str, type[BaseModel]] = {
    "get_sales": Sales,
    "get_promotions": Promotions,
    "list_failed_events": FailedEventPage,
    "redrive_failed_events": RedrivenEvents,
    "redrive_failed_event": RedrivenEvent,
    "park_failed_event": FailedEvent,
    "get_stock": Stock,
    "set_stock": Stock,
}
"""By the function that gives them when all is well."""
