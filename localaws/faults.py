"""Fault injection: a file says which calls and deliveries fail, how, and with which probability. Faults are logged."""

import functools
import json
import math
import random
import re
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from pathlib import Path
from types import MappingProxyType
from typing import Any, Protocol, TypeVar
from urllib.parse import parse_qs

import botocore.session
from botocore.exceptions import UnknownServiceError
from botocore.model import ServiceModel

from localaws.http_server import Answer, Request

KINDS = {
    "function": ("throttle", "error", "time-out", "crash"),
    "call": ("throttle", "error", "lost-answer", "crash", "delay", "stale", "conflict"),
    "rule": ("duplicate", "delay", "error"),
    "queue": ("duplicate",),
    "stream": ("duplicate",),
}
"""The kinds of faults, by selector.

`lost-answer` closes the connection after the call took effect.

`conflict` affects TransactWriteItems, PutItem, UpdateItem and DeleteItem: another transaction writes the same items.

`stale` affects GetItem, BatchGetItem and Query of DynamoDB without ConsistentRead. The call returns each item as it was
before its last write, if that write is at most `seconds` old; a new item is missing. Queries of a global secondary
index are always eventually consistent, so they are affected too, unless the entry names another call.
"""

OnCall = Callable[[Request, Callable[[Request], Answer]], Answer | None]
"""Answers a call of an AWS API: gets the request and a function that executes one. None closes the connection."""


class InvalidFaults(Exception):
    """The fault file is not valid. The message gives the reason in one line."""


@dataclass(frozen=True)
class Fault:
    """One entry of the fault file.

    Args:
        selector: a key of KINDS.
        name: the affected function, call, rule, queue or table; may be a pattern: `*`, `dynamodb.*`.
        kind: one of the selector's kinds.
        probability: greater than 0, at most 1.
        by: for a call, the function that makes it; may be a pattern.
        persistent: for a call, whether the SDK's retries of the same call fail as well.
        seconds: duration of a delay, or maximum age of a write that a stale read misses, on the runner's clock.
        times: maximum number of injections.
    """

    selector: str
    name: str
    kind: str
    probability: float
    by: str = "*"
    persistent: bool = False
    seconds: float = 0.0
    times: float = math.inf


class Faults:
    """Decides when faults are injected, and logs them. Faults stop when their file is deleted. Thread-safe.

    Args:
        faults: the entries. At most one of them is injected at a time: the first that is drawn.
        names: by selector, the names in the file by the runner's names.
        seed: seed of the random numbers; each entry has its own sequence.
        file: the fault file.
        log: one JSON line is written to this file for each injected fault. It is emptied first.
    """

    def __init__(
        self,
        faults: Sequence[Fault] = (),
        names: Mapping[str, Mapping[str, str]] = MappingProxyType({}),
        *,
        seed: int = 0,
        file: Path = Path(),
        log: Path = Path(),
    ) -> None:
        self._generators = [(fault, random.Random(f"{seed} {number}")) for number, fault in enumerate(faults)]  # noqa: S311
        self._left = [fault.times for fault in faults]
        self._injected: dict[str, Fault] = {}  # by the SDK's ID of a call; its retries have the same ID
        self._names = names
        self._file = file
        self._log = log
        self._lock = threading.Lock()
        if faults:
            log.write_text("")

    def inject(self, selector: str, name: str, kinds: Collection[str] = (), by: str = "", **what: Any) -> Fault | None:
        """Returns the fault to inject, or None, and logs it.

        Args:
            selector: a key of KINDS.
            name: the runner's name of the function, call, rule, queue or table.
            kinds: the kinds that are possible here; empty for all kinds of the selector.
            by: the function that makes a call.
            what: fields of the log line; no addresses and no bodies.
        """
        fault = self.draw(selector, name, kinds, by)
        if fault:
            self.note(fault, name, by, **what)
        return fault

    def draw(
        self, selector: str, name: str, kinds: Collection[str] = (), by: str = "", call_id: str = ""
    ) -> Fault | None:
        """Returns the fault to inject, or None, without logging it: the caller calls `note` when the outcome is known.

        Args:
            selector: a key of KINDS.
            name: the runner's name of the function, call, rule, queue or table.
            kinds: the kinds that are possible here; empty for all kinds of the selector.
            by: the function that makes a call.
            call_id: the SDK's ID of a call; a persistent fault is injected into each retry of the call.
        """
        if not self._generators or not self._file.exists():
            return None
        known, caller = self._known_as(selector, name), self._known_as("function", by)
        with self._lock:
            earlier = self._injected.get(call_id)
            if earlier and earlier.persistent:
                return earlier if not kinds or earlier.kind in kinds else None
            for number, (fault, generator) in enumerate(self._generators):
                if (
                    fault.selector == selector
                    and (not kinds or fault.kind in kinds)
                    and fnmatchcase(known, fault.name)
                    and fnmatchcase(caller, fault.by)
                    and self._left[number] > 0
                    and generator.random() < fault.probability
                ):
                    self._left[number] -= 1
                    if call_id:
                        self._injected[call_id] = fault
                    return fault
        return None

    def fault_of_earlier_attempt(self, call_id: str) -> Fault | None:
        """Returns the fault of an earlier attempt of a call whose retry took effect, or None."""
        with self._lock:
            return self._injected.pop(call_id, None)

    def note(self, fault: Fault, name: str, by: str = "", **what: Any) -> None:
        """Write the log line of an injected fault."""
        line = {
            "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
            "kind": fault.kind,
            fault.selector: self._known_as(fault.selector, name),
            **({"by": self._known_as("function", by)} if by else {}),
            **({"persistent": True} if fault.persistent else {}),
            **what,
        }
        with self._lock, self._log.open("a") as log:
            log.write(json.dumps(line) + "\n")

    def _known_as(self, selector: str, name: str) -> str:
        return self._names.get(selector, {}).get(name, name)


