"""Dashboard, alarms and saved queries cover every function, queue and rule, by the names that our code and AWS use."""

import ast
import json
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from aws_lambda_powertools import Logger

from dlq_processor.domain import RETRY_DELAYS
from tests.contract.source import source
from tests.contract.test_template import functions, mappings, of_type

ROOT = Path(__file__).parents[2]
CODE = [path for folder in ("functions", "layers/orderflow") for path in sorted((ROOT / folder).rglob("*.py"))]

# A metric: its namespace, its name and its dimensions, with references as names in braces.
Metric = tuple[str, str, tuple[tuple[str, str], ...]]


@pytest.fixture(scope="module")
def given(template: dict[str, Any]) -> dict[str, Any]:
    """The parameters that template.yaml passes to the nested template."""
    return dict(template["Resources"]["Observability"]["Properties"]["Parameters"])


@pytest.fixture(scope="module")
def observability(given: dict[str, Any]) -> dict[str, Any]:
    """The nested template, with Fn::ForEach expanded."""
    template = source("infrastructure/observability.yaml")
    resources: dict[str, Any] = {}
    for name, resource in template["Resources"].items():
        resources |= expanded(resource, given) if name.startswith("Fn::ForEach::") else {name: resource}
    return {**template, "Resources": resources}


def expanded(loop: list[Any], given: dict[str, Any]) -> dict[str, Any]:
    identifier, collection, fragment = loop
    resources: dict[str, Any] = {}
    for value in text_of(collection, given).split(","):
        text = json.dumps(fragment).replace(f"${{{identifier}}}", value)
        resources |= json.loads(text.replace(f"&{{{identifier}}}", re.sub(r"\W", "", value)))
    return resources


@pytest.fixture(scope="module")
def alarms(observability: dict[str, Any]) -> dict[str, Any]:
    return of_type(observability, "AWS::CloudWatch::Alarm")


@pytest.fixture(scope="module")
def widgets(observability: dict[str, Any], given: dict[str, Any]) -> list[dict[str, Any]]:
    (dashboard,) = of_type(observability, "AWS::CloudWatch::Dashboard").values()
    return list(json.loads(text_of(dashboard["DashboardBody"], given))["widgets"])


def text_of(value: Any, given: dict[str, Any]) -> str:
    """Returns the text of an expression. A resource, and a parameter that is not given, is its name in braces."""
    match value:
        case {"Ref": str(name)} if name in given:
            return text_of(given[name], {})
        case {"Ref": str(name)} | {"Fn::GetAtt": [str(name), _]}:
            return f"{{{name}}}"
        case {"Fn::Sub": [str(text), dict(variables)]}:
            known = given | {name: text_of(variable, given) for name, variable in variables.items()}
            return text_of({"Fn::Sub": text}, known)
        case {"Fn::Sub": str(text)}:
            return re.sub(r"\$\{([\w:.]+)\}", lambda match: text_of({"Ref": match[1]}, given), text)
        case {"Fn::Join": [str(delimiter), texts]}:
            return delimiter.join(text_of(texts, given).split(","))
    return str(value)


def watched(alarm: dict[str, Any], given: dict[str, Any]) -> list[Metric]:
    """The metrics of an alarm."""
    queries = [query["MetricStat"]["Metric"] for query in alarm.get("Metrics", []) if "MetricStat" in query]
    return [
        (
            text_of(metric["Namespace"], given),
            metric["MetricName"],
            tuple((item["Name"], text_of(item["Value"], given)) for item in metric["Dimensions"]),
        )
        for metric in (queries or [alarm])
        if "MetricName" in metric
    ]


def shown(widgets: list[dict[str, Any]]) -> Iterator[Metric]:
    """The metrics of the dashboard. `...` repeats the beginning of the previous metric, `.` one part of it."""
    for widget in widgets:
        before: list[str] = []
        for row in widget["properties"].get("metrics", []):
            parts = [part for part in row if isinstance(part, str)]
            if parts[:1] == ["..."]:
                parts = before[: len(before) - len(parts) + 1] + parts[1:]
            if parts:
                before = [before[place] if part == "." else part for place, part in enumerate(parts)]
                yield before[0], before[1], tuple(zip(before[2::2], before[3::2], strict=True))


@pytest.fixture(scope="module")
def metrics(alarms: dict[str, Any], widgets: list[dict[str, Any]], given: dict[str, Any]) -> set[Metric]:
    """All metrics of the dashboard and the alarms."""
    return {*shown(widgets), *(metric for alarm in alarms.values() for metric in watched(alarm, given))}


