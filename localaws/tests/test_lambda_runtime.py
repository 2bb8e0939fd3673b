"""The runtime runs functions like Lambda: environment, results, timeouts, concurrency and shutdown."""

import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import pytest

from localaws.lambda_runtime import (
    FunctionConfig,
    InvocationResult,
    RequestTooLarge,
    Runtime,
    RuntimeStopped,
    Throttled,
    UnknownFunction,
    check_request,
)
from localaws.tests.support import PATIENCE, wait_until

HANDLERS = Path(__file__).with_name("handlers")
ROOT = Path(__file__).parents[2]
ARN = "arn:aws:lambda:eu-west-1:123456789012:function:"
MakeRuntime = Callable[..., Runtime]


def function(handler: str, **changes: Any) -> FunctionConfig:
    """A function of the handler modules, named after its handler."""
    name = handler.rpartition(".")[2]
    settings: dict[str, Any] = {
        "name": name,
        "arn": ARN + name,
        "handler": handler,
        "timeout": 10,
        "memory": 256,
        "code": HANDLERS,
        "layers": (),
        "environment": {},
    }
    return FunctionConfig(**settings | changes)


def alive(pid: int) -> bool:
    """Returns whether a process is running. A zombie is not."""
    state = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True, check=False).stdout
    return bool(state.strip()) and not state.startswith("Z")


def started(directory: Path) -> list[Path]:
    return list(directory.glob("started-*"))


@pytest.fixture
def logs() -> list[tuple[str, str]]:
    return []


@pytest.fixture
def make_runtime(logs: list[tuple[str, str]]) -> Iterator[MakeRuntime]:
    """Starts runtimes and stops them after the test."""
    runtimes: list[Runtime] = []

    def make(*functions: FunctionConfig, failed: Iterable[str] = (), **options: Any) -> Runtime:
        settings: dict[str, Any] = {"environment": {}, "on_log": lambda name, line: logs.append((name, line))}
        runtimes.append(Runtime(functions, **settings | options))
        runtimes[-1].start()
        assert runtimes[-1].failed_imports().keys() == set(failed)
        return runtimes[-1]

    yield make
    for runtime in runtimes:
        runtime.stop()


def answer(result: InvocationResult) -> Any:
    assert result.function_error is None, result.payload
    return json.loads(result.payload)


def error(result: InvocationResult) -> Any:
    assert result.function_error == "Unhandled"
    return json.loads(result.payload)


def test_a_function_answers_its_event(make_runtime: MakeRuntime) -> None:
    runtime = make_runtime(function("plain.echo"))

    result = runtime.invoke("echo", '{"name": "Zoë"}'.encode())

    assert answer(result) == {"name": "Zoë"}
    assert 0 < result.duration < 5


@pytest.mark.parametrize("name", ["echo", "echo:live", f"{ARN}echo", f"{ARN}echo:live"])
def test_a_function_is_found_by_name_and_arn_with_and_without_alias(make_runtime: MakeRuntime, name: str) -> None:
    runtime = make_runtime(function("plain.echo"))

    assert answer(runtime.invoke(name, b"1")) == 1


def test_an_unknown_function_is_refused(make_runtime: MakeRuntime) -> None:
    runtime = make_runtime(function("plain.echo"))

    with pytest.raises(UnknownFunction):
        runtime.invoke("other", b"{}")
    with pytest.raises(UnknownFunction):
        runtime.invoke_async("other", b"{}", print)


def test_the_largest_event_and_answer_pass_whole(make_runtime: MakeRuntime) -> None:
    payload = json.dumps("x" * (6_291_456 - 2)).encode()
    runtime = make_runtime(function("plain.echo"))

    assert runtime.invoke("echo", payload).payload == payload


def test_a_larger_event_is_rejected_with_lambdas_message(make_runtime: MakeRuntime) -> None:
    runtime = make_runtime(function("plain.echo"))
    text = r"6291457 byte payload is too large for the RequestResponse invocation type \(limit 6291456 bytes\)"

    with pytest.raises(RequestTooLarge, match=text):
        runtime.invoke("echo", b"1" * 6_291_457)


def test_an_asynchronous_request_may_have_a_megabyte() -> None:
    check_request(b"1" * 1_048_576, "Event")

    with pytest.raises(RequestTooLarge, match=r"for the Event invocation type \(limit 1048576 bytes\)"):
        check_request(b"1" * 1_048_577, "Event")


