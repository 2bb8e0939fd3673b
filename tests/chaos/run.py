"""Places and cancels orders under random faults, redrives what is not retried automatically, and checks the outcome."""

import email.policy
import json
import random
import re
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime
from decimal import Decimal
from email.parser import BytesHeaderParser
from pathlib import Path
from typing import Any
from urllib.parse import quote

import urllib3
from rich.console import Console
from rich.markup import escape
from rich.progress import Progress
from rich.table import Table

from tests.chaos.check import Mail, Placed, Snapshot, check, is_given_up, struck
from tools import reconcile
from tools.arguments import Parser
from tools.http import Answer, Api
from tools.own_stack import StackDidNotStart, local_stack_of_own
from tools.personal_data import personal_data_in
from tools.republish import RepublishError, Window, republish
from tools.seed import read_seed, seed
from tools.stack import Stack
from tools.unpark import unpark

CALLERS = 4
TIME_SCALE = 20.0
STRETCH = 6
"""The factor by which the functions' time-outs are longer, because the scaled clock does not make their work faster.
The shortest, 10 s, then leaves 3 s of real time: enough for the SDK's retries, unless a call is throttled each time.
The SDK then waits 3.5 s on average before it gives up."""
ENOUGH_ORDERS = 25
"""From this number on, each kind of fault must strike. With fewer orders, chance can leave one out."""

ANSWER_SECONDS = 60.0
"""For so long, a client retries a request."""
CANCEL_SECONDS = 600.0
"""On the stack's clock. For so long, a client waits for an order to be settled before it cancels the order. All
automatic retries are over by then: Lambda's after 60 and 120 s, the DLQ processor's after 15, 60 and 300 s."""
QUIET_SECONDS = 180.0
"""On the stack's clock. The longest time without a visible change is that before Lambda's second asynchronous retry,
which starts after 120 s and can run for 30 s."""
STUCK_SECONDS = 400.0
"""On the stack's clock. The longest delay of a message is that of a failed event's last retry, 300 s."""
DLQ_SECONDS = 180
"""The DLQ's visibility time-out during a run: the minimum for a function with a time-out of 180 s. The template's is
six times as long."""
SETTLE_SECONDS = 600.0
REDRIVES = 5
"""The maximum number of redrives of a failed event, after the last fault."""

QUEUES = {"analytics": "AnalyticsQueueUrl", "dead letters": "OrderEventsDlqUrl", "parking": "OrderEventsParkingUrl"}


# ------------------------------------------------------------------------------------------------ the faults

OFTEN: Sequence[Mapping[str, Any]] = (
    {"function": "*", "kind": "throttle", "probability": 0.1},
    {"function": "*", "kind": "error", "probability": 0.1},
    {"function": "*", "kind": "time-out", "probability": 0.02},
    {"function": "*", "kind": "crash", "probability": 0.02},
    {"call": "dynamodb.*", "kind": "throttle", "probability": 0.05},
    {"call": "dynamodb.*", "kind": "error", "probability": 0.05},
    {"call": "dynamodb.*", "kind": "error", "probability": 0.02, "persistent": True},
    {"call": "events.PutEvents", "kind": "throttle", "probability": 0.1},
    {"call": "events.PutEvents", "kind": "error", "probability": 0.1},
    {"rule": "*", "kind": "delay", "probability": 0.1, "seconds": 10},
)
COUNTING: Mapping[str, Any] = {"call": "dynamodb.TransactWriteItems", "by": "AnalyticsFunction"}
SELDOM: Sequence[tuple[int, Mapping[str, Any]]] = (
    (1, {"call": "sesv2.SendEmail", "kind": "throttle", "probability": 0.05}),
    (1, {"call": "sesv2.SendEmail", "kind": "error", "probability": 0.05}),
    (1, {"call": "sesv2.SendEmail", "kind": "crash", "probability": 0.03}),
    (1, {"call": "sesv2.SendEmail", "kind": "lost-answer", "probability": 0.03}),
    (1, {"rule": "*", "kind": "duplicate", "probability": 0.05}),
    (1, {"queue": "*", "kind": "duplicate", "probability": 0.05}),
    (1, {"stream": "*", "kind": "duplicate", "probability": 0.05}),
    (1, {**COUNTING, "kind": "error", "probability": 0.03, "persistent": True}),
    (6, {"call": "events.PutEvents", "kind": "crash", "probability": 0.01}),
    (4, {"call": "events.PutEvents", "kind": "lost-answer", "probability": 0.01, "persistent": True}),
    *(
        (12, {"call": f"dynamodb.{write}", "kind": kind, "probability": 0.01})
        for write in ("PutItem", "UpdateItem", "TransactWriteItems")
        for kind in ("crash", "lost-answer")
    ),
)
"""Faults of rare calls: the approximate number of such calls per order, and the fault."""
STRIKES = 8
"""The approximate number of strikes of each of these faults in a short run."""
THROTTLES_LEFT = 0.2
"""The factor for the probability of throttling if each throttled call is throttled until the SDK gives up."""
RARE: Sequence[Mapping[str, Any]] = (
    {"call": "sqs.SendMessage", "kind": "error", "probability": 0.2, "persistent": True},
    {"call": "sqs.SendMessage", "kind": "crash", "probability": 0.2},
    {"call": "sqs.SendMessage", "kind": "lost-answer", "probability": 0.2},
)
"""Faults of calls that not every run makes: messages are sent only for events that failed permanently."""


