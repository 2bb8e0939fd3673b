"""What staff may send to the back office, checked field by field."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from orderflow.http_api import PlainText, RequestModel

MAX_AVAILABLE = 1_000_000

Text = Annotated[PlainText, Field(max_length=200)]


class RedriveRequest(RequestModel):
    """The body of `POST /admin/failed-events/redrive`: which of them."""

    consumer: Text | None = None
    status: Literal["NEW", "RETRYING", "PARKED"] | None = None

    @model_validator(mode="after")
    def _not_simply_all(self) -> "RedriveRequest":
        if self.consumer is None and self.status is None:
            raise ValueError("name a consumer, a status, or both")
        return self


class SetStockRequest(RequestModel):
    """The body of `PUT /admin/products/{productId}/stock`: how many there are, as counted at a version of the stock."""

    available: Annotated[int, Field(ge=0, le=MAX_AVAILABLE)]
    version: Annotated[int, Field(ge=0)]
    note: Text
