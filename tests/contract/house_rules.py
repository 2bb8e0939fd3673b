"""House rules: what every function of template.yaml needs. A violation names the function, the file and the fix."""

from collections.abc import Callable, Iterator, Set
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from tests.contract.source import ROOT

DLQ = {"Fn::GetAtt": ["OrderEventsDlq", "Arn"]}
LONGEST_SERVICE_NAME = 15
"""A function's name has at most 64 characters: 48 for the stack's name (tools/deploy.py), a hyphen, and this."""


@dataclass(frozen=True)
class Application:
    """What the rules check.

    Args:
        template: template.yaml, as it is written.
        fixtures: the names of the folders in events/ that hold fixtures.
        rules: the names of the rules that tests/contract/test_rules.py describes.
    """

    template: dict[str, Any]
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
    """Returns `Inventory` for InventoryFunction: its role, log group and alarm have names with this prefix."""
    return function.removesuffix("Function")


def service(function: dict[str, Any]) -> str:
    return str(function.get("Environment", {}).get("Variables", {}).get("POWERTOOLS_SERVICE_NAME", ""))


def to_add(name: str, addition: str, text: str | None = None) -> str:
    """Returns a rule's message, such as "template.yaml:321: LoyaltyFunction: add `…`".

    Args:
        text: where to add it, if that is not the function's own block.
    """
    return f"{line_of(text or f'  {name}:')}: {name}: add {addition}"


def line_of(text: str) -> str:
    """Returns file and line of the first line in template.yaml that contains a text."""
    lines = (ROOT / "template.yaml").read_text().splitlines()
    return next((f"template.yaml:{number}" for number, line in enumerate(lines, 1) if text in line), "template.yaml")


def handler_in_a_module(app: Application) -> Iterator[str]:
    for name, function in app.functions():
        module, _, handler = function.get("Handler", "").rpartition(".")
        if handler != "handler" or not _exists(module):
            yield to_add(name, "a Handler that names the function `handler` of a module in functions/")


