"""Security: policies limited by source, logs without personal data, deployments that roll back, no secrets."""

import json
import re
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from cfnlint.api import lint

from tests.contract.conftest import translated
from tests.contract.test_template import ROOT, as_list, functions, granted, of_type, resolved
from tools.deploy import release

# Statements for all principals or all actions, and why. test_template.py tests the roles.
OPEN = {
    "OnlyOverTls": "denies requests without TLS to every principal",
    "AccountUsesIam": "in a key policy: without it, IAM policies could not grant access to the key",
}
# Statements for an AWS service without a condition on its source, and why.
UNLIMITED = {
    (
        "AlertKey",
        "EmailEvents",
    ): "SES may not send its source to KMS; the topic's policy limits SES to our configuration set",
}
# Access keys of AWS, tokens of GitHub and Slack, private keys, signed JSON Web Tokens.
SECRETS = re.compile(
    r"\b(?:AKIA|ASIA)[0-9A-Z]{16}\b|\bgh[pousr]_\w{36}\b|\bxox[baprs]-\w{10,}|-----BEGIN [A-Z ]*PRIVATE KEY-----"
    r"|\beyJ[\w-]{10,}\.eyJ[\w-]{10,}\.[\w-]{20,}"
)
PEOPLE = ("identity", "authorizer.claims", "path", "header", "querystring")
STEPS = {"sandbox": False, "staging": True, "prod": True}


