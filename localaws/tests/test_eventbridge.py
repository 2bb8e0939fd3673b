"""The event bus: accepted events, matching rules, and events whose delivery fails."""

import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest

from localaws.aws import ServiceError
from localaws.delivery import Action, Clock, Scheduler, Undelivered
from localaws.event_pattern import InvalidEventPattern
from localaws.eventbridge import MAX_BYTES, Accepted, Bus, UnsupportedTarget, read_rules
from localaws.tests.support import wait_until

FUNCTION = "arn:aws:lambda:us-east-1:123456789012:function:taker"
DLQ = "arn:aws:sqs:us-east-1:123456789012:dlq"
WEBHOOK = "arn:aws:events:us-east-1:123456789012:api-destination/hook/1"
BUS = "arn:aws:events:us-east-1:123456789012:event-bus/"


def rule(name: str = "all-shop", **changes: Any) -> dict[str, Any]:
    properties: dict[str, Any] = {
        "Name": name,
        "EventBusName": "shop-bus",
        "EventPattern": {"source": ["shop"]},
        "Targets": [{"Id": "one", "Arn": FUNCTION}],
    }
    return properties | changes


class World:
    """Two buses with targets that accept events, or fail as the test configures."""

    def __init__(self, *rules: dict[str, Any]) -> None:
        self.taken: list[tuple[str, dict[str, Any]]] = []
        self.buried: list[tuple[str, dict[str, Any], Mapping[str, str]]] = []
        self.failures: list[str] = []
        self.seen: list[Accepted] = []
        self.error: Exception | None = None
        self.dlq_is_gone = False
        self.http: list[Action] = []
        self.scheduler = Scheduler(Clock(1000), self.failures.append)
        self.bus = Bus(
            names=["shop-bus", "other-bus"],
            rules=read_rules(rules, ("events", "lambda", "logs", "sqs")),
            scheduler=self.scheduler,
            hand_over=self._hand_over,
            send=self._send,
            on_event=self.seen.append,
            on_failure=self.failures.append,
            region="us-east-1",
            account_id="123456789012",
            run_http=self.http.append,
        )
        self.scheduler.start()
        self.bus.start()

    def stop(self) -> None:
        self.bus.stop()
        self.scheduler.stop()

    def _hand_over(self, arn: str, payload: str, _trace_header: str | None) -> None:
        if self.error:
            raise self.error
        self.taken.append((arn, json.loads(payload)))

    def _send(self, arn: str, body: str, attributes: Mapping[str, str]) -> None:
        if self.dlq_is_gone:
            raise LookupError("no such queue")
        self.buried.append((arn, json.loads(body), attributes))


Make = Callable[..., World]


@pytest.fixture
def world() -> Iterator[Make]:
    made: list[World] = []

    def make(*rules: dict[str, Any]) -> World:
        made.append(World(*rules))
        return made[-1]

    yield make
    for each in made:
        each.stop()


def entry(**changes: Any) -> dict[str, Any]:
    return {"EventBusName": "shop-bus", "Source": "shop", "DetailType": "Sold", "Detail": '{"n": 1}'} | changes


def test_an_event_reaches_every_target_of_every_rule_that_it_matches(world: Make) -> None:
    two = [{"Id": "one", "Arn": FUNCTION}, {"Id": "two", "Arn": FUNCTION + "2"}]
    shop = world(rule(Targets=two), rule("cheap", EventPattern={"detail": {"n": [{"numeric": ["<", 1]}]}}))
    (answer,) = shop.bus.put_events([entry(Time=1_795_286_160.9, Resources=["arn:thing"])])
    wait_until(lambda: len(shop.taken) == 2)
    assert [arn for arn, _ in shop.taken] == [FUNCTION, FUNCTION + "2"]
    assert shop.taken[0][1] == {
        "version": "0",
        "id": answer["EventId"],
        "detail-type": "Sold",
        "source": "shop",
        "account": "123456789012",
        "time": "2026-11-21T18:36:00Z",
        "region": "us-east-1",
        "resources": ["arn:thing"],
        "detail": {"n": 1},
    }
    assert [[matched.name for matched in accepted.rules] for accepted in shop.seen] == [["all-shop"]]


