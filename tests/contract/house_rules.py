"""What every function of the template needs. Each rule names the functions that lack it, what to add, and where."""

import ast
import json
from collections.abc import Callable, Iterator, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dlq_processor.redrive import ALIAS
from tests.contract.source import ROOT
from tests.contract.test_observability import shown

DLQ = {"Fn::GetAtt": ["OrderEventsDlq", "Arn"]}


@dataclass(frozen=True)
class Application:
    """What the rules look at.

    Args:
        template: template.yaml, as it is written.
        observability: infrastructure/observability.yaml, as it is written.
        fixtures: the names of the folders in events/ that hold fixtures.
        rules: the names of the rules that tests/contract/test_rules.py describes.
    """

    template: dict[str, Any]
    observability: dict[str, Any]
    fixtures: Set[str]
    rules: Set[str]

    def functions(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """The functions' own properties, without those of Globals, by logical id."""
        yield from of_type(self.template, "AWS::Serverless::Function")

    def events(self, *types: str) -> Iterator[tuple[str, str, dict[str, Any]]]:
        """Function, name and properties of the functions' events of some types."""
        for name, function in self.functions():
            for event, found in function.get("Events", {}).items():
                if found["Type"] in types:
                    yield name, event, found["Properties"]

    def nested(self) -> dict[str, Any]:
        """The parameters that template.yaml gives to infrastructure/observability.yaml."""
        return dict(self.template["Resources"]["Observability"]["Properties"]["Parameters"])


Rule = Callable[[Application], Iterator[str]]


def of_type(template: dict[str, Any], resource_type: str) -> Iterator[tuple[str, dict[str, Any]]]:
    for name, resource in template["Resources"].items():
        if resource["Type"] == resource_type:
            yield name, resource.get("Properties", {})


def referenced(value: Any) -> str:
    """The resource that a `!Ref` or `!GetAtt` names; empty if it is neither."""
    match value:
        case {"Ref": str(name)} | {"Fn::GetAtt": [str(name), *_]}:
            return name
    return ""


def stem(function: str) -> str:
    """Inventory for InventoryFunction, as in the names of its role, log group and alarms."""
    return function.removesuffix("Function")


def handler_is_a_function_in_a_file(app: Application) -> Iterator[str]:
    for name, function in app.functions():
        module, _, handler = function.get("Handler", "").rpartition(".")
        path = ROOT / "functions" / f"{module.replace('.', '/')}.py"
        defined = ast.parse(path.read_text()).body if path.is_file() else []
        if handler not in {node.name for node in defined if isinstance(node, ast.FunctionDef)}:
            yield f"{name}: Handler names no function in functions/: add it, or correct Handler in template.yaml"


def role_of_its_own(app: Application) -> Iterator[str]:
    roles = [referenced(function.get("Role")) for _, function in app.functions()]
    for name, function in app.functions():
        role = referenced(function.get("Role"))
        if not role or roles.count(role) > 1:
            own = f"{stem(name)}Role"
            yield f"{name} has no role of its own: add {own} and `Role: !GetAtt {own}.Arn` to template.yaml"


def log_group_that_expires(app: Application) -> Iterator[str]:
    groups = dict(of_type(app.template, "AWS::Logs::LogGroup"))
    for name, function in app.functions():
        group = groups.get(referenced(function.get("LoggingConfig", {}).get("LogGroup")), {})
        if group.get("RetentionInDays") != {"Ref": "LogRetentionDays"}:
            yield (
                f"{name} has no log group with a retention: add {stem(name)}LogGroup, with `RetentionInDays: !Ref"
                f" LogRetentionDays`, and `LoggingConfig: {{LogGroup: !Ref {stem(name)}LogGroup}}` to template.yaml"
            )


def release(app: Application) -> Iterator[str]:
    for name, function in app.functions():
        if function.get("AutoPublishCodeSha256") != {"Ref": "Release"}:
            yield f"{name} has no release: add `AutoPublishCodeSha256: !Ref Release` to it in template.yaml"


def rollback_alarm(app: Application) -> Iterator[str]:
    alarms = dict(of_type(app.template, "AWS::CloudWatch::Alarm"))
    for name, function in app.functions():
        watched = []
        for entry in function.get("DeploymentPreference", {}).get("Alarms", []):
            match entry:
                case {"Fn::If": ["DeployInSteps", {"Ref": str(alarm)}, _]}:
                    watched.append({part["Name"]: part["Value"] for part in alarms[alarm]["Dimensions"]})
        expected = {
            "FunctionName": {"Ref": name},
            "Resource": {"Fn::Sub": f"${{{name}}}:{ALIAS}"},
            "ExecutedVersion": {"Fn::GetAtt": [name, "Version.Version"]},
        }
        if watched != [expected]:
            yield (
                f"{name} has no alarm that rolls its deployment back: add {stem(name)}Errors and `DeploymentPreference:"
                f" {{Alarms: [!If [DeployInSteps, !Ref {stem(name)}Errors, !Ref AWS::NoValue]]}}` to template.yaml"
            )


def service_name(app: Application) -> Iterator[str]:
    for name, function in app.functions():
        if "POWERTOOLS_SERVICE_NAME" not in function.get("Environment", {}).get("Variables", {}):
            yield f"{name} has no service name: add the variable POWERTOOLS_SERVICE_NAME to it in template.yaml"


def failure_destination(app: Application) -> Iterator[str]:
    functions = dict(app.functions())
    for name in sorted({name for name, *_ in app.events("EventBridgeRule", "ScheduleV2")}):
        asynchronous = functions[name].get("EventInvokeConfig", {})
        destination = asynchronous.get("DestinationConfig", {}).get("OnFailure", {}).get("Destination")
        limits = {"MaximumRetryAttempts", "MaximumEventAgeInSeconds"}
        if destination != DLQ or not limits <= set(asynchronous):
            yield (
                f"{name} is invoked asynchronously and does not say what happens when it keeps failing: add"
                " `EventInvokeConfig: *asynchronous` to it in template.yaml"
            )


def permission_to_send_failures(app: Application) -> Iterator[str]:
    roles = dict(of_type(app.template, "AWS::IAM::Role"))
    for name, function in app.functions():
        policies = roles.get(referenced(function.get("Role")), {}).get("Policies", [])
        statements = [each for policy in policies for each in policy["PolicyDocument"]["Statement"]]
        may = any("sqs:SendMessage" in each["Action"] and each["Resource"] == DLQ for each in statements)
        asynchronous = any(name == found for found, *_ in app.events("EventBridgeRule", "ScheduleV2"))
        if asynchronous and not may:
            yield f"{name} may not send its failures to the DLQ: add `*to-dlq` to its role's policy in template.yaml"


def rule_with_retries_and_dlq(app: Application) -> Iterator[str]:
    for name, event, rule in app.events("EventBridgeRule"):
        for lacking in sorted({"RuleName", "EventBusName", "RetryPolicy"} - set(rule)):
            yield f"{name}: add {lacking} to its event {event} in template.yaml"
        if rule.get("DeadLetterConfig") != {"Arn": DLQ}:
            dlq = "`DeadLetterConfig: {Arn: !GetAtt OrderEventsDlq.Arn}`"
            yield f"{name}: add {dlq} to its event {event} in template.yaml"


def rule_in_the_catalogue_of_rules(app: Application) -> Iterator[str]:
    for name, event, rule in app.events("EventBridgeRule"):
        if rule.get("RuleName") not in app.rules:
            yield f"{name}: describe the rule of its event {event} in RULES of tests/contract/test_rules.py"


def fixture(app: Application) -> Iterator[str]:
    for name, _ in app.functions():
        folder = "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in stem(name)).strip("_")
        if folder not in app.fixtures:
            yield f"{name} has no fixture: add one, of what invokes it, to events/{folder}/"


def failure_alarm(app: Application) -> Iterator[str]:
    wanted = {("AWS/Lambda", name) for name in ("Errors", "Throttles", "Invocations")}
    watched = []
    for _, alarm in of_type(app.observability, "AWS::CloudWatch::Alarm"):
        metrics = [query["MetricStat"]["Metric"] for query in alarm.get("Metrics", []) if "MetricStat" in query]
        of = {referenced(part["Value"]) for metric in metrics for part in metric["Dimensions"]}
        watched.append((of, {(str(metric["Namespace"]), metric["MetricName"]) for metric in metrics}))
    for name, _ in app.functions():
        if app.nested().get(name) != {"Ref": name} or ({name}, wanted) not in watched:
            yield (
                f"{name} has no alarm for its failures: add {stem(name)}Fails to infrastructure/observability.yaml, and"
                f" pass `{name}: !Ref {name}` to Observability in template.yaml"
            )


def place_on_the_dashboard(app: Application) -> Iterator[str]:
    (dashboard,) = dict(of_type(app.observability, "AWS::CloudWatch::Dashboard")).values()
    widgets = json.loads(dashboard["DashboardBody"]["Fn::Sub"][0])["widgets"]
    on_it = {(metric, dimensions) for _, metric, dimensions in shown(widgets)}
    for name, _ in app.functions():
        for metric in ("Errors", "Throttles", "Duration"):
            if (metric, (("FunctionName", f"${{{name}}}"),)) not in on_it:
                yield f"{name}: add its {metric} to the dashboard in infrastructure/observability.yaml"


def place_in_the_queries(app: Application) -> Iterator[str]:
    asked = [referenced(group) for group in app.nested()["FunctionLogGroups"]["Fn::Join"][1]]
    for name, function in app.functions():
        if referenced(function.get("LoggingConfig", {}).get("LogGroup")) not in asked:
            yield f"{name}: add its log group to FunctionLogGroups of Observability in template.yaml"


RULES: list[Rule] = [
    handler_is_a_function_in_a_file,
    role_of_its_own,
    log_group_that_expires,
    release,
    rollback_alarm,
    service_name,
    failure_destination,
    permission_to_send_failures,
    rule_with_retries_and_dlq,
    rule_in_the_catalogue_of_rules,
    fixture,
    failure_alarm,
    place_on_the_dashboard,
    place_in_the_queries,
]


def folders_of_fixtures(events: Path) -> set[str]:
    return {path.parent.name for path in events.glob("*/*.json")}
