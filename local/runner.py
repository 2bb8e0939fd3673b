"""One running stack: the store, the template's resources in it, the functions, the bus, the streams and the API."""

import email
import email.policy
import itertools
import json
import re
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from types import MappingProxyType
from typing import Any

from local.archives import Replays, read_archive
from local.bus import Bus, UnsupportedTarget, read_rules, service_of
from local.calls import Calls
from local.console import Console
from local.delivery import AsynchronousInvocations, Clock, InvokeConfig, Scheduler, Undelivered
from local.faults import NO_FAULTS, Faults, FaultyCalls, InvalidFaults, read_faults, repeating
from local.gateway import Gateway, RequestLine
from local.http_targets import HttpTargets, read_destinations
from local.patterns import InvalidEventPattern
from local.pipes import pipe_sources, read_pipe
from local.queues import QueueSources, read_queue_mapping
from local.runtime import (
    FunctionConfig,
    HandlerImportError,
    InvocationResult,
    RequestTooLarge,
    Runtime,
    Throttled,
    check_request,
    function_name,
)
from local.schedules import Schedules, read_schedule
from local.sources import StreamSources, read_mapping
from local.store import ServiceError, Store
from local.template import Resource, Stack, TemplateError, deploy, not_run

LOG_STREAM = "local"
DELIVERED_TO = ("events", "lambda", "logs", "sns", "sqs")


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
        time_scale: how many times as fast every wait and time-out passes as in AWS.
        state: a folder for logs and the stack's description.
        console: where the readable lines go.
        faults: the file that says what fails on purpose, or None.
        calls: the file that gets what the functions call, or None.
    """

    def __init__(
        self,
        template: Path,
        *,
        parameters: Mapping[str, str],
        stack_name: str,
        host: str,
        port: int,
        time_scale: float,
        state: Path,
        console: Console,
        faults: Path | None = None,
        calls: Path | None = None,
    ) -> None:
        self._template = template
        self._parameters = parameters
        self._stack_name = stack_name
        self._port = port
        self._state = state
        self._console = console
        self._fault_file = faults
        self._call_file = calls
        self._store = Store(host)
        self._scheduler = Scheduler(Clock(time_scale), console.failure)
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
        except (HandlerImportError, InvalidFaults) as error:
            self.stop()
            raise StartError(str(error)) from error
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Stop everything, in the order of the flow: no new requests first, the store last."""
        self._running.close()

    def _start(self) -> dict[str, Any]:
        self._store.start()
        self._running.callback(self._store.stop)
        self._queues = self._store.client("sqs")
        self._topics = self._store.client("sns")
        self._store.on_mail = _MailFolder(self._state / "mail").keep
        self._store.outside = self._scheduler.clock.outside
        stack = deploy(self._template, self._store, stack_name=self._stack_name, parameters=self._parameters)
        for line in (*not_run(stack), *_mappings_not_run(stack)):
            self._console.notice(f"not run here: {line}")
        self._names = {resource.physical_id: resource.logical_id for resource in stack.of_type("AWS::Lambda::Function")}
        self._faults = self._read_faults(stack)
        self._http = HttpTargets(
            read_destinations(
                {each.physical_id: each.properties for each in stack.of_type("AWS::Events::ApiDestination")},
                {each.physical_id: each.properties for each in stack.of_type("AWS::Events::Connection")},
            ),
            self._scheduler.clock,
        )
        self._running.callback(self._http.stop)
        self._scheduler.start()
        self._running.callback(self._scheduler.stop)
        self._start_functions(stack)
        self._start_bus(stack)
        self._start_streams(stack)
        self._start_queues(stack)
        self._start_schedules(stack)
        urls = [self._start_api(api) for api in stack.of_type("AWS::ApiGatewayV2::Api")]
        return {
            "apiUrl": urls[0] if urls else None,
            "awsEndpoint": self._store.endpoint,
            "region": self._store.region,
            "outputs": stack.outputs,
            "functions": {logical: physical for physical, logical in self._names.items()},
        }

    def _read_faults(self, stack: Stack) -> Faults:
        if self._fault_file is None:
            return NO_FAULTS
        rules = [rule.properties.get("Name") for rule in stack.of_type("AWS::Events::Rule")]
        queues = stack.of_type("AWS::SQS::Queue")
        names = {
            "function": self._names,
            "rule": {name: name for name in rules if name},
            "queue": {queue.physical_id.rpartition("/")[2]: queue.logical_id for queue in queues},
            "stream": {table.physical_id: table.logical_id for table in stack.of_type("AWS::DynamoDB::Table")},
        }
        log = self._state / "faults.jsonl"
        faults = read_faults(self._fault_file, names, log)
        self._console.notice(f"faults of {self._fault_file} strike until it is removed; each is a line in {log}")
        return faults

    def _start_functions(self, stack: Stack) -> None:
        layers = {layer.physical_id: layer.local_path for layer in stack.of_type("AWS::Lambda::LayerVersion")}
        functions = [self._function(resource, layers) for resource in stack.of_type("AWS::Lambda::Function")]
        self._functions = {function.name: function for function in functions}
        logs = self._running.enter_context(_FunctionLogs(self._state / "logs", self._names))
        self._runtime = Runtime(
            functions, environment=self._store.function_environment(), on_log=logs.write, faults=self._faults
        )
        self._asynchronous = AsynchronousInvocations(
            self._scheduler,
            configs={
                config.properties["FunctionName"]: InvokeConfig.of(config.properties)
                for config in stack.of_type("AWS::Lambda::EventInvokeConfig")
            },
            invoke=self._runtime.invoke_async,
            send=self._send,
            on_result=self._show,
            on_failure=self._show_failure,
        )
        self._store.on_invoke = self._on_invoke
        self._store.on_concurrency = self._on_concurrency
        self._runtime.start()
        self._running.callback(self._runtime.stop)
        if self._faults is not NO_FAULTS:  # not before: what fails while a function is imported ends the start
            calls = FaultyCalls(
                self._faults, self._runtime.caller, self._scheduler.clock.outside, self._store.stale_reads
            )
            self._store.keeps_previous_images = True
            self._store.on_call = calls.answer
        if self._call_file:
            names = {resource.physical_id: resource.logical_id for resource in stack.resources.values()}
            self._store.on_call = Calls(self._call_file, names).noting(self._runtime.caller, self._store.on_call)

    def _function(self, resource: Resource, layers: Mapping[str, Path | None]) -> FunctionConfig:
        properties = resource.properties
        if resource.local_path is None:
            raise TemplateError(f"{resource.logical_id}: CodeUri is not a folder on this machine")
        reserved = properties.get("ReservedConcurrentExecutions")
        return FunctionConfig(
            name=resource.physical_id,
            arn=f"arn:aws:lambda:{self._store.region}:{self._store.account_id}:function:{resource.physical_id}",
            handler=properties["Handler"],
            timeout=self._scheduler.clock.outside(float(properties.get("Timeout", 3))),
            memory=int(properties.get("MemorySize", 128)),
            code=resource.local_path,
            layers=tuple(path for arn in properties.get("Layers", []) if (path := layers.get(arn)) is not None),
            environment=properties.get("Environment", {}).get("Variables", {}),
            reserved_concurrency=None if reserved is None else int(reserved),
        )

    def _start_bus(self, stack: Stack) -> None:
        arn = f"arn:aws:events:{self._store.region}:{self._store.account_id}:archive/"
        archives = [
            read_archive(arn + archive.physical_id, archive.properties)
            for archive in stack.of_type("AWS::Events::Archive")
        ]
        bus = Bus(
            names=[bus.properties["Name"] for bus in stack.of_type("AWS::Events::EventBus")],
            rules=read_rules(
                ({"Name": rule.physical_id} | rule.properties for rule in stack.of_type("AWS::Events::Rule")),
                DELIVERED_TO,
            ),
            scheduler=self._scheduler,
            hand_over=self._hand_over,
            send=self._send,
            on_event=self._console.event,
            on_failure=self._console.failure,
            region=self._store.region,
            account_id=self._store.account_id,
            archives=archives,
            run_http=self._http.run,
            faults=self._faults,
        )
        self._store.on_put_events = bus.put_events
        self._store.on_replay = Replays(archives, bus.replay).answer
        bus.start()
        self._running.callback(bus.stop)

    def _start_streams(self, stack: Stack) -> None:
        sources = StreamSources(
            [read_mapping(properties) for properties in _mappings(stack, "dynamodb")],
            clock=self._scheduler.clock,
            invoke=repeating(self._faults, "stream", self._invoke),
            send=self._send,
            on_failure=self._show_failure,
        )
        arn = f"arn:aws:pipes:{self._store.region}:{self._store.account_id}:pipe/"
        pipes = pipe_sources(
            [
                read_pipe(arn + pipe.physical_id, pipe.properties)
                for pipe in stack.of_type("AWS::Pipes::Pipe")
                if pipe.properties.get("DesiredState") != "STOPPED"
            ],
            clock=self._scheduler.clock,
            hand_over=self._hand_over,
            send=self._send,
            on_failure=lambda pipe, text: self._console.failure(f"{pipe}: {text}"),
        )

        def on_record(stream: str, record: dict[str, Any]) -> None:
            sources.on_record(stream, record)
            pipes.on_record(stream, record)

        self._store.on_stream_record = on_record
        for each in (sources, pipes):
            each.start()
            self._running.callback(each.stop)

    def _start_schedules(self, stack: Stack) -> None:
        arn = f"arn:aws:scheduler:{self._store.region}:{self._store.account_id}:schedule/default/"
        Schedules(
            [
                read_schedule(arn + schedule.physical_id, schedule.properties)
                for schedule in stack.of_type("AWS::Scheduler::Schedule")
                if schedule.properties.get("State") != "DISABLED"
            ],
            scheduler=self._scheduler,
            hand_over=self._hand_over,
            send=self._send,
            on_failure=self._console.failure,
        ).start()

    def _start_queues(self, stack: Stack) -> None:
        sources = QueueSources(
            [read_queue_mapping(properties) for properties in _mappings(stack, "sqs")],
            store=self._store,
            clock=self._scheduler.clock,
            invoke=repeating(self._faults, "queue", self._invoke),
            on_failure=self._show_failure,
        )
        self._store.on_message = sources.on_message
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
            check_request(payload, kind)
            if kind == "RequestResponse":
                return self._invoke(function, payload)
        except RequestTooLarge as error:
            # Lambda's own code; the API reference says RequestTooLargeException
            raise ServiceError("RequestEntityTooLargeException", str(error), 413) from error
        except Throttled as error:
            raise ServiceError("TooManyRequestsException", str(error), 429) from error
        self._asynchronous.accept(self._functions[function], payload)
        return InvocationResult(b"", None, 0.0)

    def _on_concurrency(self, function: str, reserved: int | None) -> None:
        """Lambda's PutFunctionConcurrency and DeleteFunctionConcurrency."""
        self._functions[function] = self._runtime.reserve(function, reserved)

    def _hand_over(self, arn: str, payload: str, trace_header: str | None) -> None:
        """Give a payload to a rule's target.

        Raises:
            Undelivered: the target is gone, or is a function and the payload is not JSON.
        """
        gone = (
            KeyError,
            self._queues.exceptions.QueueDoesNotExist,
            self._topics.exceptions.NotFoundException,
        )
        try:
            match service_of(arn):
                case "lambda":
                    json.loads(payload)
                    function = self._functions[function_name(arn)]
                    self._asynchronous.accept(function, payload.encode(), trace_header)
                case "logs":
                    group = arn.partition(":log-group:")[2].removesuffix(":*")
                    self._store.log(group, LOG_STREAM, payload)
                case "events":
                    self._http.call(arn, payload)
                case "sns":
                    self._topics.publish(TopicArn=arn, Message=payload)
                case _:
                    self._send(arn, payload)
        except json.JSONDecodeError as error:
            raise Undelivered("INVALID_JSON", f"a function takes JSON only: {error}", retriable=False) from error
        except gone as error:
            raise Undelivered("NO_RESOURCE", f"there is no {arn}", retriable=False) from error

    def _send(self, arn: str, body: str, attributes: Mapping[str, str] = MappingProxyType({})) -> None:
        """Put a message into a queue, by its ARN."""
        url = self._queues.get_queue_url(QueueName=arn.rpartition(":")[2])["QueueUrl"]
        typed = {name: {"DataType": "String", "StringValue": text} for name, text in attributes.items()}
        self._queues.send_message(QueueUrl=url, MessageBody=body, MessageAttributes=typed)

    def _show(self, function: str, result: InvocationResult) -> None:
        name = self._name(function)
        if result.function_error:
            self._console.failure(f"{name}: {_first_line(result.payload)} (log: {self._state / 'logs' / name}.log)")
        else:
            self._console.invocation(name, result.duration)

    def _show_failure(self, function: str, text: str) -> None:
        self._console.failure(f"{self._name(function)}: {text}")

    def _name(self, function: str) -> str:
        """The logical id of a function, from its name or ARN."""
        return self._names[function_name(function)]

    def _on_request(self, request: RequestLine) -> None:
        self._console.request(request.method, request.path, request.status, request.duration)


