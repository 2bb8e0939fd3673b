"""CloudFormation: deploys a SAM template with SAM's transform and moto's CloudFormation engine.

SAM's translator converts the template to plain CloudFormation. Moto's engine resolves parameters, conditions and
intrinsic functions, and creates the resources that store data; localaws/resource_models.py has models of the types that
moto lacks. The resolved properties of each resource are recorded for the other modules of localaws/.
"""

import copy
import json
import logging
import os
import re
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import yaml
from moto.awslambda import models as lambda_models
from moto.cloudformation import parsing
from moto.cloudformation.exceptions import UnformattedGetAttTemplateException
from moto.cloudformation.models import Stack as MotoStack
from moto.cloudformation.models import cloudformation_backends
from moto.core.common_models import CloudFormationModel
from moto.core.exceptions import ServiceException
from moto.dynamodb.models import dynamodb_backends
from moto.events.models import EventBus
from samtranslator.model.exceptions import InvalidDocumentException
from samtranslator.translator.transform import transform
from samtranslator.yaml_helper import intrinsics_multi_constructor

from localaws.nested_stacks import NestedStackError, inline
from localaws.not_honoured import HONOURED, PERMISSIONS, Report
from localaws.resource_models import MAKERS, Place, Recorded, Resource, StandIn
from localaws.store import Store

# Hides warnings of each transform about SAM's internal metrics and feature toggles.
logging.getLogger("samtranslator").setLevel(logging.ERROR)

# A placeholder for the bucket of `sam package`; the key is the logical ID.
CODE_BUCKET = "local"
IMAGE = "123456789012.dkr.ecr.us-east-1.amazonaws.com/local:latest"
"""A placeholder for the image that `sam build` makes."""

# The property with the code of a type, and the properties with the location and the content of a document.
_CODE = {
    "AWS::Lambda::Function": "Code",
    "AWS::Lambda::LayerVersion": "Content",
    "AWS::Serverless::Function": "CodeUri",
    "AWS::Serverless::LayerVersion": "ContentUri",
}
_DOCUMENTS = {
    "AWS::Serverless::Api": ("DefinitionUri", "DefinitionBody"),
    "AWS::Serverless::HttpApi": ("DefinitionUri", "DefinitionBody"),
    "AWS::Serverless::StateMachine": ("DefinitionUri", "Definition"),
}
# The physical ID is the value of these attributes too, which moto does not know.
_ID_ATTRIBUTES = {"QueueUrl", "TopicArn"}


class TemplateError(Exception):
    """A template is not valid. The message is one line: the file, the resource if there is one, and the reason."""


@dataclass(frozen=True)
class Stack:
    """A deployed template: its resources by logical ID, and the values of its outputs."""

    name: str
    resources: dict[str, Resource]
    outputs: dict[str, str]

    def of_type(self, type: str) -> list[Resource]:  # noqa: A002 - the name in CloudFormation
        return [resource for resource in self.resources.values() if resource.type == type]


def deploy(path: Path, store: Store, *, stack_name: str, parameters: Mapping[str, str], report: Report) -> Stack:
    """Deploys a SAM template to a started store.

    Args:
        path: path of the template, in YAML or JSON.
        store: contains the stack, so that boto3's CloudFormation client shows it as well.
        stack_name: name of the stack, and prefix of generated names.
        parameters: values of the template's parameters, required for those without a default.
        report: gets everything in the template that is not honoured.

    Raises:
        TemplateError: CloudFormation or SAM would reject the template or the parameters.
    """

    def read(file: Path) -> dict[str, Any]:
        try:
            return _read(file, parameters, report)
        except TemplateError as error:
            raise TemplateError(f"{file.name}: {error}" if file != path else str(error)) from error

    try:
        template = inline(read(path), path.parent, read, (HONOURED.keys() | PERMISSIONS).__contains__, report)
        values = _parameters(template, parameters, report)
        folders = _take_files(template, path.parent, report)
        plain = _transform(template, values, store.region)
        stack = _create(plain, store, stack_name, values, _Engine(folders, report))
    except (TemplateError, NestedStackError) as error:
        raise TemplateError(f"{path.name}: {error}") from error
    except Exception as error:  # a section is not what it should be, or moto rejects a setting of a table
        raise TemplateError(f"{path.name}: {type(error).__name__}: {_line(error)}") from error
    report.check(stack.resources.values())
    return stack