def test_a_target_gets_its_configured_input(world: Make) -> None:
    names = {"InputTemplate": '{"by": <aws.events.rule-arn>, "n": <n>}', "InputPathsMap": {"n": "$.detail.n"}}
    targets = [
        {"Id": "one", "Arn": FUNCTION, "InputPath": "$.detail"},
        {"Id": "two", "Arn": FUNCTION, "InputTransformer": names},
    ]
    shop = world(rule(Targets=targets))
    shop.bus.put_events([entry()])
    wait_until(lambda: len(shop.taken) == 2)
    assert [payload for _, payload in shop.taken] == [
        {"n": 1},
        {"by": "arn:aws:events:us-east-1:123456789012:rule/shop-bus/all-shop", "n": 1},
    ]


def test_a_rule_belongs_to_its_bus_and_a_bus_may_be_named_by_its_arn(world: Make) -> None:
    shop = world(
        rule(EventBusName=BUS + "shop-bus"),
        rule("default-rule", EventBusName="default", Targets=[{"Id": "one", "Arn": FUNCTION + "2"}]),
    )
    shop.bus.put_events([entry(EventBusName=BUS + "shop-bus")])
    unnamed = entry()
    del unnamed["EventBusName"]
    shop.bus.put_events([unnamed])
    wait_until(lambda: len(shop.taken) == 2)
    assert [arn for arn, _ in shop.taken] == [FUNCTION, FUNCTION + "2"]


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"Source": ""}, "InvalidArgument"),
        ({"DetailType": ""}, "InvalidArgument"),
        ({"Detail": ""}, "InvalidArgument"),
        ({"Detail": "{"}, "MalformedDetail"),
        ({"Detail": "[1]"}, "MalformedDetail"),
        ({"Detail": '{"n": NaN}'}, "MalformedDetail"),
        ({"Detail": '{"n": ' * 100_000}, "MalformedDetail"),
        ({"DetailType": "x" * 129}, "InvalidArgument"),
        ({"Source": "aws.ec2"}, "NotAuthorizedForSourceException"),
        ({"EventBusName": "no-such-bus"}, "InvalidArgument"),
        ({"EventBusName": BUS.replace("123456789012", "210987654321") + "shop-bus"}, "InvalidArgument"),
    ],
)
def test_an_invalid_entry_is_rejected_and_the_other_entry_is_accepted(
    world: Make, changes: dict[str, Any], code: str
) -> None:
    shop = world(rule())
    refused, accepted = shop.bus.put_events([entry(**changes), entry()])
    assert refused["ErrorCode"] == code
    assert refused["ErrorMessage"]
    assert "EventId" in accepted
    wait_until(lambda: len(shop.taken) == 1)