@pytest.mark.parametrize(("size", "kind"), [(6_291_556, None), (6_291_557, "Unhandled")])
def test_a_larger_answer_is_an_error_of_the_function(
    make_runtime: MakeRuntime, tmp_path: Path, size: int, kind: str | None
) -> None:
    (tmp_path / "large.py").write_text("def answer(size, context):\n    return 'x' * (size - len('\"\"'))\n")
    runtime = make_runtime(function("large.answer", code=tmp_path))

    result = runtime.invoke("answer", str(size).encode())

    assert result.function_error == kind
    if kind:
        assert json.loads(result.payload) == {
            "errorMessage": "Response payload size exceeded maximum allowed payload size (6291556 bytes).",
            "errorType": "Function.ResponseSizeTooLarge",
        }


def test_the_context_has_the_fields_of_lambdas_context(make_runtime: MakeRuntime) -> None:
    runtime = make_runtime(function("plain.describe", timeout=7))

    seen = answer(runtime.invoke(f"{ARN}describe:live", b"{}"))

    context = seen["context"]
    assert len(context.pop("aws_request_id")) == 36
    assert context.pop("log_stream_name").split("/[")[1].startswith("$LATEST]")
    assert context == {
        "function_name": "describe",
        "function_version": "$LATEST",
        "invoked_function_arn": f"{ARN}describe:live",
        "memory_limit_in_mb": "256",
        "log_group_name": "/aws/lambda/describe",
        "identity": None,
        "client_context": None,
    }
    assert 5_000 < seen["remaining"] <= 7_000


def test_a_function_sees_its_own_environment_and_nothing_of_the_hosts(
    make_runtime: MakeRuntime, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "of the host")
    monkeypatch.setenv("GITHUB_TOKEN", "of the host")
    runtime = make_runtime(
        function("plain.describe", environment={"TABLE": "orders", "_HANDLER": "other.handler"}),
        environment={"AWS_REGION": "eu-west-1", "TABLE": "common"},
    )

    environment = answer(runtime.invoke("describe", b"{}"))["environment"]

    assert "of the host" not in environment.values()
    assert environment.pop("AWS_LAMBDA_RUNTIME_API").startswith("127.0.0.1:")
    assert environment.pop("AWS_LAMBDA_LOG_STREAM_NAME")
    assert environment.pop("_X_AMZN_TRACE_ID")
    environment.pop("__CF_USER_TEXT_ENCODING", None)  # macOS puts it into every process
    assert environment == {
        "PATH": os.environ["PATH"],
        "HOME": "/nonexistent",
        "LANG": "C.UTF-8",
        "LC_ALL": "C.UTF-8",
        "TZ": "UTC",
        "AWS_REGION": "eu-west-1",
        "TABLE": "orders",
        "_HANDLER": "plain.describe",
        "LAMBDA_TASK_ROOT": str(HANDLERS),
        "AWS_LAMBDA_FUNCTION_NAME": "describe",
        "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": "256",
        "AWS_LAMBDA_FUNCTION_VERSION": "$LATEST",
        "AWS_LAMBDA_LOG_GROUP_NAME": "/aws/lambda/describe",
        "AWS_SAM_LOCAL": "true",
        "PYTHONPATH": str(HANDLERS),
    }


def test_layers_follow_the_code_on_the_path_and_the_runners_own_modules_are_absent(
    make_runtime: MakeRuntime, tmp_path: Path
) -> None:
    plain, packaged = tmp_path / "plain", tmp_path / "packaged"
    plain.mkdir()
    (packaged / "python").mkdir(parents=True)
    runtime = make_runtime(function("plain.describe", layers=(plain, packaged)))

    seen = answer(runtime.invoke("describe", b"{}"))

    assert seen["path"][:3] == [str(HANDLERS), str(plain), str(packaged / "python")]
    assert str(ROOT) not in seen["path"]
    assert str(ROOT / "local") not in seen["path"]
    assert seen["directory"] == str(HANDLERS)


def test_each_invocation_has_a_trace_id_of_its_own_or_the_callers(make_runtime: MakeRuntime) -> None:
    runtime = make_runtime(function("plain.describe"))

    def trace(trace_id: str | None = None) -> str:
        seen = answer(runtime.invoke("describe", b"{}", trace_id))
        return str(seen["environment"]["_X_AMZN_TRACE_ID"])

    assert trace("Root=1-5759e988-bd862e3fe1be46a994272793;Sampled=0") == (
        "Root=1-5759e988-bd862e3fe1be46a994272793;Sampled=0"
    )
    first, second = trace(), trace()
    assert first != second
    root, parent, sampled = first.split(";")
    assert [len(part) for part in root.removeprefix("Root=").split("-")] == [1, 8, 24]
    assert len(parent.removeprefix("Parent=")) == 16
    assert sampled == "Sampled=1"