def policies(template: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """The statements of resource policies with the resource's logical id, in a stack that sends e-mails."""
    documents = [
        (name, resource["Properties"].get("PolicyDocument", resource["Properties"].get("KeyPolicy")))
        for name, resource in resolved(template, template["Resources"], SenderEmail="shop@example.com").items()
        if resource["Type"] in ("AWS::SQS::QueuePolicy", "AWS::SNS::TopicPolicy", "AWS::KMS::Key")
    ]
    assert documents
    return [(name, statement) for name, document in documents for statement in document["Statement"]]


def test_resource_policies_limit_aws_services_to_resources_of_this_stack(template: dict[str, Any]) -> None:
    for name, statement in policies(template):
        if statement["Effect"] == "Allow" and "Service" in statement["Principal"]:
            limits = {key for test in statement.get("Condition", {}).values() for key in test}
            assert "aws:SourceArn" in limits or (name, statement["Sid"]) in UNLIMITED, (name, statement["Sid"])


def test_each_policy_statement_for_all_principals_or_actions_has_a_reason(template: dict[str, Any]) -> None:
    open_ones = {
        statement["Sid"]
        for name, statement in policies(template)
        if statement["Principal"] == "*" or any(action.endswith(":*") for action in as_list(statement["Action"]))
    }
    assert open_ones == set(OPEN)
    assert all(statement["Effect"] == "Deny" for _, statement in policies(template) if statement["Principal"] == "*")


def test_only_the_api_and_rules_of_this_stack_may_invoke_functions(template: dict[str, Any]) -> None:
    for name, permission in of_type(template, "AWS::Lambda::Permission").items():
        assert "SourceArn" in permission, name
        assert permission["Principal"] in ("apigateway.amazonaws.com", "events.amazonaws.com"), name


def test_only_codedeploy_may_change_functions(template: dict[str, Any]) -> None:
    changing = {
        role for role, action, _ in granted(template) if re.match(r"lambda:(?!Invoke|Get)|iam:|cloudform", action)
    }
    assert changing == {"DeploymentRole"}


def test_the_api_is_throttled(template: dict[str, Any]) -> None:
    (stage,) = of_type(template, "AWS::ApiGatewayV2::Stage").values()
    assert stage["DefaultRouteSettings"] == {"ThrottlingRateLimit": 100, "ThrottlingBurstLimit": 200}


def test_the_access_log_is_json_expires_and_contains_no_personal_data(template: dict[str, Any]) -> None:
    (stage,) = of_type(template, "AWS::ApiGatewayV2::Stage").values()
    settings = stage["AccessLogSettings"]
    fields = json.loads(settings["Format"])
    assert fields["requestId"] == "$context.requestId"
    assert {"$context.routeKey", "$context.status", "$context.responseLatency"} <= set(fields.values())
    assert not [value for value in fields.values() if any(part in value for part in PEOPLE)]
    group = of_type(template, "AWS::Logs::LogGroup")[settings["DestinationArn"]["Fn::GetAtt"][0]]
    assert group["RetentionInDays"] == {"Ref": "LogRetentionDays"}


@pytest.mark.parametrize(("stage", "in_steps"), STEPS.items())
def test_a_deployment_shifts_traffic_gradually_outside_the_sandbox(stage: str, in_steps: bool) -> None:
    template = translated(stage)
    types = {resource["Type"] for resource in template["Resources"].values()}
    assert ("AWS::CodeDeploy::DeploymentGroup" in types) is in_steps
    assert (
        set(template["Mappings"]["Deployments"]) == set(template["Parameters"]["Stage"]["AllowedValues"]) == set(STEPS)
    )


def test_the_transformed_template_is_valid_and_every_reference_resolves() -> None:
    """Checks the template of prod with cfn-lint; `make lint` checks that of the sandbox."""
    found = lint(json.dumps(translated("prod")), None, ["us-east-1"])
    assert [str(match) for match in found if match.rule.id.startswith("E")] == []


def test_an_alarm_on_a_new_version_rolls_the_deployment_back() -> None:
    template = translated("prod")
    groups, alarms = of_type(template, "AWS::CodeDeploy::DeploymentGroup"), of_type(template, "AWS::CloudWatch::Alarm")
    for name in functions(template):
        group = groups[f"{name}DeploymentGroup"]
        assert group["AutoRollbackConfiguration"]["Enabled"] is True
        assert "DEPLOYMENT_STOP_ON_ALARM" in group["AutoRollbackConfiguration"]["Events"]
        assert "Canary10Percent5Minutes" in str(group["DeploymentConfigName"])
        for entry in group.get("AlarmConfiguration", {}).get("Alarms", []):
            condition, alarm, _ = entry["Name"]["Fn::If"]
            assert template["Resources"][alarm["Ref"]]["Condition"] == condition == "UseCanary"
            watched = {part["Name"]: part["Value"] for part in alarms[alarm["Ref"]]["Dimensions"]}
            version = watched["ExecutedVersion"]["Fn::GetAtt"][0]
            assert template["Resources"][version]["Properties"]["FunctionName"] == {"Ref": name}


def test_every_function_has_the_alias_live(template: dict[str, Any]) -> None:
    aliases = of_type(template, "AWS::Lambda::Alias").values()
    assert {alias["FunctionName"]["Ref"]: alias["Name"] for alias in aliases} == dict.fromkeys(
        functions(template), "live"
    )


def versions(template: dict[str, Any]) -> set[str]:
    """The logical ids of the functions' versions. A new one publishes a version and moves `live` to it."""
    return set(of_type(template, "AWS::Lambda::Version"))


CHANGED = {
    "SenderEmail": "shop@example.com",
    "SnapStart": "PublishedVersions",
    "EventBusName": "another-bus",
    "Architecture": "x86_64",
}


@pytest.mark.parametrize("changed", [{}, *({name: value} for name, value in CHANGED.items())], ids=str)
def test_each_release_publishes_a_new_version_of_every_function(changed: dict[str, str]) -> None:
    before = translated(Release=release(1795528011))
    after = translated(Release=release(1795528012), **changed)
    assert versions(before) & versions(after) == set()
    assert len(versions(after)) == len(functions(after))


def test_the_description_of_each_function_is_the_release_so_lambda_can_publish_the_same_code_again() -> None:
    template = translated(Release="1795528011")
    assert {function.get("Description") for function in functions(template).values()} == {"1795528011"}


def test_without_a_release_a_changed_layer_publishes_a_new_version_of_every_function() -> None:
    assert versions(translated()) == versions(translated())
    assert versions(translated()) & versions(translated(layers="another")) == set()


def test_each_stage_has_its_own_deployment_settings() -> None:
    stages = tomllib.loads((ROOT / "samconfig.toml").read_text())
    for stage, name in (("sandbox", "default"), ("staging", "staging"), ("prod", "prod")):
        deploy = stages[name]["deploy"]["parameters"]
        assert f"Stage={stage}" in deploy["parameter_overrides"]
        assert deploy.get("confirm_changeset", False) is (stage != "sandbox")
        assert set(deploy["capabilities"]) == {"CAPABILITY_IAM", "CAPABILITY_AUTO_EXPAND"}  # roles; nested stacks
    names = [stages[name]["global"]["parameters"]["stack_name"] for name in ("default", "staging", "prod")]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("path", sorted((ROOT / ".github/workflows").glob("*.yml")), ids=lambda path: path.name)
def test_a_workflow_runs_existing_make_commands_and_has_minimal_permissions(path: Path) -> None:
    workflow = yaml.safe_load(path.read_text())
    assert workflow["permissions"] == {"contents": "read"}
    targets = set(re.findall(r"^([a-z0-9-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for name, job in workflow["jobs"].items():
        assert job.get("permissions", {}).keys() <= ({"contents", "id-token"} if name == "deploy" else set())
        for step in job.get("steps", []):
            if "run" in step:
                command = re.fullmatch(r'make ([a-z0-9-]+)( \w+=(\w+|"\$\w+"))*', step["run"])
                assert command
                assert command[1] in targets
            assert "secrets." not in json.dumps(step)


@pytest.mark.parametrize("path", sorted((ROOT / ".github/workflows").glob("*.yml")), ids=lambda path: path.name)
def test_a_workflow_pins_third_party_actions_by_commit(path: Path) -> None:
    jobs = yaml.safe_load(path.read_text())["jobs"].values()
    used = [part["uses"] for job in jobs for part in (job, *job.get("steps", [])) if "uses" in part]
    assert used
    for action in used:
        assert action.startswith("./") or re.fullmatch(r"[\w-]+/[\w./-]+@[0-9a-f]{40}", action), action


def test_the_repository_contains_no_secrets() -> None:
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True
    )
    if listed.returncode:
        pytest.skip("not a git checkout: nothing says which files are the repository's")
    found = {
        name: SECRETS.search((ROOT / name).read_text(errors="ignore"))
        for name in listed.stdout.splitlines()
        if (ROOT / name).is_file()
    }
    assert len(found) > 1
    assert {name: match[0][:8] for name, match in found.items() if match} == {}


@pytest.mark.parametrize(
    "secret",
    ["AKIA" + "A1" * 8, "ghp_" + "a1" * 18, "-----BEGIN RSA " + "PRIVATE KEY-----", ".".join(["eyJ" + "a" * 30] * 3)],
)
def test_the_search_finds_each_kind_of_secret(secret: str) -> None:
    assert SECRETS.search(f"KEY = '{secret}'")
