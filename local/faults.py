"""Faults on purpose: what fails, how and how often is read from a file, drawn by lot and logged."""

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
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from types import MappingProxyType
from typing import Any, Protocol, TypeVar
from urllib.parse import parse_qs

import botocore.session
from botocore.exceptions import UnknownServiceError
from botocore.model import ServiceModel

KINDS = {
    "function": ("throttle", "error", "time-out", "crash"),
    "call": ("throttle", "error", "lost-answer", "crash", "delay", "stale"),
    "rule": ("duplicate", "delay", "error"),
    "queue": ("duplicate",),
    "stream": ("duplicate",),
}
"""What can be hit, and how.

A lost answer is a connection that is closed after the call took effect.

A call that is `stale` is a GetItem, BatchGetItem or Query of DynamoDB without ConsistentRead. It answers with what each
item was before its last write, if that write is at most `seconds` old; a new item is missing. Queries of a global
secondary index are never consistent, so they are hit too, unless the entry names another call.
"""

Answer = tuple[str, list[tuple[str, str]], bytes]
"""What an AWS API answers: status, headers and body."""


class InvalidFaults(Exception):
    """The file of faults cannot be used; the message says why, in one line."""


@dataclass(frozen=True)
class Fault:
    """One entry of the file.

    Args:
        selector: what it hits, a key of KINDS.
        name: which of them; may be a pattern: `*`, `dynamodb.*`.
        kind: one of the selector's kinds.
        probability: of each strike, above 0 and up to 1.
        by: of a call the function that makes it; may be a pattern.
        persistent: of a call: a strike also strikes the SDK's retries of the same call.
        seconds: how long a delay lasts, or how long a write may go unseen, on the runner's clock.
        times: how often it strikes at most.
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
    """Draws and logs the faults of a run, which last as long as their file exists. Safe for threads.

    Args:
        faults: the entries. None strikes after another one did at the same chance.
        names: by selector, how the file calls what the runner knows by other names.
        seed: of the lots; each entry draws its own.
        file: where the entries came from.
        log: the file that gets a line of JSON for each strike; emptied.
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
        self._lots = [(fault, random.Random(f"{seed} {number}")) for number, fault in enumerate(faults)]  # noqa: S311
        self._left = [fault.times for fault in faults]
        self._struck: dict[str, Fault] = {}  # by the SDK's id of a call, which its retries share
        self._names = names
        self._file = file
        self._log = log
        self._lock = threading.Lock()
        if faults:
            log.write_text("")

    def strikes(self, selector: str, name: str, kinds: Collection[str] = (), by: str = "", **what: Any) -> Fault | None:
        """Let a fault strike or not, and log it.

        Args:
            selector: what may be hit.
            name: which one, as the runner knows it.
            kinds: those that can strike here; none named, all of the selector's.
            by: the function that makes a call.
            what: goes into the log; no addresses and no bodies.
        """
        fault = self.draw(selector, name, kinds, by)
        if fault:
            self.note(fault, name, by, **what)
        return fault

    def draw(
        self, selector: str, name: str, kinds: Collection[str] = (), by: str = "", call_id: str = ""
    ) -> Fault | None:
        """Like `strikes`, for those who call `note` themselves, once they know the outcome.

        Args:
            selector: what may be hit.
            name: which one, as the runner knows it.
            kinds: those that can strike here; none named, all of the selector's.
            by: the function that makes a call.
            call_id: the SDK's id of a call; a persistent fault that struck a call strikes each of its retries.
        """
        if not self._lots or not self._file.exists():
            return None
        known, caller = self._known_as(selector, name), self._known_as("function", by)
        with self._lock:
            earlier = self._struck.get(call_id)
            if earlier and earlier.persistent:
                return earlier if not kinds or earlier.kind in kinds else None
            for number, (fault, lot) in enumerate(self._lots):
                if (
                    fault.selector == selector
                    and (not kinds or fault.kind in kinds)
                    and fnmatchcase(known, fault.name)
                    and fnmatchcase(caller, fault.by)
                    and self._left[number] > 0
                    and lot.random() < fault.probability
                ):
                    self._left[number] -= 1
                    if call_id:
                        self._struck[call_id] = fault
                    return fault
        return None

    def recovered(self, call_id: str) -> Fault | None:
        """The fault that struck a call before one of its retries took effect; None if there was none."""
        with self._lock:
            return self._struck.pop(call_id, None)

    def note(self, fault: Fault, name: str, by: str = "", **what: Any) -> None:
        """Write a strike's line of the log."""
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
    """The faults of a file: `{"seed": 7, "faults": [{"function": "*", "kind": "error", "probability": 0.1}, …]}`.

    Args:
        file: its path.
        names: by selector, what the runner knows of it and how the file calls that.
        log: see Faults.

    Raises:
        InvalidFaults: naming the entry.
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
        raise InvalidFaults(f"{where}: is to name one of {', '.join(KINDS)}")
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
        yield f"{key} is unknown here"
    if not _between(entry.get("probability"), 1):
        yield "the probability is to be above 0 and up to 1"
    if timed and not _between(entry.get("seconds"), math.inf):
        yield "seconds are to be a number above 0"
    if "times" in entry and not (_between(entry["times"], math.inf) and entry["times"] == int(entry["times"])):
        yield "times are to be a whole number above 0"
    if type(entry.get("persistent", False)) is not bool:
        yield "persistent must be true or false"
    if not _matches(selector, entry[selector], names):
        yield f"there is no {selector} {entry[selector]}"
    elif kind == "stale" and not any(fnmatchcase(call, entry[selector]) for call in READS):
        yield f"only {', '.join(READS)} can be stale"
    if not _matches("function", entry.get("by", "*"), names):
        yield f"there is no function {entry['by']}"


def _between(value: Any, most: float) -> bool:
    return type(value) in (int, float) and 0 < value <= most and value < math.inf


def _matches(selector: str, pattern: Any, names: Mapping[str, Mapping[str, str]]) -> bool:
    """Whether the pattern means anything that there is."""
    if not isinstance(pattern, str):
        return False
    known = _operations(pattern.partition(".")[0]) if selector == "call" else names[selector].values()
    return pattern == "*" or any(fnmatchcase(name, pattern) for name in known)


# --------------------------------------------------------------------------------------------- calls of AWS

PUT_EVENTS = "events.PutEvents"
BEFORE = ("throttle", "error")
AFTER = ("lost-answer", "crash", "delay")
"""The kinds that keep a call from taking effect, and those that strike once it has."""
RECOVERED = "recovered"
"""The kind in the log's line for a struck call, once one of its retries has taken effect. It is not a strike."""
READS = ("dynamodb.GetItem", "dynamodb.BatchGetItem", "dynamodb.Query")
"""The calls that can be stale."""

