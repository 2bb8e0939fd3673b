"""The report lists every type and property of a template that has no effect here, and nothing that has."""

from typing import Any

import pytest

from localaws.not_honoured import Report
from localaws.resource_models import Resource


def lines(*resources: tuple[str, str, dict[str, Any]], verbose: bool = True) -> list[str]:
    report = Report()
    report.check(Resource(name, f"AWS::{kind}", name, properties, None) for name, kind, properties in resources)
    return report.lines(verbose=verbose)


def test_a_property_in_each_target_is_listed_once_with_its_path() -> None:
    target = {"Id": "a", "Arn": "arn", "InputPath": "$.detail", "SqsParameters": {"MessageGroupId": "g"}}
    rule = {"EventPattern": {"Anything": [1]}, "Targets": [target, target | {"Id": "b"}]}

    assert lines(("R", "Events::Rule", rule)) == ["R.Targets.SqsParameters (Events::Rule): not honoured"]


@pytest.mark.parametrize(
    "properties",
    [
        {"FunctionName": "f", "Description": "text", "Tags": [{"Key": "a", "Value": "b"}]},
        {"SnapStart": {}, "TracingConfig": None, "Layers": []},
        {"Environment": {"Variables": {"TracingConfig": "Active"}}},
    ],
)
def test_what_is_honoured_or_without_effect_is_not_listed(properties: dict[str, Any]) -> None:
    assert lines(("F", "Lambda::Function", properties)) == []


def test_a_switch_that_is_off_is_not_listed() -> None:
    mapping = {"FunctionName": "f", "TumblingWindowInSeconds": 0, "ParallelizationFactor": 2}

    assert lines(("M", "Lambda::EventSourceMapping", mapping)) == [
        "M.ParallelizationFactor (Lambda::EventSourceMapping): not honoured"
    ]


def test_the_summary_groups_types_by_service_and_properties_by_type() -> None:
    traced = {"TracingConfig": {"Mode": "Active"}, "SnapStart": {"ApplyOn": "PublishedVersions"}}

    summary = lines(
        ("A", "CloudWatch::Alarm", {}),
        ("B", "CloudWatch::Alarm", {}),
        ("C", "CloudWatch::Dashboard", {}),
        ("D", "IAM::Role", {}),
        ("E", "Lambda::Function", traced),
        ("F", "Lambda::Function", traced),
        verbose=False,
    )

    groups = "3 CloudWatch (Alarm, Dashboard); 1 permissions; Function (SnapStart, TracingConfig)"
    assert summary == [f"not honoured here: {groups} (details: --verbose)"]


def test_names_with_the_same_reason_share_a_line() -> None:
    report = Report()
    for name in ("A", "B", "C", "D", "E", "A"):
        report(name, "cannot run")

    assert report.lines(verbose=False) == ["A, B, C and 2 more: cannot run"]
    assert report.lines(verbose=True) == [f"{name}: cannot run" for name in "ABCDE"]


def test_a_resource_with_a_reason_of_its_own_is_not_listed_with_its_type() -> None:
    report = Report()
    report("A", "cannot be created")
    report.check([Resource("A", "AWS::No::Such", "A", {}, None)])

    assert report.lines(verbose=False) == ["A: cannot be created"]


def test_messages_of_other_protocols_are_named() -> None:
    topic = {"Subscription": [{"Protocol": "email", "Endpoint": "a@example.com"}, {"Protocol": "sqs", "Endpoint": "q"}]}

    assert lines(("T", "SNS::Topic", topic)) == ["T: messages of protocol email are not sent"]