@pytest.mark.parametrize(
    "entries",
    [
        [],
        [entry()] * 11,
        [entry(Detail=json.dumps({"x": "é" * (MAX_BYTES // 2)}))],
        [entry(), entry(TraceHeader="x" * 501)],
        [entry(), entry(Resources=["x" * 2049])],
    ],
)
def test_a_request_beyond_the_limits_is_rejected_as_a_whole(world: Make, entries: list[dict[str, Any]]) -> None:
    shop = world(rule())
    with pytest.raises(ServiceError):
        shop.bus.put_events(entries)
    assert shop.seen == []


def test_an_entry_at_the_limits_is_accepted(world: Make) -> None:
    shop = world(rule())
    largest = entry(DetailType="x" * 128, TraceHeader="x" * 500, Resources=["x" * 2048], Time=0)
    rest = MAX_BYTES - len("shop") - 128 - 2048 - 14
    largest["Detail"] = json.dumps({"x": ""}).replace('""', '"' + "x" * (rest - len('{"x": ""}')) + '"')
    (answer,) = shop.bus.put_events([largest])
    assert "EventId" in answer


def buried_with(dlq: bool = True, **policy: int) -> dict[str, Any]:
    target: dict[str, Any] = {"Id": "one", "Arn": FUNCTION, "RetryPolicy": policy}
    return rule(Targets=[target | ({"DeadLetterConfig": {"Arn": DLQ}} if dlq else {})])


def test_an_event_for_a_missing_target_goes_to_the_dlq_without_retries(world: Make) -> None:
    shop = world(buried_with())
    shop.error = Undelivered("NO_RESOURCE", "there is no taker", retriable=False)
    (answer,) = shop.bus.put_events([entry()])
    wait_until(lambda: shop.buried)
    ((arn, event, attributes),) = shop.buried
    assert (arn, event["id"]) == (DLQ, answer["EventId"])
    assert attributes == {
        "RULE_ARN": "arn:aws:events:us-east-1:123456789012:rule/shop-bus/all-shop",
        "TARGET_ARN": FUNCTION,
        "ERROR_CODE": "NO_RESOURCE",
        "ERROR_MESSAGE": "there is no taker",
        "RETRY_ATTEMPTS": "0",
    }
    assert "sent to " + DLQ in shop.failures[-1]


def test_an_event_whose_delivery_keeps_failing_goes_to_the_dlq_after_the_retries(world: Make) -> None:
    shop = world(buried_with(MaximumRetryAttempts=2))
    shop.error = Undelivered("THROTTLING", "slow down", retriable=True)
    shop.bus.put_events([entry()])
    wait_until(lambda: shop.buried)
    attributes = shop.buried[0][2]
    assert ["next attempt in" in line for line in shop.failures] == [True, True, False]
    assert attributes["RETRY_ATTEMPTS"] == "2"
    assert attributes["EXHAUSTED_RETRY_CONDITION"] == "MaximumRetryAttempts"


def test_an_unforeseen_error_of_a_target_is_retried_and_does_not_stop_the_bus(world: Make) -> None:
    shop = world(buried_with())
    shop.error = RuntimeError("who knows")
    shop.bus.put_events([entry()])
    shop.bus.put_events([entry()])
    wait_until(lambda: len(shop.seen) == 2)
    shop.error = None
    wait_until(lambda: len(shop.taken) == 2)
    assert shop.buried == []


def test_a_lost_event_is_reported(world: Make) -> None:
    error = Undelivered("NO_RESOURCE", "gone", retriable=False)
    without, gone = world(buried_with(dlq=False)), world(buried_with())
    without.error = gone.error = error
    gone.dlq_is_gone = True
    for shop in (without, gone):
        shop.bus.put_events([entry()])
    wait_until(lambda: without.failures and gone.failures)
    assert "lost, there is no failure destination" in without.failures[0]
    assert "lost, could not be sent to" in gone.failures[0]


def test_the_dlq_gets_the_event_and_not_the_input_made_of_it(world: Make) -> None:
    broken = {"InputTemplate": '{"note": "<note>"}', "InputPathsMap": {"note": "$.detail.note"}}
    target = {"Id": "one", "Arn": FUNCTION, "InputTransformer": broken, "DeadLetterConfig": {"Arn": DLQ}}
    shop = world(rule(Targets=[target]))
    shop.bus.put_events([entry(Detail=json.dumps({"note": 'said "hi"'}))])
    wait_until(lambda: shop.buried)
    ((_, event, attributes),) = shop.buried
    assert event["detail"] == {"note": 'said "hi"'}
    assert attributes["ERROR_CODE"] == "INVALID_JSON"
    assert shop.taken == []


def to_bus(arn: str, name: str = "to-bus", bus: str = "shop-bus") -> dict[str, Any]:
    return rule(name, EventBusName=bus, Targets=[{"Id": "bus", "Arn": arn, "DeadLetterConfig": {"Arn": DLQ}}])


def test_an_event_for_another_bus_is_forwarded_unchanged(world: Make) -> None:
    shop = world(
        to_bus(BUS + "other-bus"), rule("other", EventBusName="other-bus"), rule("default", EventBusName="default")
    )
    (answer,) = shop.bus.put_events([entry(TraceHeader="Root=1")])
    shop.bus.stop()
    ((_, event),) = shop.taken
    assert (event["id"], event["source"], event["detail"]) == (answer["EventId"], "shop", {"n": 1})
    assert [(seen.bus, seen.event, seen.trace_header, seen.forwarded) for seen in shop.seen] == [
        ("shop-bus", event, "Root=1", False),
        ("other-bus", event, "Root=1", True),
    ]


def test_an_event_from_another_bus_is_not_forwarded_again(world: Make) -> None:
    shop = world(
        to_bus(BUS + "other-bus"), to_bus(BUS + "default", "onwards", "other-bus"), rule(EventBusName="default")
    )
    shop.bus.put_events([entry()])
    shop.bus.stop()
    ((_, event, attributes),) = shop.buried
    assert event["detail"] == {"n": 1}
    assert attributes["RULE_ARN"].endswith(":rule/other-bus/onwards")
    assert (attributes["ERROR_CODE"], attributes["RETRY_ATTEMPTS"]) == ("THIRD_ACCOUNT_HOP_DETECTED", "0")
    assert shop.taken == []


@pytest.mark.parametrize(
    "arn",
    [
        BUS + "no-such-bus",
        BUS.replace("123456789012", "210987654321") + "other-bus",
        BUS.replace("us-east-1", "eu-west-1") + "other-bus",
    ],
)
def test_an_event_for_a_missing_bus_goes_to_the_dlq(world: Make, arn: str) -> None:
    shop = world(to_bus(arn))
    shop.bus.put_events([entry()])
    wait_until(lambda: shop.buried)
    attributes = shop.buried[0][2]
    assert (attributes["ERROR_CODE"], attributes["TARGET_ARN"]) == ("NO_RESOURCE", arn)


def test_a_slow_endpoint_does_not_delay_other_targets(world: Make) -> None:
    targets = [{"Id": "hook", "Arn": WEBHOOK, "InputPath": "$.detail"}, {"Id": "one", "Arn": FUNCTION}]
    shop = world(rule(Targets=targets))
    shop.bus.put_events([entry()])
    wait_until(lambda: shop.taken)
    assert [arn for arn, _ in shop.taken] == [FUNCTION]

    shop.error = Undelivered("SDK_CLIENT_ERROR", "it answered 503", retriable=True)
    shop.http.pop()()
    wait_until(lambda: shop.http)  # the retry, which waits there too
    shop.error = None
    shop.http.pop()()
    assert shop.taken[1:] == [(WEBHOOK, {"n": 1})]


def test_disabled_rules_and_schedules_match_nothing() -> None:
    schedule = {"Name": "daily", "ScheduleExpression": "rate(1 day)", "Targets": []}
    management = rule("management", State="ENABLED_WITH_ALL_CLOUDTRAIL_MANAGEMENT_EVENTS")
    read = read_rules([rule(State="DISABLED"), schedule, management], ("lambda",))
    assert [each.name for each in read] == ["management"]


def test_the_error_for_an_invalid_pattern_names_the_rule() -> None:
    with pytest.raises(InvalidEventPattern, match="all-shop"):
        read_rules([rule(EventPattern={"source": "shop"})], ("lambda",))


@pytest.mark.parametrize(
    ("target", "reason"),
    [
        ({"Arn": "arn:aws:sns:us-east-1:1:topic"}, "delivery to"),
        ({"Arn": "arn:aws:events:us-east-1:1:archive/orders"}, "delivery to"),
        ({"Arn": WEBHOOK, "HttpParameters": {"HeaderParameters": {}}}, "path, header and query parameters are not"),
        ({"Arn": FUNCTION, "InputPath": "detail"}, "not a path"),
        ({"Arn": BUS + "other-bus", "InputPath": "$.detail"}, "modifying the input"),
        ({"Arn": "arn:aws:logs:us-east-1:1:log-group:log", "Input": "{}"}, "modifying the input"),
        ({"Arn": DLQ, "SqsParameters": {"MessageGroupId": "one"}}, "message groups are not supported"),
    ],
)
def test_the_error_for_an_unsupported_target_names_the_rule(target: dict[str, Any], reason: str) -> None:
    with pytest.raises(UnsupportedTarget, match=f"rule all-shop: .*{reason}"):
        read_rules([rule(Targets=[{"Id": "one"} | target])], ("events", "lambda", "logs", "sqs"))