NO_FAULTS = Faults()


# ------------------------------------------------------------------------------------------------- the file


def read_faults(file: Path, names: Mapping[str, Mapping[str, str]], log: Path) -> Faults:
    """Reads a fault file: `{"seed": 7, "faults": [{"function": "*", "kind": "error", "probability": 0.1}, …]}`.

    Args:
        file: path of the file.
        names: by selector, the names in the file by the runner's names.
        log: the file for the log lines.

    Raises:
        InvalidFaults: the file is not valid. The message names the entry.
    """
    try:
        content = json.loads(file.read_text())
    except (OSError, ValueError) as error:
        raise InvalidFaults(f"{file}: {error}") from error
    match content:
        case {"faults": [*entries], "seed": int(seed), **rest} if not rest:
            faults = [_read_entry(f"{file}: faults[{number}]", entry, names) for number, entry in enumerate(entries)]
            return Faults(faults, names, seed=seed, file=file, log=log)
    raise InvalidFaults(f'{file}: not of the form {{"seed": 7, "faults": […]}}')


def _read_entry(place: str, entry: Any, names: Mapping[str, Mapping[str, str]]) -> Fault:
    where = f"{place} {json.dumps(entry)}"
    selectors = KINDS.keys() & entry.keys() if isinstance(entry, dict) else set()
    if len(selectors) != 1:
        raise InvalidFaults(f"{where}: must name one of {', '.join(KINDS)}")
    (selector,) = selectors
    for reason in _mistakes(selector, entry, names):
        raise InvalidFaults(f"{where}: {reason}")
    return Fault(selector, entry[selector], **{key: value for key, value in entry.items() if key != selector})