# ------------------------------------------------------------------------------------------ what is watched


@pytest.mark.parametrize(
    ("errors", "throttles", "calls", "alarmed"),
    [
        (2, 0, 2, False),
        (3, 0, 100, False),
        (3, 0, 50, True),
        (None, 3, None, True),
        (0, 3, 97, False),
        (0, 0, 9, False),
    ],
)
def test_a_function_alarm_needs_three_failures_and_more_than_5_percent_of_the_invocations(
    alarms: dict[str, Any], errors: int | None, throttles: int | None, calls: int | None, alarmed: bool
) -> None:
    for alarm in (alarms["inventoryFailures"], alarms["orderapiFailures"]):
        expressions = {query["Id"]: query["Expression"] for query in alarm["Metrics"] if "Expression" in query}
        values: dict[str, Any] = {"errors": errors, "throttles": throttles, "invocations": calls}
        values["FILL"] = lambda value, filling: filling if value is None else value
        values["IF"] = lambda condition, then, otherwise: then if condition else otherwise
        values["failed"] = eval(expressions["failed"], values)  # noqa: S307 - from our own template
        rate = eval(expressions["rate"], values)  # noqa: S307
        assert (rate > alarm["Threshold"]) is alarmed


def test_every_queue_is_on_the_dashboard_and_has_an_alarm(
    template: dict[str, Any], widgets: list[dict[str, Any]], alarms: dict[str, Any], given: dict[str, Any]
) -> None:
    read = {mapping["EventSourceArn"]["Fn::GetAtt"][0] for mapping in mappings(template, "sqs").values()}
    alarmed = [metric for alarm in alarms.values() for metric in watched(alarm, given)]
    for queue in of_type(template, "AWS::SQS::Queue"):
        age, depth = "ApproximateAgeOfOldestMessage", "ApproximateNumberOfMessagesVisible"
        of_it = (("QueueName", f"{{{queue}}}"),)
        assert ("AWS/SQS", age, of_it) in set(shown(widgets)), queue
        assert ("AWS/SQS", age if queue in read else depth, of_it) in alarmed, queue


def test_the_rules_of_our_bus_are_on_the_dashboard(widgets: list[dict[str, Any]]) -> None:
    for metric in ("Invocations", "FailedInvocations", "InvocationsFailedToBeSentToDlq"):
        wanted = f'{{AWS/Events,EventBusName,RuleName}} EventBusName="{{EventBusName}}" MetricName="{metric}"'
        assert f"SEARCH('{wanted}', 'Sum', 300)" in searches(widgets)


def searches(widgets: list[dict[str, Any]]) -> list[str]:
    """The search expressions of the dashboard."""
    rows = [row for widget in widgets for row in widget["properties"].get("metrics", [])]
    return [row[0]["expression"] for row in rows if isinstance(row[0], dict)]


def test_every_alarm_that_each_stage_has_is_on_the_dashboard(
    observability: dict[str, Any], alarms: dict[str, Any], widgets: list[dict[str, Any]], given: dict[str, Any]
) -> None:
    (arns,) = [widget["properties"]["alarms"] for widget in widgets if widget["type"] == "alarm"]
    everywhere = {name: alarm for name, alarm in alarms.items() if "Condition" not in observability["Resources"][name]}
    account = "arn:{AWS::Partition}:cloudwatch:{AWS::Region}:{AWS::AccountId}:alarm:"
    assert set(arns) == {
        account + text_of(alarm["AlarmName"], given) if "AlarmName" in alarm else f"{{{name}.Arn}}"
        for name, alarm in everywhere.items()
    }
    assert set(alarms) - set(everywhere) == {"OrderDrop"}


