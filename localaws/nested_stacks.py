"""Nested stacks: moves the resources of nested templates into their parent template.

Every nested resource keeps its logical ID, and its generated name starts with the name of the root stack. In AWS it
starts with the name of the nested stack, which is the value of `AWS::StackName` there.
"""

import re
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

STACK = "AWS::CloudFormation::Stack"

Json = dict[str, Any]


class NestedStackError(Exception):
    """A nested stack cannot be moved into its parent template. The message names the stack."""


def inline(
    template: Json,
    folder: Path,
    read: Callable[[Path], Json],
    wanted: Callable[[str], bool],
    report: Callable[[str, str], None] = lambda _name, _reason: None,
) -> Json:
    """Returns a template without nested stacks.

    A nested stack is kept and reported if its TemplateURL is not a file, if none of its resource types is wanted, or if
    it cannot be moved.

    Args:
        template: parent template.
        folder: base folder of TemplateURL.
        read: reads a template.
        wanted: returns whether a resource type is wanted.
        report: called with the logical ID of each nested stack that is kept, and the reason.

    Raises:
        NestedStackError: the parameters of a nested stack do not match its template, or it defines a logical ID that
            exists already.
    """
    found = {**template, "Resources": {}}
    found |= {section: dict(template.get(section, {})) for section in ("Conditions", "Mappings")}
    outputs: Json = {}
    for logical_id, resource in template["Resources"].items():
        path = folder / str(resource.get("Properties", {}).get("TemplateURL", ""))
        nested = read(path) if resource["Type"] == STACK and path.is_file() else {"Resources": {}}
        kinds = [each["Type"] for each in nested["Resources"].values() if isinstance(each, dict)]
        if (
            resource["Type"] == STACK
            and any(map(wanted, kinds))
            and _can_move(resource, nested, kinds, path.parent == folder)
        ):
            nested = _replace(nested, _values(logical_id, resource, nested))
        else:
            if resource["Type"] == STACK:
                counts = ", ".join(
                    f"{count} {kind.removeprefix('AWS::')}" for kind, count in sorted(Counter(kinds).items())
                )
                report(logical_id, f"the nested stack is not run here: {counts or 'its template is not a file'}")
            found["Resources"][logical_id] = resource
            continue
        for section in ("Conditions", "Mappings", "Resources"):
            for name, content in nested.get(section, {}).items():
                if name in found[section] or name in template.get(section, {}):
                    raise NestedStackError(f"{logical_id}: {path.name} defines {name}, which exists already")
                found[section][name] = content
        outputs |= {f"{logical_id}.Outputs.{name}": each["Value"] for name, each in nested.get("Outputs", {}).items()}
    return dict(_replace(found, outputs))


def _can_move(resource: Json, nested: Json, kinds: Collection[str], same_folder: bool) -> bool:
    """Returns whether the parent can have the nested resources: without a condition, Globals, stacks or other code."""
    has_code = not same_folder and any(kind.startswith("AWS::Serverless::") for kind in kinds)
    return not ("Condition" in resource or "Globals" in nested or STACK in kinds or has_code)


def _values(logical_id: str, resource: Json, nested: Json) -> Json:
    """Returns the values of a nested template's parameters, by name."""
    declared, given = nested.get("Parameters", {}), resource["Properties"].get("Parameters", {})
    missing = {name for name, parameter in declared.items() if "Default" not in parameter} - given.keys()
    if missing or given.keys() - declared.keys():
        names = ", ".join(sorted(missing | given.keys() - declared.keys()))
        raise NestedStackError(f"{logical_id}: the stack and its template differ in the parameters {names}")
    return {name: given.get(name, parameter.get("Default")) for name, parameter in declared.items()}


def _replace(node: Any, values: Mapping[str, Any]) -> Any:
    """Returns a copy in which references have values: parameters by name, outputs by `LogicalId.Outputs.Name`."""
    match node:
        case {"Ref": str(name)} if name in values:
            return values[name]
        case {"Fn::GetAtt": [str(name), str(attribute)]} if f"{name}.{attribute}" in values:
            return values[f"{name}.{attribute}"]
        case {"Fn::Sub": str(text)}:
            return _substitute(text, {}, values)
        case {"Fn::Sub": [str(text), dict(variables)]}:
            return _substitute(text, _replace(variables, values), values)
        case dict():
            return {name: _replace(member, values) for name, member in node.items()}
        case list():
            return [_replace(member, values) for member in node]
    return node


def _substitute(text: str, variables: Json, values: Mapping[str, Any]) -> Json:
    for name in set(re.findall(r"\$\{([\w.]+)\}", text)) & values.keys() - variables.keys():
        match values[name]:
            case str(value):
                replacement = value
            case {"Ref": str(value)}:
                replacement = f"${{{value}}}"
            case {"Fn::GetAtt": [str(logical_id), str(attribute)]}:
                replacement = f"${{{logical_id}.{attribute}}}"
            case value:
                variable = name.replace(".", "")  # a variable's name has no dots
                replacement, variables = f"${{{variable}}}", {**variables, variable: value}
        text = text.replace(f"${{{name}}}", replacement)
    return {"Fn::Sub": [text, variables] if variables else text}
