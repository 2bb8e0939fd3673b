"""`make alerts` shows what the topics of a local stack have published, as often as it is called."""

from collections.abc import Iterator

import pytest
from moto import mock_aws

from tools import alerts
from tools.stack import Stack


@pytest.fixture
def stack(monkeypatch: pytest.MonkeyPatch) -> Iterator[Stack]:
    """A prepared stack in moto."""
    for name in ("ACCESS_KEY_ID", "SECRET_ACCESS_KEY"):
        monkeypatch.setenv(f"AWS_{name}", "test")
    with mock_aws():
        topics = Stack("", {}, "us-east-1").client("sns")
        arns = {name: topics.create_topic(Name=name)["TopicArn"] for name in alerts.TOPICS}
        found = Stack("http://api", arns, "us-east-1")
        alerts.record_alerts(found)
        monkeypatch.setattr(alerts, "find", lambda _: found)
        yield found


def test_all_alerts_and_reports_are_shown_again_at_each_call(stack: Stack, capsys: pytest.CaptureFixture[str]) -> None:
    for number in range(12):  # more than one response of ReceiveMessage contains
        stack.client("sns").publish(
            TopicArn=stack.outputs["AlertTopicArn"], Subject=f"Alert {number}", Message="a\n\nb"
        )
    stack.client("sns").publish(TopicArn=stack.outputs["SalesReportTopicArn"], Subject="Sales", Message="c")

    outputs = [(alerts.main([]), capsys.readouterr().out) for _ in range(2)]

    assert outputs[0] == outputs[1]
    code, text = outputs[0]
    assert code == 0
    assert all(f"Z  Alert {number}\n    a\n\n    b\n" in text for number in range(12))
    assert "Z  Sales\n    c\n" in text


@pytest.mark.usefixtures("stack")
def test_without_alerts_it_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    assert alerts.main([]) == 0
    assert capsys.readouterr().out == "no alert and no sales report was published\n"


def test_for_a_deployed_stack_it_says_how_to_subscribe(stack: Stack, capsys: pytest.CaptureFixture[str]) -> None:
    assert alerts.main(["--stack", "shop"]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert f"aws sns subscribe --topic-arn {stack.outputs['AlertTopicArn']} --protocol email" in line