def faults(seed_: int, orders: int, *, persistent: bool = False) -> dict[str, Any]:
    """Returns the faults in the format of the runner's fault file.

    Args:
        seed_: the seed of the run.
        orders: the number of orders; with few orders, rare faults get a higher probability.
        persistent: whether each fault of a call also strikes all retries by the SDK, except the faults of PutEvents
            entries, which the SDK does not retry.
    """
    seldom = [
        {**fault, "probability": max(fault["probability"], min(STRIKES / (occasions * orders), 0.5))}
        for occasions, fault in SELDOM
    ]
    drawn = [*OFTEN, *seldom, *RARE]
    return {"seed": seed_, "faults": list(map(_outlasting, drawn)) if persistent else drawn}


def _outlasting(fault: Mapping[str, Any]) -> Mapping[str, Any]:
    """Returns a fault that also strikes the SDK's retries, if there are any: it does not retry entries of PutEvents."""
    if str(fault.get("call")).partition(".")[0] not in ("dynamodb", "sqs") or fault["kind"] == "crash":
        return fault
    # Fewer throttles, because the SDK waits up to 7 s before it gives up
    share = THROTTLES_LEFT if fault["kind"] == "throttle" else 1
    return {**fault, "persistent": True, "probability": fault["probability"] * share}


def stretched(template: Path, folder: Path) -> Path:
    """Returns a copy of a template with longer time-outs, next to links to its code and its nested templates."""
    copy = folder / "template.yaml"
    longer = re.sub(
        r"(?m)^(\s+Timeout: )(\d+)", lambda found: f"{found[1]}{int(found[2]) * STRETCH}", template.read_text()
    )
    copy.write_text(longer)
    for name in ("functions", "layers", "infrastructure"):
        (folder / name).symlink_to(template.resolve().parent / name)
    return copy


# ----------------------------------------------------------------------------------------------- the clients


@dataclass(frozen=True)
class Order:
    """An order that a client places.

    Args:
        key: the Idempotency-Key.
        items: quantities by product id.
        promotion: the promotion code, if any.
        cancel: `at once`, concurrently with the reservation, `later`, once the order is settled, or None.
    """

    key: str
    items: Mapping[str, int]
    promotion: str | None
    cancel: str | None