def _exists(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except (ImportError, ValueError):
        return False


def name_of_the_service(app: Application) -> Iterator[str]:
    for name, function in app.functions():
        if not 0 < len(service(function)) <= LONGEST_SERVICE_NAME:
            limit = f"at most {LONGEST_SERVICE_NAME} characters"
            yield to_add(name, f"the variable POWERTOOLS_SERVICE_NAME, of {limit}")
        if function.get("FunctionName") != {"Fn::Sub": f"${{AWS::StackName}}-{service(function)}"}:
            yield to_add(name, f"`FunctionName: !Sub ${{AWS::StackName}}-{service(function) or '<service name>'}`")


def place_in_the_list_of_services(app: Application) -> Iterator[str]:
    listed = app.template["Resources"]["Observability"]["Properties"]["Parameters"]["Services"]["Fn::Sub"][0].split(",")
    for name, function in app.functions():
        if f"${{Prefix}}{service(function)}" not in listed:
            entry = f"`${{Prefix}}{service(function) or '<service name>'},` to the list of services"
            yield to_add(name, entry, "&services")


def role_of_its_own(app: Application) -> Iterator[str]:
    roles = [referenced(function.get("Role")) for _, function in app.functions()]
    for name, function in app.functions():
        role = referenced(function.get("Role"))
        if not role or roles.count(role) > 1:
            own = f"{stem(name)}Role"
            yield to_add(name, f"a role of its own, {own} with `<<: *function-role`, and `Role: !GetAtt {own}.Arn`")


def log_group_that_expires(app: Application) -> Iterator[str]:
    groups = dict(of_type(app.template, "AWS::Logs::LogGroup"))
    for name, function in app.functions():
        group = groups.get(referenced(function.get("LoggingConfig", {}).get("LogGroup")), {})
        log_group = f"/aws/lambda/${{AWS::StackName}}-{service(function)}"
        if group != {"LogGroupName": {"Fn::Sub": log_group}, "RetentionInDays": {"Ref": "LogRetentionDays"}}:
            yield to_add(
                name,
                f"{stem(name)}LogGroup with `LogGroupName: !Sub {log_group}` and `RetentionInDays: !Ref"
                f" LogRetentionDays`, and `LoggingConfig: {{LogGroup: !Ref {stem(name)}LogGroup}}`",
            )


def release(app: Application) -> Iterator[str]:
    for name, function in app.functions():
        if function.get("AutoPublishCodeSha256") != {"Ref": "Release"}:
            yield to_add(name, "`AutoPublishCodeSha256: !Ref Release`")


def rollback_alarm(app: Application) -> Iterator[str]:
    alarms = dict(of_type(app.template, "AWS::CloudWatch::Alarm"))
    for name, function in app.functions():
        watched = []
        for entry in function.get("DeploymentPreference", {}).get("Alarms", []):
            match entry:
                case {"Fn::If": ["UseCanary", {"Ref": str(alarm)}, _]}:
                    watched.append({part["Name"]: part["Value"] for part in alarms[alarm]["Dimensions"]})
        expected = {
            "FunctionName": {"Ref": name},
            "Resource": {"Fn::Sub": f"${{{name}}}:live"},
            "ExecutedVersion": {"Fn::GetAtt": [name, "Version.Version"]},
        }
        if watched != [expected]:
            yield to_add(
                name,
                f"the alarm {stem(name)}Errors with `<<: *new-version-fails`, and `DeploymentPreference:"
                f" {{Alarms: [!If [UseCanary, !Ref {stem(name)}Errors, !Ref AWS::NoValue]]}}`",
            )


def failure_destination(app: Application) -> Iterator[str]:
    functions = dict(app.functions())
    for name in sorted({name for name, *_ in app.events("EventBridgeRule", "ScheduleV2")}):
        asynchronous = functions[name].get("EventInvokeConfig", {})
        destination = asynchronous.get("DestinationConfig", {}).get("OnFailure", {}).get("Destination")
        limits = {"MaximumRetryAttempts", "MaximumEventAgeInSeconds"}
        if destination != DLQ or not limits <= set(asynchronous):
            yield to_add(name, "`EventInvokeConfig: *asynchronous`, which sends failed events to the DLQ")


def permission_to_send_failures(app: Application) -> Iterator[str]:
    roles = dict(of_type(app.template, "AWS::IAM::Role"))
    for name, function in app.functions():
        policies = roles.get(referenced(function.get("Role")), {}).get("Policies", [])
        statements = [each for policy in policies for each in policy["PolicyDocument"]["Statement"]]
        may = any("sqs:SendMessage" in each["Action"] and each["Resource"] == DLQ for each in statements)
        asynchronous = any(name == found for found, *_ in app.events("EventBridgeRule", "ScheduleV2"))
        if asynchronous and not may:
            yield to_add(name, "the statement `*to-dlq` to its role", f"  {stem(name)}Role:")


def rule_with_retries_and_dlq(app: Application) -> Iterator[str]:
    for name, event, rule in app.events("EventBridgeRule"):
        for lacking in sorted({"RuleName", "EventBusName", "RetryPolicy"} - set(rule)):
            yield to_add(name, f"{lacking} to its event {event} (`<<: *rule` has all but RuleName and Pattern)")
        if rule.get("DeadLetterConfig") != {"Arn": DLQ}:
            yield to_add(name, f"`DeadLetterConfig: *dlq` to its event {event}")


def rule_in_the_table_of_rules(app: Application) -> Iterator[str]:
    table = ROOT / "tests/contract/test_rules.py"
    line = next(number for number, text in enumerate(table.read_text().splitlines(), 1) if text.startswith("RULES"))
    for name, event, rule in app.events("EventBridgeRule"):
        if rule.get("RuleName") not in app.rules:
            yield f"tests/contract/test_rules.py:{line}: {name}: add the rule of its event {event} to RULES"


def fixture(app: Application) -> Iterator[str]:
    for name, _ in app.functions():
        folder = "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in stem(name)).strip("_")
        if folder not in app.fixtures:
            yield f"events/{folder}/: {name}: add a fixture, an event that invokes it"


RULES: list[Rule] = [
    handler_in_a_module,
    name_of_the_service,
    place_in_the_list_of_services,
    role_of_its_own,
    log_group_that_expires,
    release,
    rollback_alarm,
    failure_destination,
    permission_to_send_failures,
    rule_with_retries_and_dlq,
    rule_in_the_table_of_rules,
    fixture,
]


def folders_of_fixtures(events: Path) -> set[str]:
    return {path.parent.name for path in events.glob("*/*.json")}