SERVICES = {"dynamodb": ("dynamodb", "dynamodbstreams"), "ses": ("sesv2", "ses"), "states": ("stepfunctions",)}
"""How boto3 calls the services, where the name in the signature is another or that of several."""

THROTTLES = {
    "dynamodb": ("ProvisionedThroughputExceededException", 400),
    "lambda": ("TooManyRequestsException", 429),
    "sesv2": ("TooManyRequestsException", 429),
    "sns": ("Throttled", 429),
    "sqs": ("RequestThrottled", 400),
}
ERRORS = {"dynamodb": "InternalServerError", "lambda": "ServiceException", "sns": "InternalError"}
"""What services answer in place of ThrottlingException (400) and InternalFailure (500), the errors common to all of
AWS; from the error lists of PutItem, Invoke, SendEmail, Publish and SendMessage in their API references."""


class Caller(Protocol):
    """A function's process."""

    @property
    def function(self) -> str: ...

    def kill(self) -> None: ...


class FaultyCalls:
    """Stands between the functions and the AWS APIs.

    Args:
        faults: those of the run.
        caller: the process with an access key, or None: the calls of others are let through.
        outside: how long so many seconds of the clock last outside.
        stale_reads: lets reads meanwhile miss the writes of so many seconds, outside.
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

    def answer(self, request: BaseHTTPRequestHandler, body: bytes, answer: Callable[[bytes], Answer]) -> Answer | None:
        """Answer a call, or let it fail.

        Args:
            request: its method, path and headers.
            body: its body.
            answer: lets the call take effect.

        Returns:
            None to close the connection without an answer.
        """
        process, call = caller_and_call(request, body, self._caller)
        if process is None or call is None:
            return answer(body)
        by, call_id = process.function, request.headers.get("amz-sdk-invocation-id", "")
        what = {"call_id": call_id, **_about(call, body)}
        if call == PUT_EVENTS:
            answer = functools.partial(self._put_events, by, call_id, answer)
        elif fault := self._faults.draw("call", call, BEFORE, by, call_id):
            self._faults.note(fault, call, by, **what, effect=False)
            return _refusal(call, fault.kind)
        kinds = (*AFTER, "stale") if _may_be_stale(call, body) else AFTER
        fault = self._faults.draw("call", call, kinds, by, call_id)
        kind, seconds = (fault.kind, self._outside(fault.seconds)) if fault else (None, 0.0)
        with self._stale_reads(seconds) if kind == "stale" else nullcontext():
            status, headers, text = answer(body)
        effect = status.startswith("2")
        if fault is None:
            if effect and (earlier := self._faults.recovered(call_id)):
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

    def _put_events(self, by: str, call_id: str, answer: Callable[[bytes], Answer], body: bytes) -> Answer:
        """Refuse single entries, as EventBridge does."""
        request = json.loads(body)
        entries = request["Entries"]
        struck = [
            self._faults.strikes(
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
        if not any(struck):
            return answer(body)
        taken = [entry for entry, fault in zip(entries, struck, strict=True) if not fault]
        status, headers, text = "200", [("Content-Type", "application/x-amz-json-1.1")], b'{"Entries": []}'
        if taken:
            status, headers, text = answer(json.dumps(request | {"Entries": taken}).encode())
        if status[:3] != "200":
            return status, headers, text
        rest = iter(json.loads(text)["Entries"])
        results = [_refused_entry(fault) if fault else next(rest) for fault in struck]
        failed = sum("ErrorCode" in result for result in results)
        return status, headers, json.dumps({"FailedEntryCount": failed, "Entries": results}).encode()


def caller_and_call(
    request: BaseHTTPRequestHandler, body: bytes, caller: Callable[[str], Caller | None]
) -> tuple[Caller | None, str | None]:
    """The process that sent a request, if it is a function's, and what it calls, in boto3's names.

    Args:
        caller: the process with an access key, or None.
    """
    signature = re.search(r"Credential=([^/]+)/[^/]+/[^/]+/([^/]+)/", request.headers.get("Authorization", ""))
    process = caller(signature[1]) if signature else None
    return process, _call(signature[2], request, body) if signature and process else None


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


def _call(signed_for: str, request: BaseHTTPRequestHandler, body: bytes) -> str | None:
    """What a request calls, in boto3's names: `service.Operation`; None if its service is not known here."""
    prefix, _, operation = request.headers.get("X-Amz-Target", "").partition(".")
    for service in filter(_operations, SERVICES.get(signed_for, (signed_for,))):
        model = _model(service)
        if prefix:
            if model.metadata.get("targetPrefix") == prefix:
                return f"{service}.{operation}"
        elif model.protocol == "query":
            for action in parse_qs(body.decode(errors="replace")).get("Action", []):
                return f"{service}.{action}"
        else:
            path = request.path.partition("?")[0]
            for name in model.operation_names:
                http = model.operation_model(name).http
                form = re.sub(r"\\{[^}]+\\}", "[^/]+", re.escape(http["requestUri"].partition("?")[0]))
                if http["method"] == request.command and re.fullmatch(form, path):
                    return f"{service}.{name}"
    return None