# ------------------------------------------------------------------------------------------------ the template


class _Loader(yaml.CSafeLoader):
    """A loader for SAM's YAML with the parser in C. SAM's own loader takes 0.25 s for Orderflow's template."""


_Loader.add_multi_constructor("!", intrinsics_multi_constructor)
# A date is text in CloudFormation: `Version: 2012-10-17`.
_Loader.add_constructor("tag:yaml.org,2002:timestamp", yaml.SafeLoader.construct_yaml_str)  # type: ignore[type-var]


def _read(path: Path, parameters: Mapping[str, str], report: Report) -> dict[str, Any]:
    template = _load(path)
    if not isinstance(template, dict) or not isinstance(template.get("Resources"), dict):
        raise TemplateError("the template has no Resources")
    template = {name: section for name, section in template.items() if section is not None}
    values = {name: each.get("Default", "") for name, each in template.get("Parameters", {}).items()} | dict(parameters)
    expanded: dict[str, Any] = _expand(template, path.parent, values, report)
    for reference in re.findall(r"\{\{resolve:[^}]*\}\}", json.dumps(expanded)):
        report(reference, "dynamic references are not resolved here")
    for logical_id, resource in expanded["Resources"].items():
        if not isinstance(resource, dict) or not isinstance(resource.get("Type"), str):
            raise TemplateError(f"{logical_id}: the resource has no Type")
        resource["Properties"] = resource.get("Properties") or {}
    return expanded


def _load(path: Path) -> Any:
    """Returns the content of a YAML or JSON file, with text as keys and without shared objects."""
    try:
        text = path.read_text()
        content = json.loads(text) if text.lstrip().startswith("{") else yaml.load(text, _Loader)  # noqa: S506 - safe
        # A copy, because YAML anchors share one object in several places, and SAM's transform changes objects in place.
        return json.loads(json.dumps(content))
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        raise TemplateError(f"line {mark.line + 1}: {error.problem}" if mark else _line(error)) from error
    except OSError as error:
        raise TemplateError(error.strerror) from error
    except (yaml.YAMLError, ValueError, TypeError, RecursionError) as error:
        raise TemplateError(_line(error)) from error


def _expand(node: Any, folder: Path, values: Mapping[str, Any], report: Report) -> Any:
    """Returns a copy with the content of included files and the members of each Fn::ForEach."""
    if isinstance(node, list):
        return [_expand(member, folder, values, report) for member in node]
    if not isinstance(node, dict):
        return node
    found: dict[str, Any] = {}
    for key, value in node.items():
        match key, value:
            case "Fn::Transform", _:
                found |= _included(value, folder, values, report)
            case "Fn::GetAtt", str():
                found[key] = value.split(".", 1)
            case str(), [str(name), collection, dict(body)] if key.startswith("Fn::ForEach::"):
                for member in _members(key, collection, values):
                    text = json.dumps(body).replace(json.dumps({"Ref": name}), json.dumps(member))
                    copied = json.loads(text.replace(f"${{{name}}}", member).replace(f"&{{{name}}}", member))
                    found |= _expand(copied, folder, values, report)
            case _:
                found[key] = _expand(value, folder, values, report)
    return found


def _members(key: str, collection: Any, values: Mapping[str, Any]) -> list[str]:
    if isinstance(collection, dict) and collection.get("Ref") in values:
        return str(values[collection["Ref"]]).split(",")
    if not isinstance(collection, list) or not all(isinstance(member, str) for member in collection):
        raise TemplateError(f"{key}: only a list of texts or a parameter is supported")
    return collection


def _included(macro: Any, folder: Path, values: Mapping[str, Any], report: Report) -> dict[str, Any]:
    """Returns the content of the file that `Fn::Transform` includes. Other macros are not run."""
    match macro:
        case {"Name": "AWS::Include", "Parameters": {"Location": str(location)}} if (folder / location).is_file():
            content = _expand(_load(folder / location), folder, values, report)
            return content if isinstance(content, dict) else {}
    name = macro.get("Name") if isinstance(macro, dict) else macro
    report("Fn::Transform", f"{name} is not run here, or does not name a file on this machine")
    return {}