def _mistakes(selector: str, entry: dict[str, Any], names: Mapping[str, Mapping[str, str]]) -> Iterator[str]:
    kind, timed = entry.get("kind"), entry.get("kind") in ("delay", "stale")
    if kind not in KINDS[selector]:
        yield f"the kinds of a {selector} are {', '.join(KINDS[selector])}"
    known = {selector, "kind", "probability", "times"} | ({"by", "persistent"} if selector == "call" else set())
    for key in sorted(entry.keys() - known - ({"seconds"} if timed else set())):
        yield f"{key} is not a field of this entry"
    if not _between(entry.get("probability"), 1):
        yield "probability must be greater than 0 and at most 1"
    if timed and not _between(entry.get("seconds"), math.inf):
        yield "seconds must be a number greater than 0"
    if "times" in entry and not (_between(entry["times"], math.inf) and entry["times"] == int(entry["times"])):
        yield "times must be a whole number greater than 0"
    if type(entry.get("persistent", False)) is not bool:
        yield "persistent must be true or false"
    if not _matches(selector, entry[selector], names):
        yield f"there is no {selector} {entry[selector]}"
    elif (calls := {"stale": READS, "conflict": WRITES}.get(str(kind))) and not any(
        fnmatchcase(call, entry[selector]) for call in calls
    ):
        yield f"only {', '.join(calls)} can have the fault {kind}"
    if not _matches("function", entry.get("by", "*"), names):
        yield f"there is no function {entry['by']}"


def _between(value: Any, most: float) -> bool:
    return type(value) in (int, float) and 0 < value <= most and value < math.inf


def _matches(selector: str, pattern: Any, names: Mapping[str, Mapping[str, str]]) -> bool:
    """Returns whether a pattern matches an existing name."""
    if not isinstance(pattern, str):
        return False
    known = _operations(pattern.partition(".")[0]) if selector == "call" else names[selector].values()
    return pattern == "*" or any(fnmatchcase(name, pattern) for name in known)


# --------------------------------------------------------------------------------------------- calls of AWS

PUT_EVENTS = "events.PutEvents"
BEFORE = ("throttle", "error")
AFTER = ("lost-answer", "crash", "delay")
"""The kinds that replace a call, and the kinds that are injected after it took effect."""
RECOVERED = "recovered"
"""The kind in the log line of a failed call's retry that took effect. It is not an injected fault."""
READS = ("dynamodb.GetItem", "dynamodb.BatchGetItem", "dynamodb.Query")
"""The calls that can be stale."""
WRITES = tuple(f"dynamodb.{name}" for name in ("TransactWriteItems", "PutItem", "UpdateItem", "DeleteItem"))
"""The calls that can conflict with a transaction."""

SERVICES = {"dynamodb": ("dynamodb", "dynamodbstreams"), "ses": ("sesv2", "ses"), "states": ("stepfunctions",)}
"""boto3's names of services, by the name in the signature, where they differ."""

THROTTLES = {
    "dynamodb": ("ProvisionedThroughputExceededException", 400),
    "lambda": ("TooManyRequestsException", 429),
    "sesv2": ("TooManyRequestsException", 429),
    "sns": ("Throttled", 429),
    "sqs": ("RequestThrottled", 400),
}
ERRORS = {"dynamodb": "InternalServerError", "lambda": "ServiceException", "sns": "InternalError"}
"""Errors of services that do not use the common AWS errors ThrottlingException (400) and InternalFailure (500). From
the error lists of PutItem, Invoke, SendEmail, Publish and SendMessage in their API references."""


class Caller(Protocol):
    """The process of a function."""

    @property
    def function(self) -> str: ...

    def kill(self) -> None: ...


