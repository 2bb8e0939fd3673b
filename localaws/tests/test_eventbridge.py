"""The event bus: accepted events, matching rules, and events whose delivery fails."""

import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from localaws.aws import ServiceError
from localaws.delivery import Clock, Scheduler, Undelivered
from localaws.event_pattern import InvalidEventPattern
from localaws.eventbridge import MAX_BYTES, Accepted, Bus, read_rules
from localaws.targets import UnsupportedTarget
from localaws.tests.support import RecordingTargets, wait_until

FUNCTION = "arn:aws:lambda:us-east-1:123456789012:function:seller"
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


class RunningBus:
    """Two buses with targets that accept events, or fail as the test configures."""

    def __init__(self, *rules: dict[str, Any], clock: list[datetime] | None = None) -> None:
        self.failures: list[str] = []
        self.seen: list[Accepted] = []
        self.error: Exception | None = None
        self.targets = RecordingTargets(self._handle)
        times = clock or [datetime.now(UTC)]
        self.scheduler = Scheduler(Clock(1000), self.failures.append)
        self.bus = Bus(
            names=["default", "shop-bus", "other-bus"],
            rules=read_rules(rules, ("events", "lambda", "logs", "sqs")),
            scheduler=self.scheduler,
            targets=self.targets,
            on_event=self.seen.append,
            on_failure=self.failures.append,
            now=lambda: times.pop(0) if times[1:] else times[0],
        )
        self.scheduler.start()
        self.bus.start()

    def stop(self) -> None:
        self.bus.stop()
        self.scheduler.stop()

    def delivered(self) -> list[tuple[str, dict[str, Any]]]:
        return [(arn, json.loads(payload)) for arn, payload in self.targets.delivered]

    def failed(self) -> list[tuple[str, dict[str, Any], dict[str, str | int]]]:
        """Returns the queue, event and attributes of each message in a dead-letter queue."""
        return [(arn, json.loads(body), attributes) for arn, body, attributes in self.targets.sent]

    def _handle(self, _arn: str, _payload: str) -> None:
        if self.error:
            raise self.error


Make = Callable[..., RunningBus]


@pytest.fixture
def make_bus() -> Iterator[Make]:
    made: list[RunningBus] = []

    def make(*rules: dict[str, Any], clock: list[datetime] | None = None) -> RunningBus:
        made.append(RunningBus(*rules, clock=clock))
        return made[-1]

    yield make
    for each in made:
        each.stop()


def entry(**changes: Any) -> dict[str, Any]:
    return {"EventBusName": "shop-bus", "Source": "shop", "DetailType": "Sold", "Detail": '{"n": 1}'} | changes


def test_an_event_reaches_every_target_of_every_rule_that_it_matches(make_bus: Make) -> None:
    two = [{"Id": "one", "Arn": FUNCTION}, {"Id": "two", "Arn": FUNCTION + "2"}]
    shop = make_bus(rule(Targets=two), rule("cheap", EventPattern={"detail": {"n": [{"numeric": ["<", 1]}]}}))
    (answer,) = shop.bus.put_events([entry(Time=1_795_286_160.9, Resources=["arn:thing"])])
    wait_until(lambda: len(shop.delivered()) == 2)
    assert [arn for arn, _ in shop.delivered()] == [FUNCTION, FUNCTION + "2"]
    assert shop.delivered()[0][1] == {
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


def test_a_target_gets_the_event_without_white_space(make_bus: Make) -> None:
    shop = make_bus(rule())
    shop.bus.put_events([entry(Detail='{ "n": [1, 2] }')])
    wait_until(shop.delivered)
    assert shop.targets.delivered[0][1].endswith('"resources":[],"detail":{"n":[1,2]}}')


def test_a_target_gets_its_configured_input(make_bus: Make) -> None:
    names = {"InputTemplate": '{"by": <aws.events.rule-arn>, "n": <n>}', "InputPathsMap": {"n": "$.detail.n"}}
    targets = [
        {"Id": "one", "Arn": FUNCTION, "InputPath": "$.detail"},
        {"Id": "two", "Arn": FUNCTION, "InputTransformer": names},
    ]
    shop = make_bus(rule(Targets=targets))
    shop.bus.put_events([entry()])
    wait_until(lambda: len(shop.delivered()) == 2)
    assert [payload for _, payload in shop.delivered()] == [
        {"n": 1},
        {"by": "arn:aws:events:us-east-1:123456789012:rule/shop-bus/all-shop", "n": 1},
    ]


def test_a_rule_belongs_to_its_bus_and_a_bus_may_be_named_by_its_arn(make_bus: Make) -> None:
    shop = make_bus(
        rule(EventBusName=BUS + "shop-bus"),
        rule("default-rule", EventBusName="default", Targets=[{"Id": "one", "Arn": FUNCTION + "2"}]),
    )
    shop.bus.put_events([entry(EventBusName=BUS + "shop-bus")])
    unnamed = entry()
    del unnamed["EventBusName"]
    shop.bus.put_events([unnamed])
    wait_until(lambda: len(shop.delivered()) == 2)
    assert [arn for arn, _ in shop.delivered()] == [FUNCTION, FUNCTION + "2"]


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
    make_bus: Make, changes: dict[str, Any], code: str
) -> None:
    shop = make_bus(rule())
    refused, accepted = shop.bus.put_events([entry(**changes), entry()])
    assert refused["ErrorCode"] == code
    assert refused["ErrorMessage"]
    assert "EventId" in accepted
    wait_until(lambda: len(shop.delivered()) == 1)