def _parameters(template: dict[str, Any], given: Mapping[str, str], report: Report) -> dict[str, str]:
    """Returns the values of all parameters, as CloudFormation gets them from its API.

    A parameter of Systems Manager becomes a text: the value is not looked up.
    """
    declared = template.get("Parameters", {})
    missing = [name for name, each in declared.items() if "Default" not in each and name not in given]
    if unknown := sorted(given.keys() - declared.keys()):
        raise TemplateError(f"Parameters: unknown {', '.join(unknown)}")
    if missing:
        raise TemplateError(
            f"Parameters: no value for {', '.join(sorted(missing))}; add --parameter NAME=VALUE for each"
        )
    values = {name: given.get(name, as_text(each.get("Default"))) for name, each in declared.items()}
    for name, each in declared.items():
        allowed = [as_text(value) for value in each.get("AllowedValues", [])]
        if allowed and values[name] not in allowed:
            raise TemplateError(f"Parameters: {name} is {values[name]!r}, and not one of {', '.join(allowed)}")
        kind = str(each.get("Type"))
        if kind.startswith("AWS::SSM::Parameter::"):
            each["Type"] = "CommaDelimitedList" if "List<" in kind else "String"
            if name not in given and "::Value<" in kind:
                report(name, "the name of an SSM parameter is used as its value; --parameter NAME=VALUE sets one")
    return values


def as_text(value: Any) -> str:
    """Returns a value of a template as CloudFormation passes it on where a text is required."""
    if isinstance(value, list):
        return ",".join(map(as_text, value))
    return str(value).lower() if isinstance(value, bool) else str(value)


def _take_files(template: dict[str, Any], root: Path, report: Report) -> dict[str, Path]:
    """Replaces code folders in the template by S3 locations, which SAM's transform requires, and documents by content.

    Returns:
        The folders by logical ID.
    """
    folders = {}
    defaults = template.get("Globals", {}).get("Function", {})
    default = defaults.pop("CodeUri", ".")
    for logical_id, resource in template["Resources"].items():
        properties, kind = resource["Properties"], resource["Type"]
        if kind in _DOCUMENTS:
            location, content = _DOCUMENTS[kind]
            if isinstance(properties.get(location), str) and (root / properties[location]).is_file():
                file = root / properties.pop(location)
                properties[content] = _expand(_load(file), file.parent, {}, report)
        if kind not in _CODE or "InlineCode" in properties:
            continue
        if "Image" in (properties.get("PackageType"), defaults.get("PackageType")):
            if kind == "AWS::Serverless::Function":
                properties.setdefault("ImageUri", IMAGE)
            continue
        name = _CODE[kind]
        code = properties.get(name, default if kind == "AWS::Serverless::Function" else None)
        if kind == "AWS::Lambda::Function" and isinstance(code, dict):
            continue  # an object in S3, an image, or code in the template
        if isinstance(code, str) and (root / code).is_dir():
            folders[logical_id] = (root / code).resolve()
        else:
            report(logical_id, f"{name} is not a folder on this machine: {code}")
        is_plain = kind.startswith("AWS::Lambda::")
        place = {"S3Bucket": CODE_BUCKET, "S3Key": logical_id}
        properties[name] = place if is_plain else f"s3://{CODE_BUCKET}/{logical_id}"
    return folders


class _NoManagedPolicies:
    """Replaces SAM's lookup of managed policies in an AWS account."""

    def load(self) -> dict[str, str]:
        return {}


def _transform(template: dict[str, Any], parameters: dict[str, str], region: str) -> dict[str, Any]:
    try:
        with patch.dict(os.environ, AWS_DEFAULT_REGION=region):  # SAM gets the region from boto3
            plain: dict[str, Any] = transform(template, parameters, _NoManagedPolicies())  # type: ignore[arg-type]
    except InvalidDocumentException as error:
        raise TemplateError(_line("; ".join(cause.message for cause in error.causes))) from error
    except Exception as error:  # SAM's translator does not check everything before it uses it
        raise TemplateError(f"SAM's transform failed with {type(error).__name__}: {_line(error)}") from error
    return plain


