"""The demo sends the requests of fixtures in API Gateway's format, in a sensible order, and prints 80 columns."""

import base64
from typing import Any

import pytest

from tools import demo
from tools.demo import FIXTURE_ORDER, Request, Result, in_order, lines, request_of
from tools.http import Answer

ORDER = {
    "orderId": "ORD-1",
    "status": "PENDING",
    "items": [{"productId": "PROD-" + "X" * 59, "quantity": 2}, {"productId": "PROD-CABLE", "quantity": 3}],
    "totalAmount": 1189.77,
    "currency": "USD",
}
PLACED = [[{"detail-type": name}] for name in ("Order Placed", "Inventory Reserved", "Order Confirmed")]
CANCELLED = [[{"detail-type": "Order Cancelled"}, {"detail-type": "Inventory Released"}]]


def get(path: str, user: str | None = "customer") -> Request:
    return Request("GET", path, user, {}, None)


def post(path: str, user: str = "customer") -> Request:
    return Request("POST", path, user, {}, b"{}")


CASES = {
    "cancel": post(f"/orders/{FIXTURE_ORDER}/cancellation"),
    "get": get(f"/orders/{FIXTURE_ORDER}"),
    "products": get("/products", user=None),
    "staff": post("/orders", user="staff"),
    "place": post("/orders"),
    "without_claims": get(f"/orders/{FIXTURE_ORDER}", user=None),
}


class FakeApi:
    """Records the paths. Each POST /orders makes a new order."""

    def __init__(self) -> None:
        self.paths: list[str] = []
        self._orders = 0

    def call(self, method: str, path: str, *, user: str | None, **_: Any) -> Answer:
        self.paths.append(path)
        if user is None:
            return Answer(200, {"items": []}, 0, 0)
        if path == "/orders":
            self._orders += 1
        status = 200 if method == "GET" else 201 if path == "/orders" else 202
        return Answer(status, {**ORDER, "orderId": f"ORD-{self._orders}"}, 0, 0)


class FakeRecord:
    """The events on the bus: those of each call of `new`."""

    def __init__(self, *batches: list[dict[str, str]]) -> None:
        self._batches = iter(batches)

    def new(self) -> list[dict[str, str]]:
        return next(self._batches, [])


def fixture(**more: Any) -> dict[str, Any]:
    return {
        "rawPath": "/orders",
        "rawQueryString": "",
        "headers": {"Content-Type": "application/json", "Idempotency-Key": "k-1", "authorization": "Bearer x"},
        "requestContext": {"http": {"method": "POST"}, "authorizer": {"jwt": {"claims": {"sub": "someone"}}}},
        **more,
    }


def context(claims: dict[str, str] | None) -> dict[str, Any]:
    authorizer = {} if claims is None else {"authorizer": {"jwt": {"claims": claims}}}
    return {"http": {"method": "GET"}, **authorizer}


def test_the_request_has_the_method_path_body_and_relevant_headers_of_the_fixture() -> None:
    request = request_of(fixture(body='{"items": []}'))

    assert (request.method, request.path, request.body) == ("POST", "/orders", b'{"items": []}')
    assert request.headers == {"content-type": "application/json", "idempotency-key": "k-1"}


def test_a_query_belongs_to_the_path() -> None:
    assert request_of(fixture(rawQueryString="limit=2&status=PENDING")).path == "/orders?limit=2&status=PENDING"


def test_a_binary_body_is_decoded() -> None:
    encoded = base64.b64encode(b"\xff\x00").decode()

    assert request_of(fixture(body=encoded, isBase64Encoded=True)).body == b"\xff\x00"


@pytest.mark.parametrize(
    ("claims", "user"),
    [
        (None, None),
        ({"sub": "a"}, "customer"),
        ({"sub": "a", "cognito:groups": "[staff]"}, "staff"),
        ({"sub": "a", "cognito:groups": "[buyers staff]"}, "staff"),
        ({"sub": "a", "cognito:groups": "[non-staff]"}, "customer"),
    ],
)
def test_the_claims_choose_the_user(claims: dict[str, str] | None, user: str | None) -> None:
    assert request_of(fixture(requestContext=context(claims))).user == user


def test_orders_are_placed_before_they_are_read_and_cancelled_at_last() -> None:
    assert in_order(CASES) == ["products", "place", "staff", "get", "without_claims", "cancel"]


def test_a_case_reads_and_cancels_the_order_that_its_user_has_placed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("time.sleep", lambda _: None)
    monkeypatch.setattr("time.time", lambda: 1.0)
    api = FakeApi()

    unsettled = demo.run(api, FakeRecord(*PLACED, *PLACED, *CANCELLED), CASES)  # type: ignore[arg-type]

    own = "/orders/ORD-1"  # ORD-2 is the order of staff
    assert api.paths == ["/products", "/orders", "/orders", own, own, f"{own}/cancellation"]
    assert unsettled == []
    assert "\ncancel                                 202   1000  CANCELLED, 1,189.77 USD\n" in capsys.readouterr().out


def test_an_order_without_events_is_reported_as_not_settled(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    times = iter(range(0, 600, 10))
    monkeypatch.setattr("time.sleep", lambda _: None)
    monkeypatch.setattr("time.time", lambda: next(times))

    unsettled = demo.run(FakeApi(), FakeRecord(), {"place": post("/orders")})  # type: ignore[arg-type]

    assert unsettled == ["place"]
    assert "not settled after 30 s" in capsys.readouterr().out


def test_the_longest_row_fits_80_columns() -> None:
    events = ["Order Placed", "Inventory Out-Of-Stock", "Order Rejected", "Order Cancelled", "Inventory Released"]
    result = Result(Answer(201, {**ORDER, "orderId": FIXTURE_ORDER}, 0, 0), events, 12.3)

    found = [line for text in lines("place_order_as_staff_for_a_customer", result) for line in text.splitlines()]

    assert max(map(len, found)) <= 80
    assert found[0] == "place_order_as_staff_for_a_customer    201  12300  CANCELLED, 1,189.77 USD"