def test_every_function_has_an_alarm_for_failures_and_is_on_the_dashboard_and_in_the_queries(
    template: dict[str, Any],
    observability: dict[str, Any],
    alarms: dict[str, Any],
    widgets: list[dict[str, Any]],
    given: dict[str, Any],
) -> None:
    names = {text_of(function["FunctionName"], {}) for function in functions(template).values()}
    wanted = {"Errors", "Throttles", "Invocations"}
    alarmed = [sorted(watched(alarm, given)) for alarm in alarms.values()]
    for name in names:
        assert [("AWS/Lambda", metric, (("FunctionName", name),)) for metric in sorted(wanted)] in alarmed, name
    expressions = searches(widgets)
    for metric in ("Errors", "Throttles", "Duration", "DestinationDeliveryFailures"):
        (found,) = [each for each in expressions if f'MetricName="{metric}"' in each and "AWS/Lambda" in each]
        assert set(re.search(r'FunctionName=\("(.*)"\)', found)[1].split('" OR "')) == names  # type: ignore[index]
        assert len(found) < 1024  # CloudWatch's limit
    groups = of_type(template, "AWS::Logs::LogGroup")
    logged = [
        text_of(groups[each["LoggingConfig"]["LogGroup"]["Ref"]]["LogGroupName"], {})
        for each in functions(template).values()
    ]
    queries = of_type(observability, "AWS::Logs::QueryDefinition")
    assert sorted(text_of(queries["SlowestInvocationsQuery"]["LogGroupNames"], given).split(",")) == sorted(logged)
    assert text_of(queries["FailuresByConsumerQuery"]["LogGroupNames"][0], given) in logged


# --------------------------------------------------------------------------------------------- right names


def test_business_metrics_are_read_from_the_namespace_of_the_functions(
    template: dict[str, Any], given: dict[str, Any]
) -> None:
    for function in functions(template).values():
        assert function["Environment"]["Variables"]["POWERTOOLS_METRICS_NAMESPACE"] == given["MetricsNamespace"]


def test_every_business_metric_that_is_read_comes_from_its_service(
    template: dict[str, Any], metrics: set[Metric], given: dict[str, Any]
) -> None:
    sources: dict[str, set[Any]] = {}
    for function in functions(template).values():
        folder = function["Handler"].partition(".")[0]
        used = set().union(*(texts(path) for each in (folder, *imported(folder)) for path in modules(each)))
        sources[function["Environment"]["Variables"].get("POWERTOOLS_SERVICE_NAME")] = used
    business = [
        (name, dict(rest)) for namespace, name, rest in metrics if namespace == text_of(given["MetricsNamespace"], {})
    ]
    assert business
    for name, dimensions in business:
        assert set(dimensions) == {"service"}, name
        assert name in sources[dimensions["service"]], name


def test_every_business_metric_is_on_the_dashboard(widgets: list[dict[str, Any]]) -> None:
    emitted = {name for path in CODE for call in calls(path) for name in metric_names(call)}
    assert emitted
    assert emitted <= {name for _, name, _ in shown(widgets)}


def modules(folder: str) -> list[Path]:
    return sorted((ROOT / "functions" / folder).glob("*.py"))


def imported(folder: str) -> set[str]:
    """The folders of functions/ from which a folder's modules import."""
    nodes = [node for path in modules(folder) for node in ast.walk(ast.parse(path.read_text()))]
    return {node.module.partition(".")[0] for node in nodes if isinstance(node, ast.ImportFrom) and node.module}


def metric_names(call: ast.Call) -> list[Any]:
    """The metric that a call adds: `metrics.add_metric(name="OrdersPlaced", …)`."""
    match call:
        case ast.Call(func=ast.Attribute(attr="add_metric"), keywords=keywords):
            return [
                each.value.value for each in keywords if each.arg == "name" and isinstance(each.value, ast.Constant)
            ]
    return []


def texts(path: Path) -> set[Any]:
    return {node.value for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Constant)}


def calls(path: Path) -> list[ast.Call]:
    return [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]


def test_queries_use_fields_of_the_logs(observability: dict[str, Any]) -> None:
    words = {"as", "by", "fields", "filter", "or", "sort", "stats", "desc", "limit", "coalesce", "count", "latest"}
    of_events = {"source", "detail-type", "detail.metadata.correlationId"}
    known = words | of_events | logged()
    queries = of_type(observability, "AWS::Logs::QueryDefinition").values()
    assert len(queries) == 3
    for query in queries:
        text = re.sub(r'"[^"]*"', "", query["QueryString"])
        made = set(re.findall(r"\bas (\w+)", text))
        assert set(re.findall(r"(?<![@\w])[a-z][\w.-]*", text)) - made - known == set(), query["Name"]


def logged() -> set[str]:
    """The fields of our log lines: those of the logger, its keyword arguments, and the keys of the `log` properties."""
    fields = {"correlation_id", *Logger().registered_formatter.log_format}  # type: ignore[attr-defined]
    for path in CODE:
        for call in calls(path):
            if isinstance(call.func, ast.Attribute) and isinstance(call.func.value, ast.Name):
                fields |= {word.arg for word in call.keywords if call.func.value.id == "logger" and word.arg}
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef) and node.name == "log":
                fields |= texts_of(node)
    return fields