def _line(text: object) -> str:
    return " ".join(str(text).split())


# --------------------------------------------------------------------------------------------------- the stack


def _create(plain: dict[str, Any], store: Store, name: str, parameters: Mapping[str, str], engine: "_Engine") -> Stack:
    with ExitStack() as replaced:
        engine.correct(replaced)
        try:
            backend = cloudformation_backends[store.account_id][store.region]
            made = backend.create_stack(name, json.dumps(plain), dict(parameters))
            outputs = {key: str(output.value) for key in made.output_map if (output := made.output_map[key])}
        except ServiceException as error:
            raise TemplateError(_line(error.message)) from error
    resources = {
        logical_id: Resource(
            logical_id=logical_id,
            type=plain["Resources"][logical_id]["Type"],
            physical_id=getattr(made.resource_map[logical_id], "physical_resource_id", logical_id),
            properties=properties,
            local_path=engine.folders.get(_key(properties)),
        )
        for logical_id, properties in engine.resolved.items()
    }
    stack = Stack(name, resources, outputs)
    _complete_tables(stack, store)
    return stack


def _key(properties: dict[str, Any]) -> str:
    """Returns the logical ID in the placeholder of a code folder, or an empty string."""
    code = properties.get("Code") or properties.get("Content")
    return str(code["S3Key"]) if isinstance(code, dict) and code.get("S3Bucket") == CODE_BUCKET else ""


def _complete_tables(stack: Stack, store: Store) -> None:
    """Sets the properties of tables that moto's CloudFormation ignores, but moto's DynamoDB supports."""
    backend = dynamodb_backends[store.account_id][store.region]
    for table in stack.of_type("AWS::DynamoDB::Table"):
        if "TimeToLiveSpecification" in table.properties:
            backend.update_time_to_live(table.physical_id, table.properties["TimeToLiveSpecification"])
        if "PointInTimeRecoverySpecification" in table.properties:
            backend.update_continuous_backups(table.physical_id, table.properties["PointInTimeRecoverySpecification"])


