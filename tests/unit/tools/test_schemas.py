"""The schema tool converts models to draft 4, names incompatible changes and refuses to publish them."""

import copy
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import pytest
from pydantic import Field

from orderflow.contracts import ContractModel, Money, OrderPlacedDetail
from tools.schemas import FOLDER, TEMPLATE, Schema, changes, draft4, main, refusals, schema_of

PLACED = schema_of("orders.service", "Order Placed", OrderPlacedDetail)


def at(content: dict[str, Any], path: str) -> dict[str, Any]:
    """The part of a schema that describes a field."""
    for name in path.split("."):
        content = content["properties"][name.removesuffix("[]")]
        content = content["items"] if name.endswith("[]") else content
    return content


def changed(path: str, change: Callable[[dict[str, Any]], Any]) -> Schema:
    """The schema of Order Placed, changed at a field."""
    content = copy.deepcopy(PLACED.content)
    change(at(content, path))
    return replace(PLACED, content=content)


def add(name: str, *, required: bool) -> Callable[[dict[str, Any]], Any]:
    def change(schema: dict[str, Any]) -> None:
        schema["properties"][name] = {"type": "string"}
        schema["required"] += [name] if required else []

    return change


class Part(ContractModel):
    """A part."""

    unit_price: Money


class Whole(ContractModel):
    """Something."""

    first_part: Part
    parts: tuple[Part, ...] = Field(min_length=1)
    kind: Literal["a"]
    note: str | None = None


class Unknown(ContractModel):
    """With a keyword that draft 4 does not have."""

    above: int = Field(gt=0)


class TestDraft4:
    def test_a_model_becomes_one_draft_4_schema(self) -> None:
        generated = Whole.model_json_schema()
        money = {"description": "An amount of money with at most two decimal places.", "type": "number", "minimum": 0}
        part = {
            "description": "A part.",
            "type": "object",
            "properties": {"unitPrice": money},
            "required": ["unitPrice"],
        }
        assert draft4(generated, generated["$defs"]) == {
            "description": "Something.",
            "type": "object",
            "properties": {
                "firstPart": part,
                "parts": {"type": "array", "minItems": 1, "items": part},
                "kind": {"type": "string", "enum": ["a"]},
                "note": {"type": "string"},
            },
            "required": ["firstPart", "parts", "kind"],
        }

    def test_an_unknown_keyword_is_an_error_and_is_not_omitted(self) -> None:
        with pytest.raises(ValueError, match="exclusiveMinimum"):
            draft4(Unknown.model_json_schema(), {})

    def test_the_schema_is_named_as_eventbridge_names_events_and_by_its_version(self) -> None:
        assert PLACED.name == "orders.service@OrderPlaced.v1.0"


class TestChanges:
    @pytest.mark.parametrize(
        ("path", "change", "message"),
        [
            (
                "detail.metadata",
                lambda schema: schema["properties"].pop("sequence"),
                "detail.metadata.sequence is removed",
            ),
            (
                "detail.metadata",
                lambda schema: schema["required"].append("promotionCode"),
                "detail.metadata.promotionCode becomes required",
            ),
            ("detail", lambda schema: schema["required"].remove("currency"), "detail.currency becomes optional"),
            ("detail", add("channel", required=True), "detail.channel is new and required"),
            (
                "detail.items[].quantity",
                lambda schema: schema.update(type="number"),
                "detail.items[].quantity type was integer, is number",
            ),
            (
                "detail.metadata.source",
                lambda schema: schema["enum"].remove("api"),
                "detail.metadata.source enum was ['web', 'mobile', 'api'], is ['web', 'mobile']",
            ),
            (
                "detail.currency",
                lambda schema: schema.update(pattern="^USD$"),
                "detail.currency pattern was ^[A-Z]{3}$, is ^USD$",
            ),
            (
                "detail.customerId",
                lambda schema: schema.update(maxLength=10),
                "detail.customerId maxLength was None, is 10",
            ),
            (
                "detail.items",
                lambda schema: schema.pop("items"),
                "detail.items[] type was object, is None",
            ),
        ],
    )
    @pytest.mark.parametrize("minor", [0, 1])
    def test_a_change_that_breaks_needs_a_new_major_version_and_names_the_field(
        self, path: str, change: Callable[[dict[str, Any]], Any], message: str, minor: int
    ) -> None:
        newer = replace(changed(path, change), minor=minor)
        line = f"orders.service@OrderPlaced.v1.0: {message}: raise the major version"
        assert line in refusals([PLACED], [newer])
        assert refusals([PLACED], [replace(newer, major=2)]) == []

    def test_an_optional_field_needs_a_new_minor_version(self) -> None:
        newer = changed("detail.metadata", add("channel", required=False))
        assert refusals([PLACED], [newer]) == [
            "orders.service@OrderPlaced.v1.0: detail.metadata.channel is new and optional: raise the minor version"
        ]
        assert refusals([PLACED], [replace(newer, minor=1)]) == []

    def test_the_schema_of_another_event_is_ignored(self) -> None:
        newer = replace(changed("detail", lambda schema: schema.clear()), event="orders.service@OrderShipped")
        assert refusals([PLACED], [newer]) == []

    def test_a_description_may_change(self) -> None:
        better = changed("detail.metadata", lambda schema: schema.update(description="Better."))
        assert list(changes(PLACED.content, better.content)) == []


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A project whose schemas are written."""
    assert main([], tmp_path) == 0
    return tmp_path


def contents(root: Path) -> dict[Path, str]:
    return {path: path.read_text() for path in root.rglob("*.*") if path.is_file()}


class TestMain:
    def test_written_files_pass_the_check_and_are_written_once(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert main([], tmp_path) == 0
        assert f"written: {tmp_path / FOLDER / PLACED.name}.json\n" in capsys.readouterr().out
        assert main(["--check"], tmp_path) == 0
        assert main([], tmp_path) == 0
        assert capsys.readouterr() == ("", "")

    @pytest.mark.parametrize("name", [FOLDER / f"{PLACED.name}.json", TEMPLATE])
    def test_a_file_that_differs_from_the_models_fails_the_check_by_name_and_is_rewritten(
        self, root: Path, name: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        (root / name).write_text((root / name).read_text().replace(PLACED.content["description"], "Was it?"))
        assert main(["--check"], root) == 1
        assert f"error: {root / name} is outdated: run make schemas\n" in capsys.readouterr().err
        assert main([], root) == 0
        assert PLACED.content["description"] in (root / name).read_text()

    def test_a_schema_that_breaks_a_published_one_is_not_written(
        self, root: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        published = changed("detail", add("channel", required=True))
        (root / FOLDER / f"{PLACED.name}.json").write_text(published.text)
        before = contents(root)
        for arguments in ([], ["--check"]):
            assert main(arguments, root) == 1
            expected = f"error: {PLACED.name}: detail.channel is removed: raise the major version\n"
            assert capsys.readouterr().err == expected
        assert contents(root) == before

    def test_earlier_versions_stay_published(self, root: Path) -> None:
        earlier = replace(changed("detail", add("channel", required=True)), major=0, minor=9)
        path = root / FOLDER / f"{earlier.name}.json"
        path.write_text(earlier.text)
        assert main([], root) == 0
        assert json.loads(path.read_text()) == earlier.content
        assert f"SchemaName: {earlier.name}\n" in (root / TEMPLATE).read_text()
        assert f"SchemaName: {PLACED.name}\n" in (root / TEMPLATE).read_text()
