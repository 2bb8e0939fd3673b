"""One running stack: the store, the template's resources in it, the functions, the bus, the streams and the API."""

import json
from collections.abc import Mapping
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

from local.bus import Accepted, Bus, Target, UnsupportedTarget, read_rules
from local.console import Console
from local.gateway import Gateway, RequestLine
from local.patterns import InvalidEventPattern
from local.runtime import FunctionConfig, InvocationResult, Runtime, Throttled, UnknownFunction
from local.sources import StreamSources, read_mapping
from local.store import ServiceError, Store
from local.template import Resource, Stack, TemplateError, deploy, not_run

LOG_STREAM = "local"


class StartError(Exception):
    """The stack cannot start; the message says why, in one line."""


class Runner:
    """Runs one template.

    Args:
        template: the SAM template.
        parameters: its parameters' values, where they differ from the defaults.
        stack_name: the stack's name.
        host: where the store listens, which functions outside this machine's network namespace may have to reach.
        port: the API's port; 0 for a free one.
        state: a folder for logs and the stack's description.
        console: where the readable lines go.
    """

    def __init__(
        self,
        template: Path,
        *,
        parameters: Mapping[str, str],
        stack_name: str,
        host: str,
        port: int,
        state: Path,
        console: Console,
    ) -> None:
        self._template = template
        self._parameters = parameters
        self._stack_name = stack_name
        self._port = port
        self._state = state
        self._console = console
        self._store = Store(host)
        self._running = ExitStack()

    def start(self) -> dict[str, Any]:
        """Start everything.

        Returns:
            The stack's description: apiUrl, awsEndpoint, region, outputs, functions (physical names by logical id).

        Raises:
            StartError: nothing is left running then.
        """
        try:
            return self._start()
        except (TemplateError, InvalidEventPattern, UnsupportedTarget) as error:
            self.stop()
            raise StartError(f"{self._template}: {error}") from error
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Stop everything, in the order of the flow: no new requests first, the store last."""
        self._running.close()

    def _start(self) -> dict[str, Any]:
        self._store.start()
        self._running.callback(self._store.stop)
        stack = deploy(self._template, self._store, stack_name=self._stack_name, parameters=self._parameters)
        for line in not_run(stack):
            self._console.notice(f"not run here: {line}")
        self._names = {resource.physical_id: resource.logical_id for resource in stack.of_type("AWS::Lambda::Function")}
        self._runtime = self._start_functions(stack)
        self._start_bus(stack)
        self._start_streams(stack)
        urls = [self._start_api(api) for api in stack.of_type("AWS::ApiGatewayV2::Api")]
        return {
            "apiUrl": urls[0] if urls else None,
            "awsEndpoint": self._store.endpoint,
            "region": self._store.region,
            "outputs": stack.outputs,
            "functions": {logical: physical for physical, logical in self._names.items()},
        }

    def _start_functions(self, stack: Stack) -> Runtime:
        layers = {layer.physical_id: layer.local_path for layer in stack.of_type("AWS::Lambda::LayerVersion")}
        functions = [self._function(resource, layers) for resource in stack.of_type("AWS::Lambda::Function")]
        logs = self._running.enter_context(_FunctionLogs(self._state / "logs", self._names))
        runtime = Runtime(functions, environment=self._store.function_environment(), on_log=logs.write)
        self._store.on_invoke = self._on_invoke
        runtime.start()
        self._running.callback(runtime.stop)
        return runtime

    def _function(self, resource: Resource, layers: Mapping[str, Path | None]) -> FunctionConfig:
        properties = resource.properties
        if resource.local_path is None:
            raise TemplateError(f"{resource.logical_id}: CodeUri is not a folder on this machine")
        reserved = properties.get("ReservedConcurrentExecutions")
        return FunctionConfig(
            name=resource.physical_id,
            arn=f"arn:aws:lambda:{self._store.region}:{self._store.account_id}:function:{resource.physical_id}",
            handler=properties["Handler"],
            timeout=float(properties.get("Timeout", 3)),
            memory=int(properties.get("MemorySize", 128)),
            code=resource.local_path,
            layers=tuple(path for arn in properties.get("Layers", []) if (path := layers.get(arn)) is not None),
            environment=properties.get("Environment", {}).get("Variables", {}),
            reserved_concurrency=None if reserved is None else int(reserved),
        )

    def _start_bus(self, stack: Stack) -> None:
        bus = Bus(
            names=[bus.properties["Name"] for bus in stack.of_type("AWS::Events::EventBus")],
            rules=read_rules((rule.properties for rule in stack.of_type("AWS::Events::Rule")), ("lambda", "logs")),
            deliver={"lambda": self._to_functions, "logs": self._to_log_groups},
            on_event=self._console.event,
            on_failure=self._console.failure,
            region=self._store.region,
            account_id=self._store.account_id,
        )
        self._store.on_put_events = bus.put_events
        bus.start()
        self._running.callback(bus.stop)

    def _start_streams(self, stack: Stack) -> None:
        mappings = [
            read_mapping(mapping.properties)
            for mapping in stack.of_type("AWS::Lambda::EventSourceMapping")
            if ":dynamodb:" in mapping.properties["EventSourceArn"]
        ]
        sources = StreamSources(
            mappings,
            invoke=self._invoke,
            on_failure=lambda function, text: self._console.failure(f"{self._name(function)}: {text}"),
        )
        self._store.on_stream_record = sources.on_record
        sources.start()
        self._running.callback(sources.stop)

    def _start_api(self, api: Resource) -> str:
        try:
            gateway = Gateway(
                api.properties["Body"],
                invoke=self._invoke,
                keys=lambda _issuer: self._store.signing_keys(),
                account_id=self._store.account_id,
                api_id=api.physical_id,
                on_request=self._on_request,
                port=self._port,
            )
        except OSError as error:
            raise StartError(
                f"port {self._port} is taken; choose another one with PORT=… ({error.strerror})"
            ) from error
        except ValueError as error:
            raise TemplateError(f"{api.logical_id}: {error}") from error
        gateway.start()
        self._running.callback(gateway.stop)
        return gateway.url

    def _invoke(self, function: str, payload: bytes, trace_id: str | None = None) -> InvocationResult:
        result = self._runtime.invoke(function, payload, trace_id)
        self._show(function, result)
        return result

    def _on_invoke(self, function: str, payload: bytes, kind: str) -> InvocationResult:
        """Lambda's Invoke, from outside."""
        try:
            if kind == "RequestResponse":
                return self._invoke(function, payload)
            self._runtime.invoke_async(function, payload, partial(self._show, function))
        except Throttled as error:
            raise ServiceError("TooManyRequestsException", str(error), 429) from error
        except UnknownFunction as error:
            raise ServiceError("ResourceNotFoundException", f"Function not found: {error}", 404) from error
        return InvocationResult(b"", None, 0.0)

    def _to_functions(self, deliveries: list[tuple[Target, Accepted]]) -> None:
        for target, accepted in deliveries:
            payload = json.dumps(accepted.event).encode()
            self._runtime.invoke_async(target.arn, payload, partial(self._show, target.arn), accepted.trace_header)

    def _to_log_groups(self, deliveries: list[tuple[Target, Accepted]]) -> None:
        for target, accepted in deliveries:
            group = target.arn.partition(":log-group:")[2].removesuffix(":*")
            self._store.log(group, LOG_STREAM, json.dumps(accepted.event))

    def _show(self, function: str, result: InvocationResult | Throttled) -> None:
        name = self._name(function)
        if isinstance(result, Throttled):
            self._console.failure(f"{name}: throttled, the event is lost")
        elif result.function_error:
            self._console.failure(f"{name}: {_first_line(result.payload)} (log: {self._state / 'logs' / name}.log)")
        else:
            self._console.invocation(name, result.duration)

    def _name(self, function: str) -> str:
        """The logical id of a function, from its name or ARN."""
        return self._names[function.split(":")[6] if function.startswith("arn:") else function]

    def _on_request(self, request: RequestLine) -> None:
        self._console.request(request.method, request.path, request.status, request.duration)


def _first_line(payload: bytes) -> str:
    error = json.loads(payload)
    return f"{error.get('errorType', 'Error')}: {error.get('errorMessage', '')}".splitlines()[0]


class _FunctionLogs:
    """A file per function with what it printed."""

    def __init__(self, folder: Path, names: Mapping[str, str]) -> None:
        self._folder = folder
        self._names = names
        self._open = ExitStack()

    def __enter__(self) -> "_FunctionLogs":
        self._folder.mkdir(parents=True, exist_ok=True)
        self._files = {
            physical: self._open.enter_context((self._folder / f"{logical}.log").open("w", buffering=1))
            for physical, logical in self._names.items()
        }
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    def write(self, function: str, line: str) -> None:
        self._files[function].write(line.rstrip("\n") + "\n")