class _Engine:
    """Moto's engine with corrections. `resolved` has the properties of each resource by logical ID."""

    def __init__(self, folders: Mapping[str, Path], report: Report) -> None:
        self.folders = folders
        self.resolved: dict[str, dict[str, Any]] = {}
        self._report = report
        self._in_work: list[str] = []
        self._clean, self._output = parsing.clean_json, parsing.parse_output

    def correct(self, replaced: ExitStack) -> None:
        """Replaces parts of moto's engine."""
        for owner, name, correction in (
            (parsing, "parse_and_create_resource", self._create),
            (parsing, "parse_output", lambda *arguments: _naming(arguments[0], self._output, *arguments)),
            (parsing, "clean_json", self._cleaned),
            # Fails with a TypeError for an unknown resource. parse_output reports errors of outputs.
            (parsing.ResourceMap, "validate_outputs", lambda _resources: None),
            # Reads the included files from S3. `_expand` has read those on this machine.
            (parsing.ResourceMap, "transform_mapping", lambda _resources: None),
            # Looks for the code in S3, but the functions run from their folders.
            (lambda_models, "_validate_s3_bucket_and_key", lambda *_, **__: None),
            # Reads JSON with a YAML parser in Python, which takes longer than the rest of the deployment.
            (MotoStack, "parse_template", staticmethod(json.loads)),
        ):
            replaced.enter_context(patch.object(owner, name, correction))

    def _create(
        self, logical_id: str, resource: dict[str, Any], resources: Any, account_id: str, region_name: str
    ) -> Any:
        """Creates one resource, or a stand-in if moto cannot create it."""
        if "Condition" in resource and not resources.lazy_condition_map[resource["Condition"]]:
            return None
        if logical_id in self._in_work:
            raise TemplateError(f"{logical_id}: circular dependency with {', '.join(self._in_work)}")
        self._in_work.append(logical_id)
        kind = resource["Type"]
        # A copy, because moto's models change the properties: a rule converts its pattern to a string.
        properties = _naming(logical_id, parsing.clean_json, copy.deepcopy(resource.get("Properties", {})), resources)
        self._in_work.remove(logical_id)
        if isinstance(pattern := properties.get("EventPattern"), str):
            properties["EventPattern"] = _naming(logical_id, json.loads, pattern)
        self.resolved[logical_id] = copy.deepcopy(properties)
        name = parsing.generate_resource_name(kind, resources["AWS::StackName"], logical_id)
        place = Place(account_id, region_name, name)
        made: Any = None
        try:
            made = self._made(logical_id, kind, place, properties, resources)
        except Exception as error:  # the models of moto raise many kinds of exceptions
            reason = getattr(error, "message", None)
            if reason and kind in _STRICT:
                raise TemplateError(f"{logical_id}: {_line(reason)}") from error
            text = _line(reason or f"{type(error).__name__}: {error}")
            self._report(logical_id, f"cannot be created here: {text}")
        made = made or StandIn(logical_id, kind, place, properties)
        made.cf_resource_type, made.logical_resource_id = kind, logical_id
        return made

    def _made(self, logical_id: str, kind: str, place: Place, properties: dict[str, Any], resources: Any) -> Any:
        if kind in MAKERS:
            return Recorded(MAKERS[kind](place, properties))
        model = parsing.get_model_map().get(kind)
        if model is None or not (kind in HONOURED or kind in _STORED):
            return None
        own_name = properties.get(parsing.resource_name_property_from_type(kind) or "", place.name)
        if kind in ("AWS::KMS::Key", "AWS::SSM::Parameter"):
            properties.pop("Tags", None)  # moto expects the tags in the form of these services' APIs
            properties["Name"] = own_name  # moto does not name a parameter
        description = {"Type": kind, "Properties": properties}
        ids = {"LogicalId": logical_id, "StackId": resources.stack_id, "ResourceType": kind}
        return model.create_from_cloudformation_json(own_name, description, place.account_id, place.region, **ids)

    def _cleaned(self, node: Any, resources: Any) -> Any:
        match node:
            case list():  # moto replaces NoValue by None
                return [parsing.clean_json(member, resources) for member in node if not _is_no_value(member, resources)]
            case {"Fn::GetAtt": [str(name), attribute, *more]}:
                parts = (attribute, *more)
                return self._attribute(name, ".".join(parsing.clean_json(part, resources) for part in parts), resources)
            case {"Fn::ImportValue": export}:
                return self._imported(parsing.clean_json(export, resources), resources)
            case {"Fn::FindInMap": [*keys, {"DefaultValue": default}]}:  # of AWS::LanguageExtensions
                try:
                    return self._clean({"Fn::FindInMap": keys}, resources)
                except KeyError:
                    return parsing.clean_json(default, resources)
            case {"Fn::Length": values}:
                return len(parsing.clean_json(values, resources))
            case {"Fn::Select": [index, values]}:
                return self._selected(int(parsing.clean_json(index, resources)), parsing.clean_json(values, resources))
        value = self._clean(node, resources)
        if isinstance(node, dict) and "Ref" in node and node["Ref"] != "AWS::NoValue" and value is None:
            message = f"!Ref {node['Ref']} has no value: the resource's condition is false"
            raise ServiceException("ValidationError", message)
        if isinstance(value, CloudFormationModel):
            self._report(node["Ref"], "moto does not know the value of !Ref; the logical ID is its value")
            return node["Ref"]
        return value

    def _selected(self, index: int, values: Any) -> Any:
        members = values if isinstance(values, list) else [values]  # a stand-in value is a text
        if index >= len(members):
            self._report("Fn::Select", f"{members} has no member {index}; the last one is used")
        return members[min(index, len(members) - 1)]

    def _attribute(self, name: str, attribute: str, resources: Any) -> Any:
        """Returns the value of GetAtt. A resource that moto does not honour completely gets a stand-in value."""
        resource = resources.get(name)
        if attribute in _ID_ATTRIBUTES and hasattr(resource, "physical_resource_id"):
            return resource.physical_resource_id
        if resource is None:
            reason = "has no value: its condition is false" if name in resources else "is undefined"
            raise ServiceException("ValidationError", f"!GetAtt {name}.{attribute}: resource {name} {reason}")
        try:
            value = resource.get_cfn_attribute(attribute)
        except (AttributeError, UnformattedGetAttTemplateException, NotImplementedError):
            value = None
        if value is not None and not isinstance(value, dict):
            return value
        kind, physical_id = resource.cf_resource_type, getattr(resource, "physical_resource_id", "")
        if attribute == "Arn" and physical_id.startswith("arn:"):
            return physical_id
        if kind in HONOURED:
            message = f"!GetAtt {name}.{attribute} has no value: {kind} has no attribute {attribute} here"
            raise ServiceException("ValidationError", message)
        self._report(f"{name}.{attribute}", "moto does not know the attribute; its name is its value")
        return f"{name}.{attribute}"

    def _imported(self, export: str, resources: Any) -> Any:
        for known in resources.cross_stack_resources.values():
            if known.name == export:
                return known.value
        self._report(export, "no stack exports this value; its name is its value")
        is_arn = export.lower().endswith("arn")
        return f"arn:aws:import:{resources['AWS::Region']}:{resources['AWS::AccountId']}:{export}" if is_arn else export