def test_what_a_handler_raises_is_an_unhandled_error_with_the_handlers_stack(make_runtime: MakeRuntime) -> None:
    runtime = make_runtime(function("plain.fail"))

    failure = error(runtime.invoke("fail", b'{"thing": "tea"}'))

    assert failure["errorType"] == "LookupError"
    assert failure["errorMessage"] == "no such thing: tea"
    assert failure["requestId"]
    assert len(failure["stackTrace"]) == 1
    assert "plain.py" in failure["stackTrace"][0]
    assert error(runtime.invoke("fail", b'{"thing": "milk"}'))["errorMessage"] == "no such thing: milk"


def test_an_answer_that_is_not_json_is_a_marshal_error_but_decimals_are_numbers(make_runtime: MakeRuntime) -> None:
    runtime = make_runtime(function("plain.unserialisable"), function("plain.decimals"))

    failure = error(runtime.invoke("unserialisable", b"{}"))

    assert failure["errorType"] == "Runtime.MarshalError"
    assert "object" in failure["errorMessage"]
    assert answer(runtime.invoke("decimals", b"{}")) == {"amount": 12.5}


def test_a_function_past_its_time_out_is_ended_with_all_it_started_and_the_next_call_is_served_afresh(
    make_runtime: MakeRuntime, tmp_path: Path
) -> None:
    runtime = make_runtime(function("plain.hang_with_child", timeout=2), max_processes=1)
    event = json.dumps({"directory": str(tmp_path)}).encode()

    for _ in range(2):
        result = runtime.invoke("hang_with_child", event)

        failure = error(result)
        assert failure["errorType"] == "Sandbox.Timedout"
        assert failure["errorMessage"].endswith("Task timed out after 2.00 seconds")
        assert result.duration >= 2
        child = int((tmp_path / "child").read_text())
        wait_until(lambda child=child: not alive(child))  # type: ignore[misc]


def test_a_time_out_is_reported_with_the_seconds_of_the_template(make_runtime: MakeRuntime) -> None:
    runtime = make_runtime(function("plain.hang", timeout=300, time_scale=1000))
    failure = error(runtime.invoke("hang", b"{}", request_id="the-request"))
    assert failure["errorMessage"] == "RequestId: the-request Error: Task timed out after 300.00 seconds"


def test_a_process_that_ends_during_a_call_fails_that_call_only(make_runtime: MakeRuntime) -> None:
    runtime = make_runtime(function("plain.leave", environment={}), max_processes=1)

    first = error(runtime.invoke("leave", b'{"status": 3}'))
    second = error(runtime.invoke("leave", b'{"status": 4}'))
    third = error(runtime.invoke("leave", b'{"status": 0}'))

    assert first["errorType"] == second["errorType"] == third["errorType"] == "Runtime.ExitError"
    assert first["errorMessage"].endswith("Error: Runtime exited with error: exit status 3")
    assert second["errorMessage"].endswith("Error: Runtime exited with error: exit status 4")
    assert third["errorMessage"].endswith("Error: Runtime exited without providing a reason")


def test_a_process_that_died_between_calls_is_replaced(make_runtime: MakeRuntime) -> None:
    runtime = make_runtime(function("plain.describe"))
    pid = answer(runtime.invoke("describe", b"{}"))["pid"]

    os.kill(pid, 9)
    wait_until(lambda: not alive(pid))

    assert answer(runtime.invoke("describe", b"{}"))["pid"] != pid


def test_a_warm_process_serves_calls_that_do_not_overlap(make_runtime: MakeRuntime) -> None:
    runtime = make_runtime(function("plain.describe"))

    pids = {answer(runtime.invoke("describe", b"{}"))["pid"] for _ in range(5)}

    assert len(pids) == 1


def test_overlapping_calls_get_processes_of_their_own_up_to_the_limit_and_then_wait(
    make_runtime: MakeRuntime, tmp_path: Path
) -> None:
    runtime = make_runtime(function("plain.wait_for_file"), max_processes=2)
    event = json.dumps({"directory": str(tmp_path)}).encode()
    pids: list[int] = []
    callers = [
        threading.Thread(target=lambda: pids.append(answer(runtime.invoke("wait_for_file", event)))) for _ in range(4)
    ]

    for caller in callers:
        caller.start()
    wait_until(lambda: len(started(tmp_path)) == 2)
    (tmp_path / "go").touch()
    for caller in callers:
        caller.join()

    assert len(pids) == 4
    assert len(set(pids)) == 2
    assert len(started(tmp_path)) == 2