def _about(call: str, body: bytes) -> dict[str, Any]:
    """What a call is about, for the log: a mail's tags, or the key of the DynamoDB item that is read or changed."""
    if call == "sesv2.SendEmail":
        return {"tags": {tag["Name"]: tag["Value"] for tag in json.loads(body).get("EmailTags", [])}}
    key = json.loads(body).get("Key", {}) if call.startswith("dynamodb.") else {}
    return {"key": {name: next(iter(value.values())) for name, value in key.items()}} if key else {}


def _may_be_stale(call: str, body: bytes) -> bool:
    """Whether a call is a read that asks for no consistency, for any of its tables."""
    if call not in READS:
        return False
    request = json.loads(body)
    parts = request.get("RequestItems", {}).values() if call == "dynamodb.BatchGetItem" else [request]
    return not any(part.get("ConsistentRead") for part in parts)


def _refusal(call: str, kind: str) -> Answer:
    service = call.partition(".")[0]
    code, status = (ERRORS.get(service, "InternalFailure"), 500)
    if kind == "throttle":
        code, status = THROTTLES.get(service, ("ThrottlingException", 400))
    message = f"{kind} on purpose"
    if _model(service).protocol == "query":
        text = f"<ErrorResponse><Error><Code>{code}</Code><Message>{message}</Message></Error></ErrorResponse>"
        return str(status), [("Content-Type", "text/xml")], text.encode()
    headers = [("Content-Type", "application/json"), ("x-amzn-ErrorType", code)]
    return str(status), headers, json.dumps({"__type": code, "message": message}).encode()


def _refused_entry(fault: Fault) -> dict[str, str]:
    code = "ThrottlingException" if fault.kind == "throttle" else "InternalFailure"
    return {"ErrorCode": code, "ErrorMessage": f"{fault.kind} on purpose"}


# ------------------------------------------------------------------------------------- event source mappings


class Result(Protocol):
    """What a function answered."""

    @property
    def payload(self) -> bytes: ...

    @property
    def function_error(self) -> str | None: ...


R = TypeVar("R", bound=Result)


def repeating(faults: Faults, selector: str, invoke: Callable[[str, bytes], R]) -> Callable[[str, bytes], R]:
    """Hands records to a function again that it has handled: a stream's whole batch, single messages of a queue.

    Args:
        faults: those of the run.
        selector: `stream` or `queue`.
        invoke: runs the function and waits for its result.

    Returns:
        What stands in its place, and answers with the last result: the records count as not handled if that fails.
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
            again = records if faults.strikes(selector, source, records=events) else []
        else:
            again = [record for record in records if faults.strikes(selector, source, message=record["messageId"])]
        return invoke(function, json.dumps({"Records": again}).encode()) if again else result

    return invoke_again if faults is not NO_FAULTS else invoke


def _reports_failures(payload: bytes) -> bool:
    answer = json.loads(payload)
    return isinstance(answer, dict) and bool(answer.get("batchItemFailures"))