# Types that moto creates although they do not run here: functions call their APIs.
_STORED = {
    *("AWS::IAM::ManagedPolicy", "AWS::IAM::Policy", "AWS::IAM::Role"),
    *("AWS::KMS::Alias", "AWS::KMS::Key", "AWS::Kinesis::Stream", "AWS::StepFunctions::StateMachine"),
}
# Types whose properties moto validates as AWS does. Others may refer to resources that are not here.
_STRICT = {"AWS::DynamoDB::Table", "AWS::Logs::LogGroup", "AWS::S3::Bucket", "AWS::SNS::Topic", "AWS::SQS::Queue"}


def _naming(name: str, make: Callable[..., Any], *arguments: Any) -> Any:
    """Calls a function of the engine, and adds the name of the resource or output to its errors."""
    try:
        return make(*arguments)
    except TemplateError:
        raise  # from a resource that this one refers to; the message has its name
    except Exception as error:  # the engine raises many kinds of exceptions
        reason = getattr(error, "message", None) or f"{type(error).__name__}: {error}"
        if isinstance(error, KeyError):
            reason = f"{error.args[0]} does not exist"
        raise TemplateError(f"{name}: {_line(reason)}") from error


def _is_no_value(node: Any, resources: Any) -> bool:
    if not isinstance(node, dict):
        return False
    if "Fn::If" in node:
        condition, yes, no = node["Fn::If"]
        return _is_no_value(yes if resources.lazy_condition_map[condition] else no, resources)
    return node == {"Ref": "AWS::NoValue"}


def _correct_answers() -> None:
    """Applies the corrections of moto's engine that are also needed after the deployment, so they are permanent.

    In moto, a Ref to an event bus or a layer is a Python object. Moto exports outputs whose condition is false, and
    fails if such an output refers to a resource with the same condition.
    """
    exports: Any = parsing.OutputMap.exports

    def wanted_exports(outputs: Any) -> Any:
        with_value = copy.copy(outputs)
        with_value._output_json_map = {key: outputs._output_json_map[key] for key in outputs if outputs[key]}
        return exports.fget(with_value)

    parsing.OutputMap.exports = property(wanted_exports)  # type: ignore[method-assign, assignment]
    EventBus.physical_resource_id = property(lambda bus: bus.name)  # type: ignore[attr-defined]
    lambda_models.LayerVersion.physical_resource_id = property(lambda layer: layer.arn)  # type: ignore[attr-defined]

    # A function has one version here: every alias and version refers to it.
    functions: Any = lambda_models.LambdaStorage
    find = functions.get_function_by_name_with_qualifier
    functions.get_function_by_name_with_qualifier = lambda stored, name, _qualifier=None: find(stored, name)


_correct_answers()
