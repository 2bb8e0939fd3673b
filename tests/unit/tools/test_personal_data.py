"""The check that no log line contains personal data."""

import json

import pytest

from tools.personal_data import personal_data_in

PERSONAL = ("ada.lovelace@example.com", "Åkergränd 7")


@pytest.mark.parametrize(
    "line",
    [
        '{"message": "mail sent to ada.lovelace@example.com"}',
        '{"message": "mail sent", "to": "<Ada.Lovelace@Example.com>"}',
        json.dumps({"street": "Åkergränd 7"}, ensure_ascii=False),
        json.dumps({"street": "Åkergränd 7"}),
        json.dumps({"body": json.dumps({"street": "Åkergränd 7"})}),
        "Traceback: ValueError: åkergränd 7",
    ],
)
def test_a_line_with_personal_data_is_found_however_it_is_written(line: str) -> None:
    assert personal_data_in(["before", line, "after"], PERSONAL) == [line]


def test_lines_without_personal_data_are_not_found() -> None:
    assert personal_data_in(["mail sent", '{"order_id": "ORD-1", "domain": "example.com"}'], PERSONAL) == []