class FaultyCalls:
    """Injects faults into the functions' calls of AWS APIs.

    Args:
        faults: the faults.
        caller: returns the process with an access key, or None. Calls of other clients are not affected.
        outside: converts seconds of the runner's clock to real seconds.
        stale_reads: context in which reads miss the writes of the last seconds (real time).
    """

    def __init__(
        self,
        faults: Faults,
        caller: Callable[[str], Caller | None],
        outside: Callable[[float], float],
        stale_reads: Callable[[float], AbstractContextManager[None]],
    ) -> None:
        self._faults = faults
        self._caller = caller
        self._outside = outside
        self._stale_reads = stale_reads

    def answer(self, request: Request, execute: Callable[[Request], Answer]) -> Answer | None:
        """Answers a call, with or without an injected fault.

        Args:
            request: the call.
            execute: executes a call.

        Returns:
            The response, or None to close the connection without a response.
        """
        process, call = caller_and_call(request, self._caller)
        if process is None or call is None:
            return execute(request)
        by, call_id = process.function, request.headers.get("amz-sdk-invocation-id", "")
        what = {"call_id": call_id, **_about(call, request.body)}
        before = (*BEFORE, "conflict") if call in WRITES else BEFORE
        if call == PUT_EVENTS:
            execute = functools.partial(self._put_events, by, call_id, execute)
        elif fault := self._faults.draw("call", call, before, by, call_id):
            self._faults.note(fault, call, by, **what, effect=False)
            return _refusal(call, fault.kind, request.body)
        kinds = (*AFTER, "stale") if _may_be_stale(call, request.body) else AFTER
        fault = self._faults.draw("call", call, kinds, by, call_id)
        kind, seconds = (fault.kind, self._outside(fault.seconds)) if fault else (None, 0.0)
        with self._stale_reads(seconds) if kind == "stale" else nullcontext():
            status, headers, text = execute(request)
        effect = status.startswith("2")
        if fault is None:
            if effect and (earlier := self._faults.fault_of_earlier_attempt(call_id)):
                self._faults.note(replace(earlier, kind=RECOVERED), call, by, **what, effect=True)
            return status, headers, text
        self._faults.note(fault, call, by, **what, effect=effect)
        if kind == "crash":
            process.kill()
        if kind in ("crash", "lost-answer"):
            return None
        if kind == "delay":
            time.sleep(seconds)
        return status, headers, text

    def _put_events(self, by: str, call_id: str, execute: Callable[[Request], Answer], request: Request) -> Answer:
        """Rejects single entries, as EventBridge does."""
        body = json.loads(request.body)
        entries = body["Entries"]
        injected = [
            self._faults.inject(
                "call",
                PUT_EVENTS,
                BEFORE,
                by,
                call_id=call_id,
                **{"detail-type": entry.get("DetailType")},
                effect=False,
            )
            for entry in entries
        ]
        if not any(injected):
            return execute(request)
        taken = [entry for entry, fault in zip(entries, injected, strict=True) if not fault]
        status, headers, text = "200", [("Content-Type", "application/x-amz-json-1.1")], b'{"Entries": []}'
        if taken:
            status, headers, text = execute(replace(request, body=json.dumps(body | {"Entries": taken}).encode()))
        if status[:3] != "200":
            return status, headers, text
        rest = iter(json.loads(text)["Entries"])
        results = [_refused_entry(fault) if fault else next(rest) for fault in injected]
        failed = sum("ErrorCode" in result for result in results)
        return status, headers, json.dumps({"FailedEntryCount": failed, "Entries": results}).encode()


def caller_and_call(request: Request, caller: Callable[[str], Caller | None]) -> tuple[Caller | None, str | None]:
    """Returns the function's process that sent a request, or None, and the called operation with boto3's names.

    Args:
        caller: returns the process with an access key, or None.
    """
    signature = re.search(r"Credential=([^/]+)/[^/]+/[^/]+/([^/]+)/", request.headers.get("Authorization", ""))
    process = caller(signature[1]) if signature else None
    return process, _call(signature[2], request) if signature and process else None


@functools.cache
def _model(service: str) -> ServiceModel:
    return botocore.session.get_session().get_service_model(service)


def _operations(service: str) -> list[str]:
    try:
        model = _model(service)
    except UnknownServiceError:
        return []
    known = service in SERVICES.get(model.signing_name, (model.signing_name,))
    return [f"{service}.{operation}" for operation in model.operation_names] if known else []


def _call(signed_for: str, request: Request) -> str | None:
    """Returns the operation of a request with boto3's names, like `service.Operation`; None if it is unknown."""
    prefix, _, operation = request.headers.get("X-Amz-Target", "").partition(".")
    for service in filter(_operations, SERVICES.get(signed_for, (signed_for,))):
        model = _model(service)
        if prefix:
            if model.metadata.get("targetPrefix") == prefix:
                return f"{service}.{operation}"
        elif model.protocol == "query":
            for action in parse_qs(request.body.decode(errors="replace")).get("Action", []):
                return f"{service}.{action}"
        else:
            for name in model.operation_names:
                http = model.operation_model(name).http
                form = re.sub(r"\\{[^}]+\\}", "[^/]+", re.escape(http["requestUri"].partition("?")[0]))
                if http["method"] == request.method and re.fullmatch(form, request.path):
                    return f"{service}.{name}"
    return None