@pytest.mark.parametrize(
    ("entries", "limit"), [([], "greater than or equal to 1"), ([entry()] * 11, "less than or equal to 10")]
)
def test_a_request_has_one_to_ten_entries(make_bus: Make, entries: list[dict[str, Any]], limit: str) -> None:
    with pytest.raises(
        ServiceError, match=f"at 'entries' failed to satisfy constraint: Member must have length {limit}$"
    ):
        make_bus(rule()).bus.put_events(entries)


@pytest.mark.parametrize(
    "entries",
    [
        [entry(Detail=json.dumps({"x": "é" * (MAX_BYTES // 2)}))],
        [entry(), entry(TraceHeader="x" * 501)],
        [entry(), entry(Resources=["x" * 2049])],
    ],
)
def test_a_request_beyond_the_limits_is_rejected_as_a_whole(make_bus: Make, entries: list[dict[str, Any]]) -> None:
    shop = make_bus(rule())
    with pytest.raises(ServiceError):
        shop.bus.put_events(entries)
    assert shop.seen == []


def test_an_entry_at_the_limits_is_accepted(make_bus: Make) -> None:
    shop = make_bus(rule())
    largest = entry(DetailType="x" * 128, TraceHeader="x" * 500, Resources=["x" * 2048], Time=0)
    rest = MAX_BYTES - len("shop") - 128 - 2048 - 14
    largest["Detail"] = json.dumps({"x": ""}).replace('""', '"' + "x" * (rest - len('{"x": ""}')) + '"')
    (answer,) = shop.bus.put_events([largest])
    assert "EventId" in answer


def with_dlq(dlq: bool = True, **policy: int) -> dict[str, Any]:
    target: dict[str, Any] = {"Id": "one", "Arn": FUNCTION, "RetryPolicy": policy}
    return rule(Targets=[target | ({"DeadLetterConfig": {"Arn": DLQ}} if dlq else {})])


def test_an_event_for_a_missing_target_goes_to_the_dlq_without_retries(make_bus: Make) -> None:
    shop = make_bus(with_dlq())
    shop.error = Undelivered("NO_RESOURCE", "there is no seller", retriable=False)
    (answer,) = shop.bus.put_events([entry()])
    wait_until(lambda: shop.failed())
    ((arn, event, attributes),) = shop.failed()
    assert (arn, event["id"]) == (DLQ, answer["EventId"])
    assert attributes == {
        "RULE_ARN": "arn:aws:events:us-east-1:123456789012:rule/shop-bus/all-shop",
        "TARGET_ARN": FUNCTION,
        "ERROR_CODE": "NO_RESOURCE",
        "ERROR_MESSAGE": "there is no seller",
        "RETRY_ATTEMPTS": "0",
    }
    assert "sent to " + DLQ in shop.failures[-1]


def test_an_event_whose_delivery_keeps_failing_goes_to_the_dlq_after_the_retries(make_bus: Make) -> None:
    shop = make_bus(with_dlq(MaximumRetryAttempts=2))
    shop.error = Undelivered("THROTTLING", "slow down", retriable=True)
    shop.bus.put_events([entry()])
    wait_until(lambda: shop.failed())
    attributes = shop.failed()[0][2]
    assert attributes["RETRY_ATTEMPTS"] == "2"
    assert attributes["EXHAUSTED_RETRY_CONDITION"] == "MaximumRetryAttempts"


def test_an_unforeseen_error_of_a_target_is_retried_and_does_not_stop_the_bus(make_bus: Make) -> None:
    shop = make_bus(with_dlq())
    shop.error = RuntimeError("who knows")
    shop.bus.put_events([entry()])
    shop.bus.put_events([entry()])
    wait_until(lambda: len(shop.seen) == 2)
    shop.error = None
    wait_until(lambda: len(shop.delivered()) == 2)
    assert shop.failed() == []


def test_a_lost_event_is_reported(make_bus: Make) -> None:
    error = Undelivered("NO_RESOURCE", "gone", retriable=False)
    without, gone = make_bus(with_dlq(dlq=False)), make_bus(with_dlq())
    without.error = gone.error = error
    gone.targets.destination_is_gone = True
    for shop in (without, gone):
        shop.bus.put_events([entry()])
    wait_until(lambda: without.failures and gone.failures)
    assert "lost, there is no failure destination" in without.failures[0]
    assert "lost, could not be sent to" in gone.failures[0]


def test_the_dlq_gets_the_event_and_not_the_input_made_of_it(make_bus: Make) -> None:
    broken = {"InputTemplate": '{"note": "<note>"}', "InputPathsMap": {"note": "$.detail.note"}}
    target = {"Id": "one", "Arn": FUNCTION, "InputTransformer": broken, "DeadLetterConfig": {"Arn": DLQ}}
    shop = make_bus(rule(Targets=[target]))
    shop.bus.put_events([entry(Detail=json.dumps({"note": 'said "hi"'}))])
    wait_until(lambda: shop.failed())
    ((_, event, attributes),) = shop.failed()
    assert event["detail"] == {"note": 'said "hi"'}
    assert attributes["ERROR_CODE"] == "INVALID_JSON"
    assert shop.delivered() == []


def to_bus(arn: str, name: str = "to-bus", bus: str = "shop-bus") -> dict[str, Any]:
    return rule(name, EventBusName=bus, Targets=[{"Id": "bus", "Arn": arn, "DeadLetterConfig": {"Arn": DLQ}}])


def test_an_event_for_another_bus_is_forwarded_unchanged(make_bus: Make) -> None:
    shop = make_bus(
        to_bus(BUS + "other-bus"), rule("other", EventBusName="other-bus"), rule("default", EventBusName="default")
    )
    (answer,) = shop.bus.put_events([entry(TraceHeader="Root=1")])
    shop.bus.stop()
    ((_, event),) = shop.delivered()
    assert (event["id"], event["source"], event["detail"]) == (answer["EventId"], "shop", {"n": 1})
    assert [(seen.bus, seen.event, seen.trace_header, seen.forwarded) for seen in shop.seen] == [
        ("shop-bus", event, "Root=1", False),
        ("other-bus", event, "Root=1", True),
    ]


def test_an_event_from_another_bus_is_not_forwarded_again(make_bus: Make) -> None:
    shop = make_bus(
        to_bus(BUS + "other-bus"), to_bus(BUS + "default", "onwards", "other-bus"), rule(EventBusName="default")
    )
    shop.bus.put_events([entry()])
    shop.bus.stop()
    ((_, event, attributes),) = shop.failed()
    assert event["detail"] == {"n": 1}
    assert str(attributes["RULE_ARN"]).endswith(":rule/other-bus/onwards")
    assert (attributes["ERROR_CODE"], attributes["RETRY_ATTEMPTS"]) == ("THIRD_ACCOUNT_HOP_DETECTED", "0")
    assert shop.delivered() == []


@pytest.mark.parametrize(
    "arn",
    [
        BUS + "no-such-bus",
        BUS.replace("123456789012", "210987654321") + "other-bus",
        BUS.replace("us-east-1", "eu-west-1") + "other-bus",
    ],
)
def test_an_event_for_a_missing_bus_goes_to_the_dlq(make_bus: Make, arn: str) -> None:
    shop = make_bus(to_bus(arn))
    shop.bus.put_events([entry()])
    wait_until(lambda: shop.failed())
    attributes = shop.failed()[0][2]
    assert (attributes["ERROR_CODE"], attributes["TARGET_ARN"]) == ("NO_RESOURCE", arn)


def test_a_slow_endpoint_does_not_delay_other_targets(make_bus: Make) -> None:
    targets = [{"Id": "hook", "Arn": WEBHOOK, "InputPath": "$.detail"}, {"Id": "one", "Arn": FUNCTION}]
    shop = make_bus(rule(Targets=targets))
    shop.bus.put_events([entry()])
    wait_until(lambda: shop.delivered())
    assert [arn for arn, _ in shop.delivered()] == [FUNCTION]

    shop.error = Undelivered("SDK_CLIENT_ERROR", "it answered 503", retriable=True)
    shop.targets.delayed.waiting.pop()()
    wait_until(lambda: shop.targets.delayed.waiting)  # the retry, which waits there too
    shop.error = None
    shop.targets.delayed.waiting.pop()()
    assert shop.delivered()[1:] == [(WEBHOOK, {"n": 1})]


def test_disabled_rules_are_left_out() -> None:
    management = rule("management", State="ENABLED_WITH_ALL_CLOUDTRAIL_MANAGEMENT_EVENTS")
    read = read_rules([rule(State="DISABLED"), scheduled(State="DISABLED"), management], ("lambda",))
    assert [each.name for each in read] == ["management"]


def scheduled(**changes: Any) -> dict[str, Any]:
    properties = {"Name": "each-hour", "ScheduleExpression": "rate(1 hour)", "Targets": [{"Id": "1", "Arn": FUNCTION}]}
    return properties | changes


# The start, the look at 19:36, when the rule is due, and times at which it waits for 20:36
EVENING = [datetime(2026, 11, 21, 18, 36, tzinfo=UTC) + timedelta(hours=hours) for hours in (0, 1.1, 1.2, 1.3)]


def test_a_scheduled_rule_sends_an_event_to_its_own_targets_when_it_is_due(make_bus: Make) -> None:
    any_schedule = rule("schedules", EventBusName="default", EventPattern={"source": ["aws.events"]})
    daily = make_bus(scheduled(), any_schedule, clock=EVENING.copy())
    wait_until(lambda: daily.delivered())
    ((arn, event),) = daily.delivered()
    assert (arn, len(event.pop("id"))) == (FUNCTION, 36)
    assert event == {
        "version": "0",
        "detail-type": "Scheduled Event",
        "source": "aws.events",
        "account": "123456789012",
        "time": "2026-11-21T19:36:00Z",
        "region": "us-east-1",
        "resources": ["arn:aws:events:us-east-1:123456789012:rule/each-hour"],
        "detail": {},
    }
    assert [accepted.event["detail-type"] for accepted in daily.seen] == ["Scheduled Event"]


def test_a_scheduled_event_has_the_targets_input_retry_policy_and_dlq(make_bus: Make) -> None:
    target = {"Id": "1", "Arn": FUNCTION, "DeadLetterConfig": {"Arn": DLQ}, "RetryPolicy": {"MaximumRetryAttempts": 0}}
    transformer = {"InputTransformer": {"InputTemplate": '{"by": <aws.events.rule-name>}', "InputPathsMap": {}}}
    daily = make_bus(scheduled(Targets=[target | transformer, target | {"Arn": BUS + "gone"}]), clock=EVENING.copy())
    wait_until(lambda: daily.delivered() and daily.failed())
    assert daily.delivered() == [(FUNCTION, {"by": "each-hour"})]
    assert [(body["detail-type"], about["ERROR_CODE"]) for _, body, about in daily.failed()] == [
        ("Scheduled Event", "NO_RESOURCE")
    ]


def test_a_rule_may_have_a_schedule_and_a_pattern(make_bus: Make) -> None:
    both = make_bus(scheduled(EventPattern={"source": ["shop"]}), clock=EVENING.copy())
    both.bus.put_events([entry(EventBusName="default")])
    wait_until(lambda: len(both.delivered()) == 2)
    assert {event["detail-type"] for _, event in both.delivered()} == {"Sold", "Scheduled Event"}


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"ScheduleExpression": "rate(1 hours)"}, r"rule each-hour: rate\(1 hours\) must be"),
        ({"EventBusName": "shop-bus"}, "rule each-hour: ScheduleExpression is supported only on the default event bus"),
    ],
)
def test_the_error_for_an_invalid_schedule_names_the_rule(changes: dict[str, Any], reason: str) -> None:
    with pytest.raises(UnsupportedTarget, match=reason):
        read_rules([scheduled(**changes)], ("lambda",))


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
