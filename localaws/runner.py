"""Runs one stack: the store with the template's resources, the functions, event buses, streams, queues and APIs."""

import email
import email.policy
import itertools
import json
import re
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from types import MappingProxyType
from typing import Any

from localaws.api_destinations import HttpTargets, read_destinations
from localaws.archives import Replays, read_archive
from localaws.async_invocations import AsynchronousInvocations, InvokeConfig
from localaws.aws import ServiceError
from localaws.cloudformation import Resource, Stack, TemplateError, deploy, not_run
from localaws.console import Console
from localaws.delivery import Clock, Scheduler, Undelivered
from localaws.event_pattern import InvalidEventPattern
from localaws.eventbridge import Bus, UnsupportedTarget, read_rules, service_of
from localaws.faults import NO_FAULTS, Faults, FaultyCalls, InvalidFaults, read_faults, repeating
from localaws.http_api import Gateway
from localaws.iam_recorder import Calls
from localaws.lambda_runtime import (
    FunctionConfig,
    HandlerImportError,
    InvocationResult,
    RequestTooLarge,
    Runtime,
    Throttled,
    check_request,
    function_name,
)
from localaws.pipes import pipe_sources, read_pipe
from localaws.reload import Reload
from localaws.schedules import Schedules, read_schedule
from localaws.sqs_poller import QueueSources, read_queue_mapping
from localaws.store import Store
from localaws.stream_poller import StreamSources, read_mapping

LOG_STREAM = "local"
DELIVERED_TO = ("events", "lambda", "logs", "sns", "sqs")


class StartError(Exception):
    """The stack cannot start. The message gives the reason in one line."""