def _mappings(stack: Stack, service: str) -> list[dict[str, Any]]:
    """The properties of the enabled mappings of a service's sources."""
    return [
        mapping.properties
        for mapping in stack.of_type("AWS::Lambda::EventSourceMapping")
        if _source(mapping) == service and str(mapping.properties.get("Enabled", True)).lower() == "true"
    ]


def _mappings_not_run(stack: Stack) -> list[str]:
    return [
        f"{mapping.logical_id} ({mapping.type} of {mapping.properties['EventSourceArn']})"
        for mapping in stack.of_type("AWS::Lambda::EventSourceMapping")
        if _source(mapping) not in ("dynamodb", "sqs")
    ]


def _source(mapping: Resource) -> str:
    """The service of a mapping's source; FIFO queues count as one of their own."""
    arn: str = mapping.properties["EventSourceArn"]
    return "fifo" if arn.endswith(".fifo") else service_of(arn)


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


class _MailFolder:
    """A file per mail of this run, which a mail program opens."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._numbers = itertools.count(1)
        folder.mkdir(parents=True, exist_ok=True)
        for mail in folder.glob("*.eml"):
            mail.unlink()

    def keep(self, message: bytes) -> None:
        """Write a mail's file. It appears whole."""
        subject = email.message_from_bytes(message, policy=email.policy.default)["Subject"]
        slug = re.sub(r"[^a-z0-9]+", "-", subject.lower()).strip("-")[:80]
        draft = self._folder / f"{next(self._numbers):05}-{slug}.part"
        draft.write_bytes(message)
        draft.rename(draft.with_suffix(".eml"))