def texts_of(node: ast.AST) -> set[str]:
    return {part.value for part in ast.walk(node) if isinstance(part, ast.Constant) and isinstance(part.value, str)}


# --------------------------------------------------------------------------------------------- the alarms


def test_every_alarm_sends_an_alert_and_links_to_its_section_of_the_operations_page(
    alarms: dict[str, Any], given: dict[str, Any]
) -> None:
    headings = re.findall(r"^##+ (.+)$", (ROOT / "docs/operations.md").read_text(), re.MULTILINE)
    anchors = {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}
    assert given["AlertTopicArn"] == {"Ref": "AlertTopic"}
    for name, alarm in alarms.items():
        assert alarm["AlarmActions"] == [{"Ref": "AlertTopicArn"}], name
        (anchor,) = re.findall(r"See docs/operations\.md#(\S+)$", alarm["AlarmDescription"])
        assert anchor in anchors, name


def test_missing_data_breaches_only_the_alarm_for_a_drop_of_orders(alarms: dict[str, Any]) -> None:
    missing = {name: alarm["TreatMissingData"] for name, alarm in alarms.items()}
    assert missing.pop("OrderDrop") == "breaching"
    assert set(missing.values()) == {"notBreaching"}


def test_the_alarm_for_a_drop_of_orders_is_off_by_default(
    template: dict[str, Any], observability: dict[str, Any]
) -> None:
    assert observability["Resources"]["OrderDrop"]["Condition"] == "UseOrderDropAlarm"
    assert template["Parameters"]["DetectOrderDrop"]["Default"] == "false"
    stages = tomllib.loads((ROOT / "samconfig.toml").read_text())
    for name in ("default", "staging", "prod"):
        assert "DetectOrderDrop" not in str(stages[name]["deploy"]["parameters"]["parameter_overrides"]), name


def test_age_alarms_are_not_raised_by_normal_processing(template: dict[str, Any], alarms: dict[str, Any]) -> None:
    queues = of_type(template, "AWS::SQS::Queue")
    one_more_attempt = queues["OrderEventsDlq"]["VisibilityTimeout"] + max(RETRY_DELAYS)
    assert alarms["DlqAge"]["Threshold"] > one_more_attempt
    analytics = queues["AnalyticsQueue"]
    assert alarms["AnalyticsQueueAge"]["Threshold"] > (
        analytics["VisibilityTimeout"] * analytics["RedrivePolicy"]["maxReceiveCount"]
    )


def test_the_alarm_for_publisher_lag_is_raised_long_before_records_expire(
    template: dict[str, Any], alarms: dict[str, Any]
) -> None:
    for name, mapping in mappings(template, "dynamodb").items():
        assert alarms["PublisherLag"]["Threshold"] / 1000 < mapping["MaximumRecordAgeInSeconds"] / 24, name


def charged(alarm: dict[str, Any]) -> int:
    """How many metrics CloudWatch charges an alarm for."""
    queries = alarm.get("Metrics", [{"MetricStat": alarm}])
    counted = sum("MetricStat" in query or "SELECT" in str(query.get("Expression")) for query in queries)
    return 3 * counted if "ThresholdMetricId" in alarm else counted  # anomaly detection: the metric and its band


def test_the_costs_page_contains_the_number_of_charged_alarm_metrics(
    template: dict[str, Any], alarms: dict[str, Any]
) -> None:
    names = [text_of(function["FunctionName"], {}).partition("-")[2] for function in functions(template).values()]
    looped = [alarm for alarm in alarms.values() if str(alarm.get("AlarmName", "")).endswith("-failures'}")]
    assert len(looped) == len(names)
    (per_function,) = {charged(alarm) for alarm in looped}
    others = sum(charged(alarm) for name, alarm in alarms.items() if name != "OrderDrop" and alarm not in looped)
    (rollback,) = {charged(alarm) for alarm in of_type(template, "AWS::CloudWatch::Alarm").values()}
    page = " ".join((ROOT / "docs/costs.md").read_text().split())
    for text in (
        f"watch {others} metrics, and {per_function} for each function",
        f"add {rollback} for each function",
        f"`DetectOrderDrop` adds {charged(alarms['OrderDrop'])}.",
    ):
        assert text in page, f"docs/costs.md: write `{text}`"