class Runner:
    """Runs one template.

    Args:
        template: path of the SAM template.
        parameters: values of the template's parameters that differ from the defaults.
        stack_name: name of the stack.
        host: address that the store listens on. Functions in another network namespace need one that they can reach.
        port: port of the API; 0 selects a free port.
        time_scale: factor by which waits and timeouts are shorter than in AWS.
        state: folder for logs and e-mails.
        console: prints the readable lines.
        faults: fault file, or None.
        calls: file to record the functions' IAM actions in, or None.
        verbose: whether to print each property of the template that is not honoured.
        debug: logical ID of the function to run under debugpy and the port for debugpy, or None.
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
        verbose: bool = False,
        debug: tuple[str, int] | None = None,
    ) -> None:
        self._verbose = verbose
        self._debug = debug
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
        self._stop_functions: Callable[[], None] = lambda: None

    def start(self) -> dict[str, Any]:
        """Start the stack.

        Returns:
            The stack's description: apiUrl, awsEndpoint, region, outputs, functions and tables (physical names by
            logical ID).

        Raises:
            StartError: the stack cannot start. Everything is stopped again.
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
        """Stop the stack: the functions first, because other parts wait for running invocations, and the store last."""
        self._stop_functions()
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
        if self._debug and self._debug[0] not in self._names.values():
            known = ", ".join(sorted(self._names.values()))
            raise StartError(f"--debug {self._debug[0]}: the template has no such function; it has {known}")
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
        self._start_reload()
        return {
            "apiUrl": urls[0] if urls else None,
            "awsEndpoint": self._store.endpoint,
            "region": self._store.region,
            "outputs": stack.outputs,
            "functions": {logical: physical for physical, logical in self._names.items()},
            "tables": {table.logical_id: table.physical_id for table in stack.of_type("AWS::DynamoDB::Table")},
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
        self._console.notice(f"faults of {self._fault_file} are injected until the file is deleted; log: {log}")
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
        self._stop_functions = self._runtime.stop
        if self._debug:
            self._console.notice(f"debugger: {self._debug[0]} waits for debugpy clients on 127.0.0.1:{self._debug[1]}")
        if self._faults is not NO_FAULTS:  # after the start, because an error while a function is imported stops it
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
            debug_port=self._debug[1] if self._debug and self._debug[0] == resource.logical_id else None,
        )

    def _start_reload(self) -> None:
        reload = Reload(
            {each.name: (each.code, *each.layers) for each in self._functions.values()},
            self._template,
            replace=self._runtime.replace,
            name=self._name,
            on_notice=self._console.notice,
            on_failure=self._console.failure,
        )
        reload.start()
        self._running.callback(reload.stop)

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
                on_request=self._console.request,
                port=self._port,
            )
        except OSError as error:
            raise StartError(
                f"port {self._port} is in use; choose another one with PORT=… ({error.strerror})"
            ) from error
        except ValueError as error:
            raise TemplateError(f"{api.logical_id}: {error}") from error
        gateway.start()
        self._running.callback(gateway.stop)
        return gateway.url

    def _invoke(self, function: str, payload: bytes, trace_id: str | None = None) -> InvocationResult:
        result = self._runtime.invoke(function, payload, trace_id)
        self._show(function, payload, result)
        return result

    def _on_invoke(self, function: str, payload: bytes, kind: str) -> InvocationResult:
        """Answers Lambda's Invoke API."""
        try:
            check_request(payload, kind)
            if kind == "RequestResponse":
                return self._invoke(function, payload)
        except RequestTooLarge as error:
            # The code that Lambda sends; the API reference has RequestTooLargeException
            raise ServiceError("RequestEntityTooLargeException", str(error), 413) from error
        except Throttled as error:
            raise ServiceError("TooManyRequestsException", str(error), 429) from error
        self._asynchronous.accept(self._functions[function], payload)
        return InvocationResult(b"", None, 0.0)

    def _on_concurrency(self, function: str, reserved: int | None) -> None:
        """Answers Lambda's PutFunctionConcurrency and DeleteFunctionConcurrency."""
        self._functions[function] = self._runtime.reserve(function, reserved)

    def _hand_over(self, arn: str, payload: str, trace_header: str | None) -> None:
        """Deliver a payload to a target.

        Raises:
            Undelivered: the target does not exist, or it is a function and the payload is not valid JSON.
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
            raise Undelivered("INVALID_JSON", f"a function accepts JSON only: {error}", retriable=False) from error
        except gone as error:
            raise Undelivered("NO_RESOURCE", f"{arn} does not exist", retriable=False) from error

    def _send(self, arn: str, body: str, attributes: Mapping[str, str] = MappingProxyType({})) -> None:
        """Send a message to a queue, given by its ARN."""
        url = self._queues.get_queue_url(QueueName=arn.rpartition(":")[2])["QueueUrl"]
        typed = {name: {"DataType": "String", "StringValue": text} for name, text in attributes.items()}
        self._queues.send_message(QueueUrl=url, MessageBody=body, MessageAttributes=typed)

    def _show(self, function: str, payload: bytes, result: InvocationResult) -> None:
        name, payload = self._name(function), payload + result.payload
        if result.function_error:
            log = self._state / "logs" / f"{name}.log"
            self._console.failure(f"{name}: {_first_line(result.payload)} (log: {log})", payload)
        else:
            self._console.invocation(name, result.duration, payload)

    def _show_failure(self, function: str, text: str) -> None:
        self._console.failure(f"{self._name(function)}: {text}")

    def _name(self, function: str) -> str:
        """Returns the logical ID of a function, given by its name or ARN."""
        return self._names[function_name(function)]


def _mappings(stack: Stack, service: str) -> list[dict[str, Any]]:
    """Returns the properties of the enabled event source mappings of a service."""
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
    """Returns the service of a mapping's source, or "fifo" for FIFO queues."""
    arn: str = mapping.properties["EventSourceArn"]
    return "fifo" if arn.endswith(".fifo") else service_of(arn)


def _first_line(payload: bytes) -> str:
    error = json.loads(payload)
    return f"{error.get('errorType', 'Error')}: {error.get('errorMessage', '')}".splitlines()[0]


class _FunctionLogs:
    """One log file per function, with its output."""

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
    """One .eml file per e-mail of this run, which a mail program can open."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._numbers = itertools.count(1)
        folder.mkdir(parents=True, exist_ok=True)
        for mail in folder.glob("*.eml"):
            mail.unlink()

    def keep(self, message: bytes) -> None:
        """Write the file of an e-mail. It appears complete, because it is renamed at the end."""
        subject = email.message_from_bytes(message, policy=email.policy.default)["Subject"]
        slug = re.sub(r"[^a-z0-9]+", "-", subject.lower()).strip("-")[:80]
        draft = self._folder / f"{next(self._numbers):05}-{slug}.part"
        draft.write_bytes(message)
        draft.rename(draft.with_suffix(".eml"))
