"""Events that EventBridge or EventBridge Scheduler could not deliver."""

import json
import re
from typing import Any

import pytest
from hypothesis import given

from dlq_processor.domain import FailureKind
from tests.unit.dlq_processor.support import (
    QUEUE,
    consumers,
    event_of,
    extra,
    failure,
    fixture,
    function_arn,
    ids,
    message,
    sentences,
    summary,
    undelivered,
    words,
)

TOPIC = "arn:aws:sns:us-east-1:1:topic"


@given(consumers, ids, words, sentences, extra)
def test_an_event_for_a_function_is_a_failure_of_that_function(
    consumer: str, event_id: str, reason: str, why: str, more: dict[str, Any]
) -> None:
    event = {**more, **event_of(event_id)}
    found = failure(message(event, undelivered(function_arn(consumer), "a-rule", reason, ERROR_MESSAGE=why)))
    assert summary(found) == (FailureKind.UNDELIVERED, consumer, reason, event_id)
    assert json.loads(found.payload or "") == event


def test_an_event_for_an_alias_is_a_failure_of_its_function() -> None:
    found = failure(message(event_of("1"), undelivered(f"{function_arn('email')}:live", "a-rule")))
    assert found.consumer == "email"


def test_an_event_for_a_queue_is_a_failure_of_the_queues_consumer_and_becomes_a_message_of_that_queue() -> None:
    sent = fixture("undelivered_to_a_queue")
    found = failure(sent)
    assert found.consumer == "analytics"
    (record,) = json.loads(found.payload or "")["Records"]
    assert (record["eventSourceARN"], record["body"]) == (QUEUE, sent["body"])
    assert record["messageAttributes"] == {}


@given(ids, ids, words)
def test_an_event_for_another_target_names_a_replay_to_that_rule_alone(rule: str, event_id: str, reason: str) -> None:
    attributes = undelivered(TOPIC, rule, reason, EXHAUSTED_RETRY_CONDITION="MaximumRetryAttempts")
    found = failure(message(event_of(event_id), attributes))
    assert summary(found) == (FailureKind.UNDELIVERED, rule, reason, event_id)
    assert (found.payload, found.transient) == (None, False)
    window = "FROM=2026-11-21T18:36:00Z TO=2026-11-21T18:36:01Z"
    assert re.fullmatch(rf"make replay {window} RULE={rule} NAME=redrive-[0-9a-z]{{12}}", found.remediation or "")


@pytest.mark.parametrize(
    ("replay", "begins"),
    [
        ("to-staging-november", "to-staging-november"),
        ("redrive-" + "x" * 56, "redrive-" + "x" * 43),
        ("a b;c", "a_b_c"),
    ],
)
def test_a_replayed_event_is_replayed_again_under_a_name_that_its_rule_matches(replay: str, begins: str) -> None:
    event = event_of("e") | {"replay-name": replay}
    attributes = undelivered("arn:aws:events:us-east-1:1:event-bus/staging", "replay-to-staging", "NO_RESOURCE")
    (name,) = re.findall("NAME=(.*)$", failure(message(event, attributes)).remediation or "")
    assert re.fullmatch(rf"{begins}-[0-9a-z]{{12}}", name)
    assert len(name) <= 64


def test_an_event_for_the_log_group_is_republished_because_its_rule_excludes_replays() -> None:
    found = failure(fixture("undelivered_to_a_log"))
    assert found.remediation == "make republish FROM=2026-11-21T18:36:00Z TO=2026-11-21T18:36:01Z"


@pytest.mark.parametrize(
    ("error", "condition", "transient"),
    [
        ("TIMEOUT", {"EXHAUSTED_RETRY_CONDITION": "MaximumRetryAttempts"}, True),
        ("TIMEOUT", {}, False),
        ("NO_PERMISSIONS", {"EXHAUSTED_RETRY_CONDITION": "MaximumRetryAttempts"}, False),
        ("NO_RESOURCE", {"EXHAUSTED_RETRY_CONDITION": "MaximumEventAgeInSeconds"}, False),
    ],
)
@pytest.mark.parametrize("target", [function_arn("email"), QUEUE])
def test_only_an_event_whose_retries_are_exhausted_is_retried(
    target: str, error: str, condition: dict[str, str], transient: bool
) -> None:
    assert failure(message(event_of("1"), undelivered(target, "r", error, **condition))).transient is transient


def test_the_names_of_a_rule_and_of_a_function_are_cleaned() -> None:
    """They become a record's id, and the rule a part of a shell command."""
    found = failure(message(event_of("1"), undelivered(TOPIC, "a rule; rm -rf")))
    assert found.consumer == "a_rule_rm_-rf"
    assert " RULE=a_rule_rm_-rf " in (found.remediation or "")
    assert failure(message(event_of("1"), undelivered(function_arn("a;b"), "r"))).consumer == "a_b"


def test_a_rule_without_a_name_is_called_unknown() -> None:
    assert failure(message(event_of("1"), undelivered(TOPIC, ""))).consumer == "Unknown"


def test_a_schedule_that_could_not_start_its_function_is_redriven_with_its_input() -> None:
    found = failure(fixture("undelivered_by_schedule"))
    assert summary(found)[:3] == (FailureKind.UNDELIVERED, "sales-report", "AccessDeniedException")
    assert (json.loads(found.payload or ""), found.order_id) == ({"scheduledTime": "2026-11-22T06:00:00Z"}, None)
