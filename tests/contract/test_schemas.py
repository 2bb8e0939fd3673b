"""The published schemas match the models, the composed events, the samples and the patterns of the rules."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from jsonschema import Draft4Validator  # type: ignore[import-untyped]

from localaws.event_pattern import EventPattern
from orderflow.events import Item, OrderMetadata, StoredEvent
from tests.contract.source import source
from tests.contract.test_producers import PRODUCERS, items, last_detail, metadata, placed
from tests.contract.test_rules import RULES, rules
from tools.schemas import FOLDER, TEMPLATE, Schema, committed, from_models, refusals, stale

ROOT = Path(__file__).parents[2]
MODELS = {schema.event: schema for schema in from_models()}
SCHEMAS = {schema.name: schema for schema in committed(ROOT)}
SAMPLES = {path.stem: json.loads(path.read_text()) for path in sorted((ROOT / FOLDER / "samples").glob("*.json"))}


def errors(schema: Schema, event: Any) -> list[str]:
    validator = Draft4Validator(schema.content, format_checker=Draft4Validator.FORMAT_CHECKER)
    return [f"{error.json_path} {error.message}" for error in validator.iter_errors(event)]


def resources() -> dict[str, Any]:
    found: dict[str, Any] = source(str(TEMPLATE))["Resources"]
    return found


def test_the_committed_files_are_generated_from_the_models() -> None:
    assert list(stale(ROOT, MODELS.values())) == []


def test_the_models_are_compatible_with_the_published_schemas() -> None:
    assert refusals(SCHEMAS.values(), MODELS.values()) == []


@pytest.mark.parametrize("name", SCHEMAS)
def test_a_schema_is_valid_draft_4(name: str) -> None:
    Draft4Validator.check_schema(SCHEMAS[name].content)


def test_every_schema_is_in_the_registry() -> None:
    found = [found["Properties"] for found in resources().values() if found["Type"] == "AWS::EventSchemas::Schema"]
    assert {schema["SchemaName"]: json.loads(schema["Content"]) for schema in found} == {
        name: schema.content for name, schema in SCHEMAS.items()
    }


def test_every_schema_has_a_sample() -> None:
    assert set(SAMPLES) == set(SCHEMAS)


@pytest.mark.parametrize("name", SAMPLES)
def test_a_sample_is_valid_under_every_minor_version(name: str) -> None:
    own = SCHEMAS[name]
    same_major = [schema for schema in SCHEMAS.values() if (schema.event, schema.major) == (own.event, own.major)]
    assert [error for schema in same_major for error in errors(schema, SAMPLES[name])] == []


@pytest.mark.parametrize("name", SAMPLES)
def test_a_consumer_may_validate_events_of_later_minor_versions(name: str) -> None:
    sample = SAMPLES[name]
    later = {**sample["detail"], "version": f"{SCHEMAS[name].major}.99", "somethingNew": 1}
    assert errors(SCHEMAS[name], {**sample, "detail": later}) == []


@pytest.mark.parametrize("name", SAMPLES)
def test_a_schema_rejects_other_events(name: str) -> None:
    sample = SAMPLES[name]
    detail = sample["detail"]
    for wrong in (
        {**sample, "source": "somebody.else"},
        {**sample, "detail-type": "Order Shipped"},
        {**sample, "detail": {**detail, "version": f"{SCHEMAS[name].major + 1}.0"}},
        {**sample, "detail": {**detail, "totalAmount": "159.80"}},
        {**sample, "detail": {key: value for key, value in detail.items() if key != "metadata"}},
        {**sample, "detail": {**detail, "metadata": {**detail["metadata"], "promotionCode": None}}},
        {**sample, "detail": {**detail, "metadata": {**detail["metadata"], "timestamp": "yesterday"}}},
    ):
        assert len(errors(SCHEMAS[name], wrong)) == 1


@pytest.mark.parametrize(("source", "detail_type", "produce"), PRODUCERS)
@settings(max_examples=10)  # for each of the producers
@given(ordered=items, how=metadata)
def test_a_published_event_is_valid(
    source: str,
    detail_type: str,
    produce: Callable[[StoredEvent], list[StoredEvent]],
    ordered: list[Item],
    how: OrderMetadata,
) -> None:
    schema = MODELS[f"{source}@{detail_type.replace(' ', '')}"]
    _, detail = last_detail(source, produce(placed(ordered, how)))
    assert errors(schema, {**SAMPLES[schema.name], "detail": json.loads(detail)}) == []


@pytest.mark.parametrize("name", RULES)
def test_a_rule_matches_the_samples_of_its_events_and_no_others(name: str) -> None:
    pattern, wanted = EventPattern(rules()[name].pattern), RULES[name]
    replay = {} if None in wanted.replays else {"replay-name": next(iter(wanted.replays))}
    matched = {key for key, sample in SAMPLES.items() if pattern.matches(sample | replay)}
    assert matched == {
        key for key, sample in SAMPLES.items() if (sample["source"], sample["detail-type"]) in wanted.events
    }