def test_beyond_the_reserved_concurrency_a_call_is_throttled_at_once(make_runtime: MakeRuntime, tmp_path: Path) -> None:
    runtime = make_runtime(function("plain.wait_for_file", reserved_concurrency=1))
    event = json.dumps({"directory": str(tmp_path)}).encode()
    results: SimpleQueue[InvocationResult | Throttled] = SimpleQueue()
    runtime.invoke_async("wait_for_file", event, results.put)
    wait_until(lambda: len(started(tmp_path)) == 1)

    with pytest.raises(Throttled):
        runtime.invoke("wait_for_file", event)
    runtime.invoke_async("wait_for_file", event, results.put)

    assert isinstance(results.get(timeout=PATIENCE), Throttled)
    (tmp_path / "go").touch()
    assert isinstance(results.get(timeout=PATIENCE), InvocationResult)
    assert isinstance(runtime.invoke("wait_for_file", event), InvocationResult)


def test_reserved_concurrency_can_be_changed(make_runtime: MakeRuntime) -> None:
    runtime = make_runtime(function("plain.echo"))

    runtime.reserve("echo", 0)
    with pytest.raises(Throttled):
        runtime.invoke("echo", b"{}")

    runtime.reserve("echo", None)
    assert runtime.invoke("echo", b"{}").function_error is None


def written(code: Path, value: str) -> None:
    """Writes a handler that answers a value after it has been told to go on."""
    program = f"""
import pathlib, time
def handler(event, context):
    while event and not pathlib.Path(event).exists():
        time.sleep(0.01)
    return {value}
"""
    (code / "changing.py").write_text(program)


def test_a_replaced_function_runs_its_new_code_and_a_running_call_ends_with_the_old(
    make_runtime: MakeRuntime, tmp_path: Path
) -> None:
    written(tmp_path, "'old'")
    runtime = make_runtime(function("changing.handler", name="f", code=tmp_path))
    ended: SimpleQueue[InvocationResult | Throttled] = SimpleQueue()
    runtime.invoke_async("f", json.dumps(str(tmp_path / "go")).encode(), ended.put)
    wait_until(lambda: runtime._pools["f"]._calls)
    written(tmp_path, "'the new one'")

    failures = runtime.replace(["f"])

    assert failures == {}
    assert answer(runtime.invoke("f", b"null")) == "the new one"
    (tmp_path / "go").touch()
    result = ended.get(timeout=PATIENCE)
    assert isinstance(result, InvocationResult)
    assert answer(result) == "old"
    assert answer(runtime.invoke("f", b"null")) == "the new one"


def test_a_replaced_function_with_an_error_fails_until_the_next_replacement(
    make_runtime: MakeRuntime, tmp_path: Path
) -> None:
    written(tmp_path, "'old'")
    runtime = make_runtime(function("changing.handler", name="f", code=tmp_path))

    written(tmp_path, "(((")
    (reason,) = runtime.replace(["f"]).values()
    assert reason.startswith("SyntaxError: ")
    assert "SyntaxError" in error(runtime.invoke("f", b"null"))["errorMessage"]

    written(tmp_path, "'repaired'")
    assert runtime.replace(["f"]) == {}
    assert answer(runtime.invoke("f", b"null")) == "repaired"


def test_an_asynchronous_call_returns_before_the_function_ends_and_uses_all_processes(
    make_runtime: MakeRuntime, tmp_path: Path
) -> None:
    runtime = make_runtime(function("plain.wait_for_file"), max_processes=2)
    event = json.dumps({"directory": str(tmp_path)}).encode()
    results: SimpleQueue[InvocationResult | Throttled] = SimpleQueue()

    for _ in range(3):
        runtime.invoke_async("wait_for_file", event, results.put)
    wait_until(lambda: len(started(tmp_path)) == 2)
    assert results.empty()
    (tmp_path / "go").touch()

    for _ in range(3):
        result = results.get(timeout=PATIENCE)
        assert isinstance(result, InvocationResult)
        assert result.function_error is None


def test_a_failed_callback_does_not_affect_the_others(
    make_runtime: MakeRuntime, caplog: pytest.LogCaptureFixture
) -> None:
    runtime = make_runtime(function("plain.echo"), max_processes=1)
    results: SimpleQueue[InvocationResult | Throttled] = SimpleQueue()

    def refuse(_: InvocationResult | Throttled) -> None:
        raise ValueError("not today")

    runtime.invoke_async("echo", b"1", refuse)
    runtime.invoke_async("echo", b"2", results.put)

    result = results.get(timeout=PATIENCE)
    assert isinstance(result, InvocationResult)
    assert result.payload == b"2"
    assert "not today" in caplog.text


