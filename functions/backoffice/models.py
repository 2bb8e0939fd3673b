"""Requests and responses of the back office API."""

from datetime import date
from decimal import Decimal
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, PlainSerializer, WithJsonSchema, model_validator
from pydantic.alias_generators import to_camel
from pydantic.json_schema import SkipJsonSchema

from dlq_processor.domain import FailedEventStatus, FailureKind
from orderflow.http_api import NextCursor, PlainText, RequestModel
from orderflow.serialization import json_number

MAX_AVAILABLE = 1_000_000

Text = Annotated[PlainText, Field(max_length=200)]


class RedriveRequest(RequestModel):
    """Selects the failed events of a consumer, of a status, or of both."""

    consumer: Text | None = None
    status: Literal["NEW", "RETRYING", "PARKED"] | None = None

    @model_validator(mode="after")
    def _require_a_filter(self) -> "RedriveRequest":
        if self.consumer is None and self.status is None:
            raise ValueError("name a consumer, a status, or both")
        return self


class SetStockRequest(RequestModel):
    """The number of available pieces, as counted at a version of the stock."""

    available: Annotated[int, Field(ge=0, le=MAX_AVAILABLE)]
    version: Annotated[int, Field(ge=0)]
    note: Text


class ResponseModel(BaseModel):
    """A response body: fields in camelCase, read from the attributes of a dataclass."""

    model_config = ConfigDict(alias_generator=to_camel, defer_build=True, from_attributes=True, populate_by_name=True)


Money = Annotated[
    Decimal,
    PlainSerializer(json_number, when_used="json"),
    WithJsonSchema({"description": "Money, with at most two decimals.", "type": "number"}),
]
OptionalText = str | SkipJsonSchema[None]
Number = Annotated[int, Field(ge=0)]
Timestamp = Annotated[str, WithJsonSchema({"type": "string", "format": "date-time"})]
Day = Annotated[date, Field(description="In UTC.")]


class TallyResponse(ResponseModel):
    """A number of orders, with their pieces and their total."""

    orders: int
    items: int
    revenue: Money


class SalesTotals(ResponseModel):
    """The sums of all days and promotion codes."""

    confirmed: TallyResponse
    cancelled: TallyResponse
    net: Annotated[TallyResponse, Field(description="Confirmed less cancelled: negative if more was cancelled.")]


class DaySales(ResponseModel):
    """The sales of one day under one promotion code, or without one."""

    day: Day
    promotion: Annotated[OptionalText, Field(serialization_alias="promotionCode")] = None
    confirmed: TallyResponse
    cancelled: TallyResponse


class SalesResponse(ResponseModel):
    """Confirmed orders, and orders cancelled after that."""

    first: Annotated[Day, Field(alias="from")]
    last: Annotated[Day, Field(alias="to")]
    totals: SalesTotals
    items: list[DaySales]


class PromotionSales(ResponseModel):
    """The orders under one promotion code."""

    promotion_code: str
    placed: TallyResponse
    confirmed: TallyResponse
    cancelled: TallyResponse


class PromotionsResponse(ResponseModel):
    """Placed, confirmed and cancelled orders by promotion code."""

    first: Annotated[Day, Field(alias="from")]
    last: Annotated[Day, Field(alias="to")]
    items: list[PromotionSales]


class FailedEventResponse(ResponseModel):
    """An event that one of its consumers failed to process."""

    id: str
    consumer: str
    event_id: str
    kind: FailureKind
    reason: str
    message: str
    status: FailedEventStatus
    first_failed_at: Timestamp
    last_failed_at: Timestamp
    failures: Annotated[int, Field(ge=1)]
    attempts: Annotated[Number, Field(description="Automatic retries so far.")]
    order_id: OptionalText = None
    detail_type: OptionalText = None
    correlation_id: OptionalText = None
    remediation: Annotated[OptionalText, Field(description="The command to run if a redrive cannot help.")] = None
    resolved_at: Timestamp | SkipJsonSchema[None] = None


class FailedEventsResponse(ResponseModel):
    """A page of failed events. With `consumer`, a page can be short or empty and still have a next page."""

    items: list[FailedEventResponse]
    next_cursor: NextCursor = None


class RedriveResponse(FailedEventResponse):
    """A failed event after its redrive."""

    outcome: Literal["RESOLVED", "FAILED"]


class RedriveAllResponse(ResponseModel):
    """The number of failed events by the outcome of their redrive."""

    resolved: Number
    failed: Number
    not_redrivable: Annotated[Number, Field(description="Run the command in their `remediation` instead.")]
    remaining: Annotated[bool, Field(description="Whether time ran out before all were redriven: repeat the call.")]


class AvailableChange(ResponseModel):
    """The available pieces before and after a change."""

    before: Annotated[Number, Field(alias="from")]
    after: Annotated[Number, Field(alias="to")]


class StockChangeResponse(ResponseModel):
    """A change of stock by a member of staff."""

    available: AvailableChange
    by: Annotated[str, Field(description="The subject of the staff member's token.")]
    note: str
    at: Timestamp
    version: Annotated[int, Field(ge=1)]


class StockResponse(ResponseModel):
    """The stock of a product."""

    product_id: str
    available: Number
    reserved: Number
    version: Annotated[Number, Field(description="The number of changes, including reservations and releases.")]
    changes: Annotated[list[StockChangeResponse], Field(description="The last ten changes by staff, newest first.")]