def _about(call: str, body: bytes) -> dict[str, Any]:
    """Returns log fields about a call: the tags of an e-mail, or the key of the DynamoDB item."""
    if call == "sesv2.SendEmail":
        return {"tags": {tag["Name"]: tag["Value"] for tag in json.loads(body).get("EmailTags", [])}}
    key = json.loads(body).get("Key", {}) if call.startswith("dynamodb.") else {}
    return {"key": {name: next(iter(value.values())) for name, value in key.items()}} if key else {}


def _may_be_stale(call: str, body: bytes) -> bool:
    """Returns whether a call is a read without ConsistentRead for all of its tables."""
    if call not in READS:
        return False
    request = json.loads(body)
    parts = request.get("RequestItems", {}).values() if call == "dynamodb.BatchGetItem" else [request]
    return not any(part.get("ConsistentRead") for part in parts)


def _refusal(call: str, kind: str, body: bytes) -> Answer:
    service = call.partition(".")[0]
    code, status = (ERRORS.get(service, "InternalFailure"), 500)
    if kind == "throttle":
        code, status = THROTTLES.get(service, ("ThrottlingException", 400))
    message, reasons = f"injected fault: {kind}", {}
    if kind == "conflict":
        code, status = "TransactionConflictException", 400
        conflict = {"Code": "TransactionConflict", "Message": "Transaction is ongoing for the item"}
        if operations := json.loads(body).get("TransactItems"):
            code, reasons = "TransactionCanceledException", {"CancellationReasons": [conflict] * len(operations)}
    if _model(service).protocol == "query":
        text = f"<ErrorResponse><Error><Code>{code}</Code><Message>{message}</Message></Error></ErrorResponse>"
        return str(status), [("Content-Type", "text/xml")], text.encode()
    headers = [("Content-Type", "application/json"), ("x-amzn-ErrorType", code)]
    return str(status), headers, json.dumps({"__type": code, "message": message} | reasons).encode()


def _refused_entry(fault: Fault) -> dict[str, str]:
    code = "ThrottlingException" if fault.kind == "throttle" else "InternalFailure"
    return {"ErrorCode": code, "ErrorMessage": f"injected fault: {fault.kind}"}


# ------------------------------------------------------------------------------------- event source mappings


class Result(Protocol):
    """The result of an invocation."""

    @property
    def payload(self) -> bytes: ...

    @property
    def function_error(self) -> str | None: ...


R = TypeVar("R", bound=Result)


def repeating(faults: Faults, selector: str, invoke: Callable[[str, bytes], R]) -> Callable[[str, bytes], R]:
    """Injects duplicates: invokes a function again with a stream's whole batch, or with single messages of a queue.

    Args:
        faults: the faults.
        selector: `stream` or `queue`.
        invoke: runs the function and waits for its result.

    Returns:
        A replacement for `invoke`. It returns the last result: if the second invocation fails, the batch has failed.
    """

    def invoke_again(function: str, payload: bytes) -> R:
        result = invoke(function, payload)
        if result.function_error or _reports_failures(result.payload):
            return result
        records = json.loads(payload)["Records"]
        # The queue's name, or the table's: arn:aws:sqs:…:NAME, arn:aws:dynamodb:…:table/NAME/stream/…
        source = records[0]["eventSourceARN"].split(":", 5)[5].removeprefix("table/").partition("/")[0]
        if selector == "stream":
            events = [record["eventID"] for record in records]
            again = records if faults.inject(selector, source, records=events) else []
        else:
            again = [record for record in records if faults.inject(selector, source, message=record["messageId"])]
        return invoke(function, json.dumps({"Records": again}).encode()) if again else result

    return invoke_again if faults is not NO_FAULTS else invoke


def _reports_failures(payload: bytes) -> bool:
    answer = json.loads(payload)
    return isinstance(answer, dict) and bool(answer.get("batchItemFailures"))
