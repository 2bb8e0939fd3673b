"""Runs one stack: the store with the template's resources, the functions, event buses, streams, queues and APIs."""

import email.policy
import itertools
import json
import re
import sys
from collections import ChainMap
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from email.parser import BytesHeaderParser
from pathlib import Path
from typing import Any, TypeVar

from localaws.api_destinations import HttpTargets, read_destinations
from localaws.archives import Replays, read_archive
from localaws.async_invocations import AsynchronousInvocations, InvokeConfig
from localaws.cloudformation import Stack, TemplateError, as_text, deploy
from localaws.console import Console
from localaws.delivery import Clock, Scheduler
from localaws.event_pattern import InvalidEventPattern
from localaws.eventbridge import Bus, Rule, read_rules
from localaws.faults import NO_FAULTS, Faults, FaultyCalls, InvalidFaults, read_faults, repeating
from localaws.http_api import Gateway, read_stages
from localaws.iam_recorder import Calls
from localaws.lambda_api import InvokeApi
from localaws.lambda_runtime import (
    FunctionConfig,
    InvocationResult,
    Runtime,
    function_name,
)
from localaws.not_honoured import Report
from localaws.pipes import pipe_poller, read_pipe
from localaws.reload import Reload
from localaws.resource_models import Resource
from localaws.schedules import Schedules, read_schedule
from localaws.sqs_poller import QueuePoller, read_queue_mapping
from localaws.store import Store
from localaws.stream_poller import StreamPoller, read_mapping
from localaws.targets import DELIVERED_TO, Targets, UnsupportedTarget, service_of

PYTHON = f"python{sys.version_info.major}.{sys.version_info.minor}"
"""The runtime of all functions here."""

