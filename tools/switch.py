"""Switches a function off and on: with a reserved concurrency of 0, Lambda does not run it."""

import sys

from tools.arguments import Parser
from tools.errors import CommandError, one_line_errors
from tools.stack import Stack, find

ON = """\
Redrive the events that it missed, if any (docs/operations.md#failed-events):
  curl -X POST {api}/admin/failed-events/redrive \\
    -H "Authorization: Bearer $({token})" \\
    -H 'Content-Type: application/json' -d '{{"consumer": "{consumer}"}}'"""


def functions_of(stack: Stack, name: str | None) -> dict[str, str]:
    """Returns the names of a stack's functions, by logical ID.

    Args:
        stack: the stack.
        name: the name of a deployed stack; None for the local stack.
    """
    if name is None:
        return stack.functions
    pages = stack.client("cloudformation").get_paginator("list_stack_resources").paginate(StackName=name)
    return {
        resource["LogicalResourceId"]: resource["PhysicalResourceId"]
        for page in pages
        for resource in page["StackResourceSummaries"]
        if resource["ResourceType"] == "AWS::Lambda::Function"
    }


@one_line_errors
def main(arguments: list[str] | None = None) -> int:
    """`python -m tools.switch (on | off) --function LOGICAL-ID [--stack NAME]`."""
    parser = Parser(prog="python -m tools.switch", description=__doc__)
    parser.add_argument("state", choices=("on", "off"))
    parser.add_argument("--function", required=True, help="logical ID, such as InventoryFunction")
    parser.add_stack()
    options = parser.parse_args(arguments)
    stack = find(options.stack)
    functions = functions_of(stack, options.stack)
    if options.function not in functions:
        known = ", ".join(sorted(functions)) or "none"
        raise CommandError(f"the stack has no function {options.function}; it has {known}")
    client, name = stack.client("lambda"), functions[options.function]
    if options.state == "off":
        client.put_function_concurrency(FunctionName=name, ReservedConcurrentExecutions=0)
        print(f"{options.function} is off: its reserved concurrency is 0")
        return 0
    client.delete_function_concurrency(FunctionName=name)
    variables = client.get_function_configuration(FunctionName=name)["Environment"]["Variables"]
    token = "make -s token AS=staff" + (f" STACK={options.stack}" if options.stack else "")
    print(f"{options.function} is on: it has no reserved concurrency")
    print(ON.format(api=stack.api_url, token=token, consumer=variables["POWERTOOLS_SERVICE_NAME"]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