def products(orders: int) -> list[dict[str, Any]]:
    """Returns the products: some with enough stock, others with too little for this number of orders."""
    return [
        {"productId": product_id, "name": name, "price": Decimal(price), "stock": stock}
        for product_id, name, price, stock in (
            ("CHAOS-PEN", "Pen", "2.50", 100_000),
            ("CHAOS-LAMP", "Lamp", "79.90", 100_000),
            ("CHAOS-DESK", "Desk", "1299.00", 100_000),
            ("CHAOS-PRINT", "Numbered print", "35.00", orders // 8),
            ("CHAOS-STAMP", "Rare stamp", "120.00", orders // 20),
        )
    ]


def plan(seed_: int, orders: int) -> list[Order]:
    """Returns the orders that the clients place, the same for the same seed."""
    chance = random.Random(seed_)  # noqa: S311 - repeatable, not for security
    return [_order(chance, f"chaos-{seed_}-{number}") for number in range(orders)]


def _order(chance: random.Random, key: str) -> Order:
    wanted = chance.choices(
        [["CHAOS-PEN"], ["CHAOS-PEN", "CHAOS-LAMP"], ["CHAOS-DESK"], ["CHAOS-LAMP", "CHAOS-PRINT"], ["CHAOS-STAMP"]],
        weights=[4, 4, 2, 3, 2],
    )[0]
    return Order(
        key=key,
        items={product: chance.randint(1, 3) for product in wanted},
        promotion=chance.choice([None, None, "SPRING10", "MAY-5"]),
        cancel=chance.choices(["at once", "later", None], weights=[1, 1, 8])[0],
    )


MAIL_DOMAIN = "mailbox-of-chaos.example"
ADDRESS = {
    "street": "77 Quillfeather Lane",
    "city": "Wobbleton-under-Chaos",
    "state": "Disarrayshire",
    "zipCode": "QX7 7ZV",
    "country": "GB",
}
PERSONAL = (MAIL_DOMAIN, *(ADDRESS[name] for name in ("street", "city", "state", "zipCode")))
"""Personal data of the customers. It is distinctive, so that it can be found in logs, which must not contain it."""


class Clients:
    """Clients that retry each request until it is answered. They call the API as staff, who can order for customers."""

    def __init__(self, api: Api) -> None:
        self._api = api

    def place(self, order: Order) -> Placed:
        """Places an order, and cancels it if its cancellation is due at once."""
        body = {
            "items": [{"productId": product, "quantity": quantity} for product, quantity in order.items.items()],
            "shippingAddress": ADDRESS,
            "source": "api",
            "customerId": order.key,
            "customerEmail": f"{order.key}@{MAIL_DOMAIN}",
            **({"promotionCode": order.promotion} if order.promotion else {}),
        }
        headers = {"content-type": "application/json", "idempotency-key": order.key}
        name, answer = self._until_answered("/orders", headers, json.dumps(body))
        if answer is None or answer.status != 201:
            return Placed(order.key, name)
        placed = Placed(order.key, name, answer.body["orderId"])
        return self._cancel(placed) if order.cancel == "at once" else placed

    def cancel_later(self, placed: Placed) -> Placed:
        """Cancels an order once it is settled, or after CANCEL_SECONDS."""
        deadline = time.monotonic() + CANCEL_SECONDS / TIME_SCALE
        while not self._is_settled(placed) and time.monotonic() < deadline:
            time.sleep(1)
        return self._cancel(placed)

    def _is_settled(self, placed: Placed) -> bool:
        try:
            answer = self._api.call("GET", f"/orders/{placed.order_id}", user="staff")
        except urllib3.exceptions.HTTPError:
            return False
        return answer.status == 200 and answer.body["status"] != "PENDING"

    def _cancel(self, placed: Placed) -> Placed:
        return replace(placed, cancellation=self._until_answered(f"/orders/{placed.order_id}/cancellation")[0])

    def _until_answered(
        self, path: str, headers: Mapping[str, str] | None = None, body: str | None = None
    ) -> tuple[str, Answer | None]:
        """Retries a POST, and returns its name, such as `201` or `409 not-cancellable`, and the last response."""
        deadline = time.monotonic() + ANSWER_SECONDS
        while True:
            answer: Answer | None = None
            try:
                answer = self._api.call("POST", path, user="staff", headers=headers, body=body)
                name = f"{answer.status} {str(answer.body.get('type', '')).rpartition('/')[2]}".strip()
            except urllib3.exceptions.HTTPError as error:
                name = type(error).__name__
            if not _worth_repeating(name, answer) or time.monotonic() > deadline:
                return name, answer
            time.sleep(0.1)


def _worth_repeating(name: str, answer: Answer | None) -> bool:
    if answer is None or answer.status == 429 or answer.status >= 500:
        return True
    return name in ("409 request-in-progress", "409 busy")


def send(clients: Clients, orders: Sequence[Order], on_answer: Callable[[], None]) -> list[Placed]:
    """Places and cancels the orders, CALLERS at a time."""

    def place(order: Order) -> Placed:
        placed = clients.place(order)
        on_answer()
        return placed

    with ThreadPoolExecutor(CALLERS) as callers:
        placed = list(callers.map(place, orders))
        return list(callers.map(lambda order, told: _later(clients, order, told), orders, placed))


def _later(clients: Clients, order: Order, placed: Placed) -> Placed:
    return clients.cancel_later(placed) if order.cancel == "later" and placed.order_id else placed


# --------------------------------------------------------------------------------------------- the operators


def hurry(stack: Stack) -> None:
    """Shortens the DLQ's visibility time-out, so that messages that could not be processed return sooner."""
    attributes = {"VisibilityTimeout": str(DLQ_SECONDS)}
    stack.client("sqs").set_queue_attributes(QueueUrl=stack.outputs[QUEUES["dead letters"]], Attributes=attributes)


class Operators:
    """Redrives failed events, as operators do."""

    def __init__(self, stack: Stack, api: Api) -> None:
        self._stack = stack
        self._api = api
        self.redrives: Counter[str] = Counter()
        self.redriven: list[reconcile.Item] = []
        self.remediated: set[str] = set()
        self.unparked = 0

    def redrive(self, failed: Iterable[reconcile.Item]) -> None:
        """Redrives the failed events that are not, or no longer, retried automatically.

        They are redriven one by one: the route for all of them runs out of time on a scaled clock.
        """
        for item in failed:
            record = item["id"]
            if not is_given_up(item) or record in self.remediated or self.redrives[record] >= REDRIVES:
                continue
            if not self.redrives[record]:
                self.redriven.append(item)
            self.redrives[record] += 1
            if "payload" in item:
                with suppress(urllib3.exceptions.HTTPError):  # no response: the next round reads the record again
                    self._api.call("POST", f"/admin/failed-events/{quote(record, safe='')}/redrive", user="staff")
            elif self._run_command(item.get("remediation", "")):
                self.remediated.add(record)

    def _run_command(self, command: str) -> bool:
        """Runs the command of a record, `make republish FROM=… TO=…`, and returns whether it succeeded."""
        window = re.fullmatch(r"make republish FROM=(\S+) TO=(\S+)", command)
        if window is None:
            return False
        try:
            republish(self._stack, None, Window(*map(datetime.fromisoformat, window.groups())))
        except RepublishError:
            return False
        return True

    def unpark(self, found: Snapshot) -> None:
        """Moves the messages that the DLQ processor could not process back to the DLQ."""
        if found.messages["parking"]:
            self.unparked += unpark(self._stack)


def read_mails(folder: Path) -> list[Mail]:
    """Returns the e-mails that SES accepted."""
    found = []
    parser = BytesHeaderParser(policy=email.policy.default)
    for file in sorted(folder.glob("*.eml")):
        mail = parser.parsebytes(file.read_bytes())
        tags = dict(tag.split("=", 1) for tag in str(mail["X-SES-MESSAGE-TAGS"]).split(", "))
        found.append(Mail(str(mail["To"]), tags["kind"], tags["event_id"]))
    return found


TIMED_OUT = re.compile(r"(\w+): Sandbox\.Timedout: \S+ (\S+) Task timed out")


def too_slow(runner_log: str, faults_: Iterable[reconcile.Item]) -> list[dict[str, str]]:
    """Returns the invocations that timed out without an injected fault, in the form of faults.

    Args:
        runner_log: the runner's output.
        faults_: the faults that struck.
    """
    on_purpose = {fault.get("request") for fault in faults_}
    timed_out = TIMED_OUT.findall(runner_log)
    return [{"kind": "too slow", "function": name} for name, request in timed_out if request not in on_purpose]


def read_strikes(log: Path) -> list[dict[str, Any]]:
    """Returns the faults that struck, each with `recovered`, whether a retry of the same call took effect.

    Args:
        log: the runner's faults.jsonl.
    """
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    recovered = {line["call_id"] for line in lines if line["kind"] == "recovered"}
    return [line | {"recovered": line.get("call_id") in recovered} for line in lines if line["kind"] != "recovered"]


class Observer:
    """Reads the state of a stack: what is stored, sent and waiting.

    Args:
        stack: a local stack.
        runner_log: the file with the runner's output.
    """

    def __init__(self, stack: Stack, runner_log: Path) -> None:
        if stack.mails is None:
            raise ValueError("the stack is not local")
        self._stack = stack
        self.state = stack.mails.parent
        self._runner_log = runner_log
        self._record = reconcile.BusRecord(stack)
        self._scan = reconcile.scanner(stack)
        self._sqs = stack.client("sqs")
        self._bus_events: list[dict[str, Any]] = []

    def look(self, placed: Sequence[Placed], initial: Mapping[str, int], operators: Operators) -> Snapshot:
        """Returns everything that `tests.chaos.check.check` needs."""
        self._bus_events += self._record.new()
        struck_ = read_strikes(self.state / "faults.jsonl")
        return Snapshot(
            placed=placed,
            initial=initial,
            orders=self._table("OrdersTableName"),
            inventory=self._table("InventoryTableName"),
            analytics=self._table("AnalyticsTableName"),
            failed_events=self._table("FailedEventsTableName"),
            remediated=frozenset(operators.remediated),
            redriven=tuple(operators.redriven),
            bus_events=tuple(self._bus_events),
            mails=read_mails(self.state / "mail"),
            faults=[*struck_, *too_slow(self._runner_log.read_text(), struck_)],
            messages={queue: self._messages(output) for queue, output in QUEUES.items()},
        )

    def _table(self, output: str) -> list[dict[str, Any]]:
        return reconcile.read_table(self._scan, self._stack.outputs[output])

    def _messages(self, output: str) -> int:
        """Returns the number of messages in a queue: visible, in flight and delayed."""
        names = [f"ApproximateNumberOfMessages{state}" for state in ("", "NotVisible", "Delayed")]
        answer = self._sqs.get_queue_attributes(QueueUrl=self._stack.outputs[output], AttributeNames=names)
        return sum(map(int, answer["Attributes"].values()))


def leaks(logs: Path) -> list[str]:
    """Returns the functions whose logs contain personal data of the customers.

    Args:
        logs: the folder with a file per function.
    """
    found = {
        file.stem: personal_data_in(file.read_text().splitlines(), PERSONAL) for file in sorted(logs.glob("*.log"))
    }
    return [
        f"log {name}: {len(lines)} lines with personal data, first {lines[0]}" for name, lines in found.items() if lines
    ]


def settle(look: Callable[[], Snapshot], operators: Operators, time_scale: float) -> Snapshot:
    """Redrives failed events until the stack does not change any more, or for SETTLE_SECONDS, and returns its state."""
    begun = changed = time.monotonic()
    found = look()
    while True:
        operators.unpark(found)
        operators.redrive(found.failed_events)
        time.sleep(1)
        before, found = found, look()
        now = time.monotonic()
        if _progress(found) != _progress(before):
            changed = now
        patience = (STUCK_SECONDS if any(found.messages.values()) else QUIET_SECONDS) / time_scale
        if now - changed > patience or now - begun > SETTLE_SECONDS:
            return found


def _progress(found: Snapshot) -> tuple[Any, ...]:
    """Returns values that change with each event, e-mail, count and message."""
    return (
        sum(len(item.get("events", ())) for item in (*found.orders, *found.inventory)),
        sorted((item["id"], item["version"]) for item in found.failed_events),
        len(found.analytics),
        len(found.bus_events),
        len(found.mails),
        found.messages,
    )


# -------------------------------------------------------------------------------------------------- the run


def show(found: Snapshot, operators: Operators, seconds: Mapping[str, float]) -> None:
    """Prints the counts."""
    table = Table("what", "which", "number", title="Chaos")
    table.columns[2].justify = "right"
    bus_events = Counter(event["detail"]["metadata"]["eventId"] for event in found.bus_events)
    counts: dict[str, Mapping[str, float]] = {
        "faults": {" ".join(kind): number for kind, number in struck(found.faults).items()},
        "orders by status": Counter(order["status"] for order in found.orders),
        "cancellations by response": Counter(told.cancellation for told in found.placed if told.cancellation),
        "events": {"stored": len(bus_events), "published again": bus_events.total() - len(bus_events)},
        "failed events": Counter(
            f"{item['consumer']}, {item['kind']}, {item['reason']}: {item['status']} {_by_whom(item, operators)}"
            for item in found.failed_events
        ),
        "manual": {
            "redrives": operators.redrives.total(),
            "commands": len(operators.remediated),
            "unparked": operators.unparked,
        },
        "mails": {
            **Counter(mail.kind for mail in found.mails),
            "sent again": len(found.mails) - len(set(found.mails)),
        },
        "seconds": {name: round(number) for name, number in seconds.items()},
    }
    for what, by_which in counts.items():
        for which, number in sorted(by_which.items()):
            table.add_row(what, which, f"{number:,}")
    Console().print(table)


def _by_whom(failed: reconcile.Item, operators: Operators) -> str:
    return "manually" if operators.redrives[failed["id"]] else "automatically"


def run(seed_: int, orders: int, template: Path, evidence: Path, *, persistent: bool) -> int:
    """Runs the check on a temporary local stack.

    Args:
        seed_: the seed of the plan and of the faults. The order of threads differs from run to run, so the faults
            strike different calls.
        orders: the number of orders.
        template: the SAM template.
        evidence: the folder for the logs of a run with violations.
        persistent: whether the faults of calls outlast the SDK's retries.

    Returns:
        The exit code: 0, or 1 if there are violations.
    """
    wanted, sold, file = plan(seed_, orders), products(orders), faults(seed_, orders, persistent=persistent)
    enough = ENOUGH_ORDERS / THROTTLES_LEFT if persistent else ENOUGH_ORDERS
    initial = {product["productId"]: product["stock"] for product in [*sold, *read_seed()]}
    with tempfile.TemporaryDirectory(prefix="chaos-") as folder:
        switch = Path(folder, "faults.json")
        switch.write_text(json.dumps(file))
        runner_log = Path(folder, "runner.log")
        timing = ("--time-scale", str(TIME_SCALE), "--template", stretched(template, Path(folder)))
        with (
            runner_log.open("w") as output,
            local_stack_of_own("--fault", switch, *timing, output=output) as stack,
            Progress() as progress,
        ):
            begun = time.monotonic()
            seed(stack, sold)
            api = Api(stack, CALLERS)
            operators, observer = Operators(stack, api), Observer(stack, runner_log)
            hurry(stack)
            sending = progress.add_task("orders sent", total=orders)
            placed = send(Clients(api), wanted, lambda: progress.advance(sending))
            sent = time.monotonic()
            switch.unlink()  # stops the faults
            found = settle(lambda: observer.look(placed, initial, operators), operators, TIME_SCALE)
            settled = time.monotonic()
            violations = [*check(found), *leaks(observer.state / "logs")]
            violations += missing(file, found) if orders >= enough else []
            if violations:
                keep(observer.state, runner_log, evidence)
    show(found, operators, {"sending": sent - begun, "settling": settled - sent})
    return _report(seed_, violations, evidence)


def keep(state: Path, runner_log: Path, folder: Path) -> None:
    """Copies the logs, faults and e-mails of a run, for troubleshooting."""
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(state, folder)
    shutil.copy(runner_log, folder)


def missing(file: Mapping[str, Any], found: Snapshot) -> list[str]:
    """Returns a violation for each kind of fault that never struck, except the rare ones."""
    needed = struck(fault for fault in file["faults"] if not _is_rare(fault))
    return [f"fault {' '.join(kind)}: never struck" for kind in sorted(needed.keys() - struck(found.faults))]


def _is_rare(fault: Mapping[str, Any]) -> bool:
    return fault.get("call") in {rare["call"] for rare in RARE}


def _report(seed_: int, violations: Sequence[str], evidence: Path) -> int:
    console = Console(highlight=False, soft_wrap=True)
    for line in violations:
        console.print(f"[red]violation[/] {escape(line)}")
    if violations:
        console.print(f"[red]seed {seed_}: {len(violations)} violations[/], their logs are in {evidence}")
        return 1
    console.print(f"[green]seed {seed_}: nothing was lost, and nothing was done twice[/]")
    return 0


def main(arguments: list[str] | None = None) -> int:
    """`python -m tests.chaos.run [--seed N] [--orders N] [--persistent]`."""
    parser = Parser(prog="python -m tests.chaos.run", description=__doc__)
    parser.add_argument("--seed", type=int, default=None, help="seed of the random numbers; default: a new one")
    parser.add_argument("--orders", type=int, default=500)
    parser.add_argument("--persistent", action="store_true", help="faults of calls outlast the SDK's retries")
    parser.add_argument("--template", type=Path, default=Path("template.yaml"))
    parser.add_argument(
        "--evidence", type=Path, default=Path(".local/chaos"), help="folder for the logs of a failed run"
    )
    options = parser.parse_args(arguments)
    if options.orders < 1:
        parser.error("--orders must be at least 1")
    seed_ = random.SystemRandom().randrange(10**6) if options.seed is None else options.seed
    print(f"seed {seed_}: {options.orders} orders{', all faults outlast the SDK' if options.persistent else ''}")
    try:
        return run(seed_, options.orders, options.template, options.evidence, persistent=options.persistent)
    except StackDidNotStart as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130  # the exit code of a command that was ended by Ctrl-C


if __name__ == "__main__":
    sys.exit(main())