T = TypeVar("T")
R = TypeVar("R")


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
        verbose: print each resource and property of the template that is not honoured, instead of a summary.
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
        self._verbose = verbose
        self._report = Report()
        self._store = Store(host)
        self._scheduler = Scheduler(Clock(time_scale), console.failure)
        self._running = ExitStack()
        self._stop_functions: Callable[[], None] = lambda: None

    def start(self) -> dict[str, Any]:
        """Start the stack.

        Returns:
            The stack's description: apiUrl, awsEndpoint, region, outputs, functions and tables (physical names by
            logical ID), failed (the reasons why functions cannot run, by logical ID).

        Raises:
            StartError: the stack cannot start. Everything is stopped again.
        """
        try:
            return self._start()
        except (TemplateError, InvalidEventPattern, UnsupportedTarget) as error:
            self.stop()
            raise StartError(f"{self._template}: {str(error).removeprefix(f'{self._template.name}: ')}") from error
        except InvalidFaults as error:
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
        self._store.on_mail = _MailFolder(self._state / "mail").keep
        self._store.real_seconds = self._scheduler.clock.real_seconds
        stack = deploy(
            self._template,
            self._store,
            stack_name=self._stack_name,
            parameters=self._parameters,
            report=self._report,
        )
        self._names = {resource.physical_id: resource.logical_id for resource in stack.of_type("AWS::Lambda::Function")}
        if self._debug and self._debug[0] not in self._names.values():
            known = ", ".join(sorted(self._names.values()))
            raise StartError(f"--debug {self._debug[0]}: the template has no such function; it has {known}")
        for mapping in stack.of_type("AWS::Lambda::EventSourceMapping"):
            if _source(mapping) not in ("dynamodb", "sqs"):
                source = mapping.properties.get("EventSourceArn", "this source")
                self._report(mapping.logical_id, f"events of {source} are not read here")
        self._faults = self._read_faults(stack)
        connections = {each.physical_id: each.properties for each in stack.of_type("AWS::Events::Connection")}
        destinations = self._read(
            _by_id(stack, "AWS::Events::ApiDestination"),
            lambda each: read_destinations({each.physical_id: each.properties}, connections),
        )
        http = HttpTargets(dict(ChainMap(*destinations)), self._scheduler.clock)
        self._running.callback(http.stop)
        self._targets = Targets(self._store, http)
        self._scheduler.start()
        self._running.callback(self._scheduler.stop)
        self._start_functions(stack)
        self._start_bus(stack)
        self._start_streams(stack)
        self._start_queues(stack)
        self._start_schedules(stack)
        urls = self._start_apis(stack)
        failed = self._wait_for_functions(stack)
        for line in self._report.lines(verbose=self._verbose):
            self._console.notice(line)
        self._start_reload()
        return {
            "apiUrl": urls[0] if urls else None,
            "awsEndpoint": self._store.endpoint,
            "region": self._store.region,
            "outputs": stack.outputs,
            "functions": {logical: physical for physical, logical in self._names.items()},
            "failed": failed,
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
        logs = self._running.enter_context(_FunctionLogs(self._state / "logs", self._names))
        self._runtime = Runtime(
            functions, environment=self._store.function_environment(), on_log=logs.write, faults=self._faults
        )
        asynchronous = AsynchronousInvocations(
            self._scheduler,
            self._runtime,
            configs={
                config.properties["FunctionName"]: InvokeConfig.of(config.properties)
                for config in stack.of_type("AWS::Lambda::EventInvokeConfig")
            },
            targets=self._targets,
            on_result=self._show,
            on_failure=self._show_failure,
        )
        self._targets.invoke = asynchronous.accept
        qualified = {
            resource.physical_id
            for resource in (*stack.of_type("AWS::Lambda::Alias"), *stack.of_type("AWS::Lambda::Version"))
        }
        self._store.on_invoke = InvokeApi(self._runtime, asynchronous, qualified, self._show).answer
        self._store.on_concurrency = self._runtime.reserve
        self._runtime.start()
        self._stop_functions = self._runtime.stop
        if self._debug:
            self._console.notice(f"debugger: {self._debug[0]} waits for debugpy clients on 127.0.0.1:{self._debug[1]}")

    def _wait_for_functions(self, stack: Stack) -> dict[str, str]:
        """Returns the reasons why functions cannot run, by logical ID, after all others have started."""
        imports = self._runtime.failed_imports()
        for name, reason in imports.items():
            self._report(self._name(name), reason.removeprefix(f"{name}: "))
        configs = [self._runtime.config(name) for name in self._names]
        not_run = {config.name: config.not_run for config in configs if config.not_run is not None}
        if self._faults is not NO_FAULTS:  # after the start, because an error while a function is imported stops it
            calls = FaultyCalls(
                self._faults, self._runtime.caller, self._scheduler.clock.real_seconds, self._store.stale_reads
            )
            self._store.keeps_previous_images = True
            self._store.on_call = calls.answer
        if self._call_file:
            names = {resource.physical_id: resource.logical_id for resource in stack.resources.values()}
            self._store.on_call = Calls(self._call_file, names).noting(self._runtime.caller, self._store.on_call)
        return {self._name(name): reason for name, reason in (not_run | imports).items()}

    def _function(self, resource: Resource, layers: Mapping[str, Path | None]) -> FunctionConfig:
        properties, name = resource.properties, resource.logical_id
        code, runtime = self._code(resource), str(properties.get("Runtime", ""))
        not_run = None if code else "its code is not on this machine"
        if properties.get("PackageType") == "Image":
            not_run = "container images are not run here"
        elif not runtime.startswith("python"):
            not_run = f"runtime {runtime} is not run here"
        if not_run or runtime != PYTHON:
            self._report(name, not_run or f"runs on {PYTHON} instead of {runtime}")
        for arn in properties.get("Layers", []):
            if layers.get(arn) is None and not not_run:
                self._report(f"{name}.Layers", f"{arn} is not on this machine")
        variables = properties.get("Environment", {}).get("Variables", {})
        reserved = properties.get("ReservedConcurrentExecutions")
        return FunctionConfig(
            name=resource.physical_id,
            arn=f"arn:aws:lambda:{self._store.region}:{self._store.account_id}:function:{resource.physical_id}",
            handler=properties.get("Handler", ""),
            timeout=float(properties.get("Timeout", 3)),
            time_scale=self._scheduler.clock.scale,
            memory=int(properties.get("MemorySize", 128)),
            code=code or self._state,
            layers=tuple(path for arn in properties.get("Layers", []) if (path := layers.get(arn)) is not None),
            environment={key: as_text(value) for key, value in variables.items()},
            reserved_concurrency=None if reserved is None else int(reserved),
            dead_letters=properties.get("DeadLetterConfig", {}).get("TargetArn"),
            not_run=not_run,
            debug_port=self._debug[1] if self._debug and self._debug[0] == resource.logical_id else None,
        )

    def _code(self, resource: Resource) -> Path | None:
        """Returns the folder of a function's code. Code in the template becomes a file, as in Lambda."""
        text = resource.properties.get("Code", {}).get("ZipFile")
        if not isinstance(text, str):
            return resource.local_path
        folder = self._state.resolve() / "code" / resource.logical_id
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "index.py").write_text(text)
        return folder

    def _read(self, things: Mapping[str, T], read: Callable[[T], R]) -> list[R]:
        """Returns what was read of each thing. Those that cannot run here are reported by name."""
        found = []
        for name, thing in things.items():
            try:
                found.append(read(thing))
            except InvalidEventPattern as error:
                raise TemplateError(f"{name}: {error}") from error
            except (UnsupportedTarget, AttributeError, LookupError, TypeError, ValueError) as error:
                kind = "" if isinstance(error, UnsupportedTarget) else f"{type(error).__name__}: "
                self._report(name, f"not run here: {kind}{error}")
        return found

    def _rule(self, rule: Resource) -> list[Rule]:
        """Returns a rule, without its targets that cannot run here."""

        def read(*targets: Any) -> list[Rule]:
            return read_rules([{"Name": rule.physical_id, **rule.properties, "Targets": targets}], DELIVERED_TO)

        def checked(target: Any) -> Any:
            read(target)
            return target

        targets = {f"{rule.logical_id}.{each['Id']}": each for each in rule.properties.get("Targets", [])}
        read()  # the errors of the rule itself
        return read(*self._read(targets, checked))

    def _start_reload(self) -> None:
        configs = [self._runtime.config(name) for name in self._names]
        reload = Reload(
            {each.name: (each.code, *each.layers) for each in configs if each.not_run is None},
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
        archives = self._read(
            _by_id(stack, "AWS::Events::Archive"), lambda each: read_archive(arn + each.physical_id, each.properties)
        )
        buses = ["default", *(bus.properties["Name"] for bus in stack.of_type("AWS::Events::EventBus"))]
        bus = Bus(
            names=buses,
            rules=list(itertools.chain.from_iterable(self._read(_by_id(stack, "AWS::Events::Rule"), self._rule))),
            scheduler=self._scheduler,
            targets=self._targets,
            on_event=self._console.event,
            on_failure=self._console.failure,
            archives=archives,
            faults=self._faults,
        )
        self._targets.put_events = self._store.on_put_events = bus.put_events
        self._store.on_replay = Replays(archives, buses, bus.replay).answer
        bus.start()
        self._running.callback(bus.stop)

    def _start_streams(self, stack: Stack) -> None:
        clock, targets = self._scheduler.clock, self._targets
        invoke = repeating(self._faults, "stream", self._invoke)
        mappings = self._read(_mappings(stack, "dynamodb"), lambda each: read_mapping(each.properties))
        pollers = [StreamPoller(mapping, clock, invoke, targets, self._show_failure) for mapping in mappings]
        arn = f"arn:aws:pipes:{self._store.region}:{self._store.account_id}:pipe/"
        pipes = self._read(
            _by_id(stack, "AWS::Pipes::Pipe", ("DesiredState", "STOPPED")),
            lambda each: read_pipe(arn + each.physical_id, each.properties),
        )
        pollers += [pipe_poller(pipe, clock=clock, targets=targets, on_failure=self._show_failure) for pipe in pipes]

        def on_record(stream: str, record: dict[str, Any]) -> None:
            for poller in pollers:
                poller.on_record(stream, record)

        self._store.on_stream_record = on_record
        self._start_pollers(pollers)

    def _start_pollers(self, pollers: Sequence[StreamPoller | QueuePoller]) -> None:
        for poller in pollers:
            poller.start()
            self._running.callback(poller.stop)

    def _start_schedules(self, stack: Stack) -> None:
        arn = f"arn:aws:scheduler:{self._store.region}:{self._store.account_id}:schedule/default/"
        Schedules(
            self._read(
                _by_id(stack, "AWS::Scheduler::Schedule", ("State", "DISABLED")),
                lambda each: read_schedule(arn + each.physical_id, each.properties),
            ),
            scheduler=self._scheduler,
            targets=self._targets,
            on_failure=self._console.failure,
        ).start()

    def _start_queues(self, stack: Stack) -> None:
        invoke = repeating(self._faults, "queue", self._invoke)
        mappings = self._read(_mappings(stack, "sqs"), lambda each: read_queue_mapping(each.properties))
        pollers = [
            QueuePoller(mapping, self._store, self._scheduler.clock, invoke, self._show_failure) for mapping in mappings
        ]

        def on_message(queue: str) -> None:
            for poller in pollers:
                poller.on_message(queue)

        self._store.on_message = on_message
        self._start_pollers(pollers)

    def _start_apis(self, stack: Stack) -> list[str]:
        """Returns the addresses of the HTTP APIs. Only the first API listens on the port of the command line."""
        ports = itertools.chain([self._port], itertools.repeat(0))
        stages = [stage.properties for stage in stack.of_type("AWS::ApiGatewayV2::Stage")]
        gateways = self._read(_by_id(stack, "AWS::ApiGatewayV2::Api"), lambda api: self._gateway(api, stages, ports))
        for gateway in gateways:
            gateway.start()
            self._running.callback(gateway.stop)
        for gateway in gateways[1:]:
            self._console.notice(f"another API of the template is at {gateway.url}")
        return [gateway.url for gateway in gateways]

    def _gateway(self, api: Resource, stages: Sequence[Mapping[str, Any]], ports: Iterator[int]) -> Gateway:
        if "Body" not in api.properties:
            raise UnsupportedTarget("only HTTP APIs with their routes in Body are served")
        port = next(ports)
        try:
            gateway = Gateway(
                api.properties["Body"],
                invoke=self._invoke,
                keys=lambda _issuer: self._store.signing_keys(),
                account_id=self._store.account_id,
                api_id=api.physical_id,
                on_request=self._console.request,
                stages=read_stages(api.physical_id, stages),
                port=port,
            )
        except OSError as error:
            raise StartError(f"port {port} is in use; choose another one with PORT=… ({error.strerror})") from error
        for route, reason in gateway.not_honoured.items():
            self._report(f"{api.logical_id} {route}", f"answers 501: {reason}")
        return gateway

    def _invoke(self, function: str, payload: bytes, trace_id: str | None = None) -> InvocationResult:
        result = self._runtime.invoke(function, payload, trace_id)
        self._show(function, payload, result)
        return result

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
        """Returns the logical ID of a function, given by its name or ARN; for a pipe, its ARN."""
        return self._names.get(function_name(function), function)


def _by_id(stack: Stack, kind: str, off: tuple[str, str] = ("", "")) -> dict[str, Resource]:
    """Returns the resources of a type by logical ID, without those whose property `off[0]` is `off[1]`."""
    return {each.logical_id: each for each in stack.of_type(kind) if each.properties.get(off[0]) != off[1]}


def _mappings(stack: Stack, service: str) -> dict[str, Resource]:
    """Returns the enabled event source mappings of a service by logical ID."""
    return {
        name: mapping
        for name, mapping in _by_id(stack, "AWS::Lambda::EventSourceMapping").items()
        if _source(mapping) == service and as_text(mapping.properties.get("Enabled", True)) == "true"
    }


def _source(mapping: Resource) -> str:
    """Returns the service of a mapping's source, "fifo" for FIFO queues, and "" for a source without an ARN."""
    arn = str(mapping.properties.get("EventSourceArn"))
    return "fifo" if arn.endswith(".fifo") else service_of(arn) if arn.startswith("arn:") else ""


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
        subject = BytesHeaderParser(policy=email.policy.default).parsebytes(message)["Subject"]
        slug = re.sub(r"[^a-z0-9]+", "-", subject.lower()).strip("-")[:80]
        draft = self._folder / f"{next(self._numbers):05}-{slug}.part"
        draft.write_bytes(message)
        draft.rename(draft.with_suffix(".eml"))