def test_everything_a_function_prints_arrives_line_by_line_even_more_than_a_pipe_holds(
    make_runtime: MakeRuntime, logs: list[tuple[str, str]]
) -> None:
    runtime = make_runtime(function("plain.talk"))

    answer(runtime.invoke("talk", b'{"lines": 5000}'))
    wait_until(lambda: ("talk", "logged") in logs)

    assert logs[0] == ("talk", "line 0 " + "x" * 100)
    assert len([line for _, line in logs if line.startswith("line ")]) == 5000
    assert ("talk", "on stderr") in logs


def test_a_handler_that_cannot_be_imported_is_named_and_the_other_functions_run(
    make_runtime: MakeRuntime,
) -> None:
    runtime = make_runtime(function("plain.echo"), function("broken.handler"), failed={"handler"})

    assert runtime.failed_imports() == {
        "handler": (
            "handler: cannot import handler broken.handler: ModuleNotFoundError: No module named 'nowhere_to_be_found'"
        )
    }
    assert error(runtime.invoke("handler", b"{}"))["errorType"] == "Runtime.ImportModuleError"
    assert answer(runtime.invoke("echo", b"1")) == 1


def test_a_function_that_is_not_run_here_starts_no_process_and_fails_with_the_reason(make_runtime: MakeRuntime) -> None:
    runtime = make_runtime(function("plain.echo", not_run="runtime nodejs22.x is not run here"))

    assert children() == []
    assert error(runtime.invoke("echo", b"{}")) == {
        "errorType": "Runtime.NotRunHere",
        "errorMessage": "echo: runtime nodejs22.x is not run here",
    }


@pytest.mark.parametrize(
    ("handler", "changes", "reason"),
    [
        ("plain.missing", {}, "has no attribute 'missing'"),
        ("plain.echo", {"code": HANDLERS / "missing"}, "No such file or directory"),
        ("leaves.handler", {}, "its process ended while importing it (exit status 5)"),
    ],
)
def test_the_error_has_the_reason_why_a_function_cannot_start(
    handler: str, changes: dict[str, Any], reason: str, make_runtime: MakeRuntime, tmp_path: Path
) -> None:
    (tmp_path / "leaves.py").write_text("raise SystemExit(5)\n")
    config = function(handler, **(changes or {"layers": (tmp_path,)}))

    runtime = make_runtime(config, failed={config.name})

    assert re.match(
        f"{config.name}: cannot import handler .*{re.escape(reason)}", runtime.failed_imports()[config.name]
    )


def test_stop_leaves_no_process_and_no_thread_and_may_be_repeated(tmp_path: Path) -> None:
    threads_before = threading.active_count()
    runtime = Runtime(
        [function("plain.describe"), function("plain.wait_for_file")], environment={}, on_log=lambda name, line: None
    )
    runtime.start()
    results: SimpleQueue[InvocationResult | Throttled] = SimpleQueue()
    event = json.dumps({"directory": str(tmp_path)}).encode()
    for _ in range(9):  # some run, the others wait in the queue
        runtime.invoke_async("wait_for_file", event, results.put)
    wait_until(lambda: len(started(tmp_path)) == 4)

    runtime.stop()
    runtime.stop()

    assert children() == []
    assert threading.active_count() == threads_before
    assert results.empty()
    with pytest.raises(RuntimeStopped):
        runtime.invoke_async("describe", b"{}", results.put)


def test_functions_end_when_their_runner_is_killed_even_in_the_middle_of_a_call(tmp_path: Path) -> None:
    script = f"""
import sys
from pathlib import Path
from localaws.lambda_runtime import FunctionConfig, Runtime
config = FunctionConfig("f", "{ARN}f", "plain.wait_for_file", 600, 128, Path({str(HANDLERS)!r}), (), {{}})
runtime = Runtime([config], environment={{}}, on_log=print)
runtime.start()
runtime.invoke("f", b'{{"directory": "{tmp_path}"}}')
"""
    runner = subprocess.Popen([sys.executable, "-c", script], cwd=ROOT)
    try:
        wait_until(lambda: len(started(tmp_path)) == 1)
        pid = int(started(tmp_path)[0].name.removeprefix("started-"))
        assert alive(pid)
    finally:
        runner.kill()
        runner.wait()

    wait_until(lambda: not alive(pid))


def children() -> list[str]:
    """Returns the running bootstrap processes of this process."""
    listed = subprocess.run(["ps", "-axo", "ppid=,stat=,command="], capture_output=True, text=True, check=True).stdout
    return [
        line for line in listed.splitlines() if line.split()[0] == str(os.getpid()) and "lambda_bootstrap.py" in line
    ]
