"""Event patterns: matching events, other events, and invalid patterns."""

import json
import operator
import re
from typing import Any

import pytest
from botocore.exceptions import ClientError
from hypothesis import assume, given
from hypothesis import strategies as st

from localaws.event_pattern import EventPattern, InvalidEventPattern
from localaws.store import Store

Json = Any


def matches(matcher: Json, value: Json) -> bool:
    """Returns whether a matcher matches a field with this value."""
    return EventPattern({"detail": {"field": [matcher]}}).matches({"detail": {"field": value}})


# One row: the matcher, values it matches, values it doesn't.
OPERATORS: dict[str, tuple[Json, list[Json], list[Json]]] = {
    "exact string": ("a", ["a"], ["A", "ab", "", 1, None, True]),
    "empty string": ("", [""], [" ", None, 0, False]),
    "exact number": (300, [300, 300.0, 3.0e2], [301, "300", True, None]),
    "number one is not true": (1, [1, 1.0], [True, "1"]),
    "zero is not false": (0, [0, -0.0], [False, None, ""]),
    "every digit of a number counts": (0.3, [0.3, 0.30], [0.1 + 0.2, 0.3000001, 0.29]),
    "large number": (1700000000000, [1700000000000, 1.7e12], [1700000000001, "1700000000000"]),
    "number with more digits than a double": (2**70 + 1, [2**70 + 1], [2**70, float(2**70), "1"]),
    "number larger than a double": (10**400, [10**400], [10**400 + 1, 0]),
    "true": (True, [True], [False, 1, "true", None]),
    "false": (False, [False], [True, 0, "", None]),
    "null": (None, [None], ["", "null", 0, False]),
    "prefix": ({"prefix": "eu-"}, ["eu-west-1", "eu-"], ["EU-west-1", "us-eu-", "eu", 1, None, True]),
    "empty prefix": ({"prefix": ""}, ["", "a"], [1, None]),
    "prefix, any case": ({"prefix": {"equals-ignore-case": "Eu-"}}, ["eU-west", "EU-"], ["us-eu-", 1, None]),
    "suffix": ({"suffix": ".png"}, ["a.png", ".png"], ["a.PNG", "a.png.bak", 1, None, False]),
    "suffix, any case": ({"suffix": {"equals-ignore-case": ".Png"}}, ["a.pNG"], ["a.png.bak", 1, None]),
    "equals-ignore-case": ({"equals-ignore-case": "Alice"}, ["alice", "ALICE"], ["alice ", "al", 1, None]),
    "equals-ignore-case with an empty string": ({"equals-ignore-case": ""}, [""], ["a", None]),
    "wildcard": ({"wildcard": "dir/*.png"}, ["dir/a.png", "dir/.png", "dir/b/a.png"], ["dir/a.jpg", "a.png", 1, None]),
    "wildcard, parts overlap": ({"wildcard": "ab*ba"}, ["abba", "abxba"], ["aba", "ab"]),
    "wildcard, middle part overlaps the end": ({"wildcard": "a*b*b"}, ["abb", "a-b-b"], ["ab", "a", "bab"]),
    "wildcard, the same part twice": ({"wildcard": "*b*b*"}, ["bb", "abcb"], ["b", "abc"]),
    "wildcard at both ends": ({"wildcard": "*/lib/*"}, ["/lib/", "a/lib/b\nc"], ["lib", "/lib"]),
    "wildcard alone": ({"wildcard": "*"}, ["", "a", "*"], [1, None]),
    "wildcard without a star": ({"wildcard": "abc"}, ["abc"], ["abcd", "ab"]),
    "wildcard, escaped star": ({"wildcard": r"a\**"}, ["a*", "a*b"], ["a", "ab"]),
    "wildcard, escaped backslash": ({"wildcard": "\\\\*"}, ["\\", "\\a"], ["a", "a\\"]),
    "numeric =": ({"numeric": ["=", 3.018e2]}, [301.8], [301.7, "301.8", None, True]),
    "numeric <": ({"numeric": ["<", 10]}, [9.999999, -5e9 - 1, -1e300], [10, 11, "9", None, False]),
    "numeric <=": ({"numeric": ["<=", 10]}, [10, 10.0, 9], [10.000001]),
    "numeric >": ({"numeric": [">", 0]}, [1e-320, 5e9 + 1, 1e300], [0, -0.0, -1, "1", True, 10**400]),
    "numeric > a time in milliseconds": ({"numeric": [">", 1700000000000]}, [1700000000001], [1700000000000, 1]),
    "numeric >=": ({"numeric": [">=", 0]}, [0, 5_000_000_000], [-0.000001]),
    "numeric range, open below": ({"numeric": [">", 0, "<=", 5]}, [0.5, 5], [0, 5.1]),
    "numeric range, open above": ({"numeric": [">=", 0, "<", 5]}, [0, 4.9], [-1, 5]),
    "cidr of IPv4": ({"cidr": "10.0.0.0/24"}, ["10.0.0.0", "10.0.0.255"], ["10.0.1.0", "10.0.0", "a", "::1", 1, None]),
    "cidr counts from its floor": ({"cidr": "10.0.0.77/24"}, ["10.0.0.1"], ["10.0.1.77"]),
    "cidr of IPv6": ({"cidr": "2001:db8::/32"}, ["2001:db8::1", "2001:0DB8:0:0::1"], ["2001:db9::", "10.0.0.1"]),
    "exists": ({"exists": True}, ["", 0, False, None, "a", [None]], [{}, {"nested": 1}, [], [[]]]),
    "exists: false": ({"exists": False}, [{}, {"nested": 1}, [], [{}]], ["", 0, False, None, "a", [None]]),
    "anything-but a string": ({"anything-but": "a"}, ["b", "A", "", 1, None, True], ["a", {}, []]),
    "anything-but a number": ({"anything-but": 0}, [1, "0", None, False, 123456789012], [0, 0.0]),
    "anything-but strings": ({"anything-but": ["a", "b"]}, ["c", 1, None], ["a", "b"]),
    "anything-but numbers": ({"anything-but": [100, 200]}, [300, "100", None], [100.0, 200]),
    "anything-but prefix": ({"anything-but": {"prefix": "us-"}}, ["eu-us-", "US-", 1, None], ["us-", "us-east-1"]),
    "anything-but prefixes": ({"anything-but": {"prefix": ["us-", "eu-"]}}, ["ap-", 1], ["us-1", "eu-1"]),
    "anything-but suffix": ({"anything-but": {"suffix": ".png"}}, ["a.jpg", 1, None], ["a.png"]),
    "anything-but suffixes": ({"anything-but": {"suffix": [".png", ".jpg"]}}, ["a.gif"], ["a.png", "a.jpg"]),
    "anything-but, any case": ({"anything-but": {"equals-ignore-case": "New"}}, ["newer", None, 1], ["new", "NEW"]),
    "anything-but several, any case": ({"anything-but": {"equals-ignore-case": ["a", ""]}}, ["b"], ["A", ""]),
    "anything-but wildcard": ({"anything-but": {"wildcard": "*/lib/*"}}, ["/bin/a", 1, None], ["/lib/a"]),
    "anything-but wildcards": ({"anything-but": {"wildcard": ["*.a", "b.*"]}}, ["c.b"], ["c.a", "b.c"]),
    "anything-but an empty wildcard": ({"anything-but": {"wildcard": ""}}, ["a", None], [""]),
}


@pytest.mark.parametrize(("matcher", "wanted", "unwanted"), OPERATORS.values(), ids=OPERATORS.keys())
def test_operator_matches_the_values_it_describes_and_no_others(
    matcher: Json, wanted: list[Json], unwanted: list[Json]
) -> None:
    assert [value for value in wanted if not matches(matcher, value)] == []
    assert [value for value in unwanted if matches(matcher, value)] == []


MISSING_UNMATCHED = [matcher for matcher, _, _ in OPERATORS.values() if matcher != {"exists": False}]


@pytest.mark.parametrize("matcher", MISSING_UNMATCHED, ids=str)
def test_missing_field_is_matched_by_exists_false_only(matcher: Json) -> None:
    pattern = EventPattern({"detail": {"field": [matcher]}})

    assert not pattern.matches({"detail": {"other": "a"}})
    assert not pattern.matches({})
    assert EventPattern({"detail": {"field": [matcher, {"exists": False}]}}).matches({})


# One row: pattern, events it matches, events it doesn't.
STRUCTURES: dict[str, tuple[Json, list[Json], list[Json]]] = {
    "all fields must match": (
        {"source": ["orders"], "detail": {"state": ["new"]}},
        [{"source": "orders", "detail": {"state": "new", "more": 1}, "more": 1}],
        [{"source": "orders", "detail": {"state": "old"}}, {"source": "orders"}, {"detail": {"state": "new"}}],
    ),
    "any value of a field may match": (
        {"state": ["new", {"prefix": "re"}, None]},
        [{"state": "new"}, {"state": "reopened"}, {"state": None}],
        [{"state": "old"}, {}],
    ),
    "names are exact": ({"State": ["new"]}, [{"State": "new"}], [{"state": "new"}]),
    "text that holds JSON is text": ({"detail": {"a": [1]}}, [{"detail": {"a": 1}}], [{"detail": '{"a": 1}'}]),
    "an event's array matches by any of its elements": (
        {"tags": ["a", "b"]},
        [{"tags": ["x", "b"]}, {"tags": [["x"], ["a"]]}],
        [{"tags": ["x"]}, {"tags": []}],
    ),
    "anything-but needs one element that is not excluded": (
        {"tags": [{"anything-but": ["a", "b"]}]},
        [{"tags": ["a", "x"]}],
        [{"tags": ["a", "b"]}, {"tags": []}],
    ),
    "null is not an empty array": ({"tags": [None]}, [{"tags": [None]}], [{"tags": []}]),
    "fields of one object in an array must match together": (
        {"people": {"first": ["Anna"], "last": ["Jones"]}},
        [
            {"people": [{"first": "John", "last": "Doe"}, {"first": "Anna", "last": "Jones"}]},
            {"people": [[{"first": "John"}], [{"first": "Anna", "last": "Jones"}]]},
            {"people": {"first": "Anna", "last": "Jones"}},
        ],
        [
            {"people": [{"first": "Anna", "last": "Smith"}, {"first": "Peter", "last": "Jones"}]},
            {"people": [[{"first": "Anna"}], [{"last": "Jones"}]]},
            {"people": [[{"first": "Anna"}, {"last": "Jones"}]]},
        ],
    ),
    "objects deeper in an array must match together": (
        {"items": {"sku": ["a"], "stock": {"place": ["x"], "count": [0]}}},
        [{"items": [{"sku": "a", "stock": [{"place": "y", "count": 0}, {"place": "x", "count": 0}]}]}],
        [
            {"items": [{"sku": "a", "stock": [{"place": "x", "count": 1}, {"place": "y", "count": 0}]}]},
            {"items": [{"sku": "a"}, {"sku": "b", "stock": [{"place": "x", "count": 0}]}]},
        ],
    ),
    "different arrays match independently": (
        {"a": {"x": [1]}, "b": {"x": [2]}},
        [{"a": [{"x": 1}, {"x": 0}], "b": [{"x": 0}, {"x": 2}]}],
        [{"a": [{"x": 1}], "b": [{"x": 1}]}],
    ),
    "an object in an array may lack a field that another has": (
        {"items": {"sku": ["a"], "state": [{"exists": False}]}},
        [{"items": [{"sku": "a", "state": "sold"}, {"sku": "a"}]}],
        [{"items": [{"sku": "a", "state": "sold"}, {"sku": "b"}]}],
    ),
    "exists: false that comes first by name is about all objects of an array": (
        {"items": {"owner": [{"exists": False}], "sku": ["a"]}},
        [{"items": [{"sku": "a"}, {"sku": "b"}]}],
        [{"items": [{"sku": "a"}, {"sku": "b", "owner": "me"}]}],
    ),
    "a dot in a name joins names": (
        {"detail": {"state.status": ["running"]}},
        [{"detail": {"state": {"status": "running"}}}, {"detail": {"state.status": "running"}}],
        [{"detail": {"state.status": {"status": "running"}}}, {"detail": {"state": "running"}}],
    ),
    "an empty name is a name": ({"": {"": [1]}}, [{"": {"": 1}}], [{"": 1}, {"": {"a": 1}}]),
    "$or is joined to its siblings by and": (
        {"source": ["metrics"], "$or": [{"name": ["cpu"]}, {"space": ["ec2"], "kind": [1]}]},
        [{"source": "metrics", "name": "cpu"}, {"source": "metrics", "space": "ec2", "kind": 1}],
        [{"source": "other", "name": "cpu"}, {"source": "metrics", "space": "ec2"}, {"source": "metrics"}],
    ),
    "$or at any depth, and inside another": (
        {"$or": [{"a": [1]}, {"b": [1], "$or": [{"c": [1]}, {"d": [1]}]}], "detail": {"$or": [{"e": [1]}, {"f": [1]}]}},
        [{"a": 1, "detail": {"e": 1}}, {"b": 1, "d": 1, "detail": {"f": 1}}],
        [{"a": 1}, {"b": 1, "detail": {"e": 1}}, {"c": 1, "d": 1, "detail": {"e": 1}}, {"a": 1, "e": 1}],
    ),
    "a field asked for again inside $or is asked for as $or says": (
        {"a": [1], "$or": [{"a": [2]}, {"b": [1]}]},
        [{"a": 2}, {"a": 1, "b": 1}],
        [{"a": 1}],
    ),
    "the record of a DynamoDB stream": (
        {
            "dynamodb": {"Keys": {"pk": {"S": [{"prefix": "RESERVATION#"}]}}},
            "eventName": [{"anything-but": ["REMOVE"]}],
        },
        [{"eventName": "INSERT", "dynamodb": {"Keys": {"pk": {"S": "RESERVATION#1"}}, "SizeBytes": 52}}],
        [
            {"eventName": "REMOVE", "dynamodb": {"Keys": {"pk": {"S": "RESERVATION#1"}}}},
            {"eventName": "INSERT", "dynamodb": {"Keys": {"pk": {"S": "STOCK#1"}}}},
        ],
    ),
}


@pytest.mark.parametrize(("pattern", "wanted", "unwanted"), STRUCTURES.values(), ids=STRUCTURES.keys())
def test_pattern_matches_the_events_it_describes_and_no_others(
    pattern: Json, wanted: list[Json], unwanted: list[Json]
) -> None:
    compiled = EventPattern(pattern)

    assert [event for event in wanted if not compiled.matches(event)] == []
    assert [event for event in unwanted if compiled.matches(event)] == []


# One row: pattern, place of the error, reason.
REFUSED: dict[str, tuple[Json, str, str]] = {
    "a list": ([1], "$", "non-empty object"),
    "a string": ("a", "$", "non-empty object"),
    "an empty object": ({}, "$", "non-empty object"),
    "an empty object inside": ({"a": {"b": {}}}, "$.a.b", "non-empty object"),
    "a leaf that is no array": ({"a": {"b": "x"}}, "$.a.b", "object or an array"),
    "a null leaf": ({"a": None}, "$.a", "object or an array"),
    "an empty array": ({"a": []}, "$.a", "empty array"),
    "an array in an array": ({"a": [1, ["x"]]}, "$.a[1]", "must be a string, a number"),
    "an empty matcher": ({"a": [{}]}, "$.a[0]", "exactly one operator"),
    "two operators in one matcher": ({"a": [{"prefix": "x", "suffix": "y"}]}, "$.a[0]", "exactly one operator"),
    "an unknown operator": ({"a": [{"begins": "x"}]}, "$.a[0]", "unknown operator 'begins'"),
    "an operator in capitals": ({"a": [{"EXISTS": True}]}, "$.a[0]", "unknown operator 'EXISTS'"),
    "prefix of a number": ({"a": [{"prefix": 1}]}, "$.a[0].prefix", "must be a string"),
    "prefix of a list": ({"a": [{"prefix": ["x"]}]}, "$.a[0].prefix", "must be a string"),
    "prefix of another operator": ({"a": [{"prefix": {"wildcard": "x"}}]}, "$.a[0].prefix", "unknown operator"),
    "prefix, any case, of a list": (
        {"a": [{"prefix": {"equals-ignore-case": ["x"]}}]},
        "$.a[0].prefix.equals-ignore-case",
        "must be a string",
    ),
    "suffix of null": ({"a": [{"suffix": None}]}, "$.a[0].suffix", "must be a string"),
    "equals-ignore-case of a list": ({"a": [{"equals-ignore-case": ["x"]}]}, "$.a[0].equals-ignore-case", "a string"),
    "wildcard of a list": ({"a": [{"wildcard": ["x"]}]}, "$.a[0].wildcard", "must be a string"),
    "two stars in a row": ({"a": [{"wildcard": "a**b"}]}, "$.a[0].wildcard", "consecutive"),
    "a wildcard of six stars": ({"a": [{"wildcard": "*:*:*:*:*:event-bus/*"}]}, "$.a", "too complex"),
    "four wildcards of a long text": (
        {"a": [{"wildcard": f"*/images/*.{kind}"} for kind in ("bif", "tif", "tiff", "svs")]},
        "$.a",
        "too complex",
    ),
    "excluded wildcards": ({"a": [{"anything-but": {"wildcard": ["*a*a*a*", "*a*a*"]}}]}, "$.a", "too complex"),
    "two stars at the start": ({"a": [{"wildcard": "**"}]}, "$.a[0].wildcard", "consecutive"),
    "a backslash at the end": ({"a": [{"wildcard": "a\\"}]}, "$.a[0].wildcard", "backslash"),
    "a backslash before a letter": ({"a": [{"wildcard": "\\a"}]}, "$.a[0].wildcard", "backslash"),
    "exists of text": ({"a": [{"exists": "true"}]}, "$.a[0].exists", "true or false"),
    "exists of one": ({"a": [{"exists": 1}]}, "$.a[0].exists", "true or false"),
    "cidr of a list": ({"a": [{"cidr": ["10.0.0.0/8"]}]}, "$.a[0].cidr", "must be a string"),
    "cidr without bits": ({"a": [{"cidr": "10.0.0.0"}]}, "$.a[0].cidr", "prefix length"),
    "cidr with a mask": ({"a": [{"cidr": "10.0.0.0/255.0.0.0"}]}, "$.a[0].cidr", "prefix length"),
    "cidr of one IPv4 address": ({"a": [{"cidr": "10.0.0.1/32"}]}, "$.a[0].cidr", "prefix length"),
    "cidr of one IPv6 address": ({"a": [{"cidr": "::1/128"}]}, "$.a[0].cidr", "prefix length"),
    "cidr with too many bits": ({"a": [{"cidr": "10.0.0.0/33"}]}, "$.a[0].cidr", "10.0.0.0/33"),
    "cidr of no address": ({"a": [{"cidr": "xx.11.xx/8"}]}, "$.a[0].cidr", "xx.11.xx"),
    "numeric of a number": ({"a": [{"numeric": 1}]}, "$.a[0].numeric", "[operator, number]"),
    "numeric of nothing": ({"a": [{"numeric": []}]}, "$.a[0].numeric", "[operator, number]"),
    "numeric without its number": ({"a": [{"numeric": [">", 0, "<"]}]}, "$.a[0].numeric", "[operator, number]"),
    "numeric, unknown comparison": ({"a": [{"numeric": ["==", 1]}]}, "$.a[0].numeric", "[operator, number]"),
    "numeric, = in a range": ({"a": [{"numeric": ["=", 1, "<", 2]}]}, "$.a[0].numeric", "[operator, number]"),
    "numeric, range from above": ({"a": [{"numeric": ["<", 2, ">", 1]}]}, "$.a[0].numeric", "[operator, number]"),
    "numeric, two bottoms": ({"a": [{"numeric": [">", 0, ">", 0]}]}, "$.a[0].numeric", "[operator, number]"),
    "numeric, three bounds": (
        {"a": [{"numeric": [">", 0, "<", 5, "<", 6]}]},
        "$.a[0].numeric",
        "[operator, number]",
    ),
    "numeric of text": ({"a": [{"numeric": ["=", "1"]}]}, "$.a[0].numeric", "must be a number"),
    "numeric of true": ({"a": [{"numeric": [">", True]}]}, "$.a[0].numeric", "must be a number"),
    "numeric with too many digits": ({"a": [{"numeric": ["<", 2**70 + 1]}]}, "$.a[0].numeric", "without loss"),
    "numeric of infinity": ({"a": [{"numeric": ["=", 1e999]}]}, "$.a[0].numeric", "without loss"),
    "numeric, an empty range": ({"a": [{"numeric": [">=", 1, "<=", 1]}]}, "$.a[0].numeric", "bottom"),
    "numeric, a range upside down": ({"a": [{"numeric": [">", 30, "<", 1]}]}, "$.a[0].numeric", "bottom"),
    "anything-but null": ({"a": [{"anything-but": None}]}, "$.a[0].anything-but", "only strings or only numbers"),
    "anything-but true": ({"a": [{"anything-but": True}]}, "$.a[0].anything-but", "must be a number"),
    "anything-but nothing": ({"a": [{"anything-but": []}]}, "$.a[0].anything-but", "only strings or only numbers"),
    "anything-but a mixed list": ({"a": [{"anything-but": ["x", 1]}]}, "$.a[0].anything-but", "only strings or only"),
    "anything-but a list with null": ({"a": [{"anything-but": ["x", None]}]}, "$.a[0].anything-but", "only strings"),
    "anything-but a number too large": ({"a": [{"anything-but": 10**400}]}, "$.a[0].anything-but", "must be a number"),
    "anything-but exists": ({"a": [{"anything-but": {"exists": True}}]}, "$.a[0].anything-but", "unknown operator"),
    "anything-but numeric": ({"a": [{"anything-but": {"numeric": ["=", 1]}}]}, "$.a[0].anything-but", "unknown"),
    "anything-but two operators": (
        {"a": [{"anything-but": {"prefix": "x", "suffix": "y"}}]},
        "$.a[0].anything-but",
        "exactly one operator",
    ),
    "anything-but an empty prefix": ({"a": [{"anything-but": {"prefix": ["x", ""]}}]}, "$.a[0].anything-but", "empty"),
    "anything-but an empty suffix": ({"a": [{"anything-but": {"suffix": ""}}]}, "$.a[0].anything-but", "empty"),
    "anything-but no prefix": ({"a": [{"anything-but": {"prefix": []}}]}, "$.a[0].anything-but", "empty"),
    "anything-but prefix of a number": ({"a": [{"anything-but": {"prefix": [1]}}]}, "$.a[0].anything-but", "a string"),
    "anything-but prefix, any case": (
        {"a": [{"anything-but": {"prefix": {"equals-ignore-case": "x"}}}]},
        "$.a[0].anything-but.prefix",
        "must be a string",
    ),
    "anything-but two stars": ({"a": [{"anything-but": {"wildcard": ["a", "b**"]}}]}, "$.a[0].anything-but", "consec"),
    "$or of an object": ({"$or": {"a": [1]}}, "$.$or", "at least two objects"),
    "$or of nothing": ({"a": {"$or": []}}, "$.a.$or", "at least two objects"),
    "$or of one": ({"$or": [{"a": [1]}]}, "$.$or", "at least two objects"),
    "$or of values": ({"$or": [{"a": [1]}, "b"]}, "$.$or[1]", "non-empty object"),
    "$or of an empty object": ({"$or": [{"a": [1]}, {}]}, "$.$or[1]", "non-empty object"),
    "a fault inside $or": ({"$or": [{"a": [1]}, {"b": {"c": 1}}]}, "$.$or[1].b.c", "object or an array"),
    "an operator as a field inside $or": ({"$or": [{"a": [1]}, {"prefix": ["x"]}]}, "$.$or[1].prefix", "operator"),
}


@pytest.mark.parametrize(("pattern", "where", "reason"), REFUSED.values(), ids=REFUSED.keys())
def test_invalid_pattern_is_refused_with_its_place_and_reason(pattern: Json, where: str, reason: str) -> None:
    with pytest.raises(InvalidEventPattern) as refusal:
        EventPattern(pattern)

    assert str(refusal.value).startswith(where)
    assert reason in str(refusal.value)


def test_or_may_multiply_to_a_thousand_combinations_and_no_further() -> None:
    def ten_ways(field: str) -> Json:
        return {"$or": [{field: [number]} for number in range(10)]}

    thousand = {"a": ten_ways("x"), "b": ten_ways("x"), "c": ten_ways("x")}

    assert EventPattern(thousand).matches({"a": {"x": 9}, "b": {"x": 0}, "c": {"x": 5}})
    with pytest.raises(InvalidEventPattern, match=r"^\$\.d: more than 1000 combinations"):
        EventPattern({**thousand, "d": {"$or": [{"x": [1]}, {"x": [2]}]}})


def test_operator_name_is_an_ordinary_field_outside_or() -> None:
    assert EventPattern({"prefix": ["x"]}).matches({"prefix": "x"})


# Properties.

NUMBERS = st.integers(-(10**9), 10**9) | st.floats(-1e9, 1e9).map(lambda number: round(number, 3))
SCALARS = st.none() | st.booleans() | NUMBERS | st.text(max_size=8)
# Few names, so that they repeat; without dots, because a name with a dot could equal the path of another field.
NAMES = st.sampled_from(["a", "b", "c", "detail", ""])


def objects(values: st.SearchStrategy[Json]) -> st.SearchStrategy[Json]:
    return st.dictionaries(NAMES, values, min_size=1, max_size=3)


EVENTS = objects(
    st.recursive(SCALARS, lambda inner: st.lists(inner, min_size=1, max_size=3) | objects(inner), max_leaves=8)
)
EVENTS_WITHOUT_ARRAYS = objects(st.recursive(SCALARS, objects, max_leaves=8))
ANY_JSON = st.recursive(
    SCALARS | st.integers() | st.floats() | st.ip_addresses().map(str),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES | st.text(max_size=5), inner, max_size=3),
    max_leaves=12,
)


def pattern_of(value: Json, pick: Any) -> Json:
    """Builds a pattern from an event's leaves. For an array, `pick` selects the element."""
    if isinstance(value, dict):
        return {name: pattern_of(member, pick) for name, member in value.items()}
    if isinstance(value, list):
        return pattern_of(pick(st.sampled_from(value)), pick)
    return [value]


def leaf_paths(value: Json) -> list[tuple[str, ...]]:
    if not isinstance(value, dict):
        return [()]
    return [(name, *rest) for name, member in value.items() for rest in leaf_paths(member)]


def changed(value: Json, path: tuple[str, ...]) -> Json:
    """Returns a copy of an event with another value at a path."""
    if path:
        return {**value, path[0]: changed(value[path[0]], path[1:])}
    if isinstance(value, bool):
        return not value
    return f"not {value}" if value is None or isinstance(value, str) else value + 1


@given(EVENTS, st.data())
def test_pattern_of_an_events_own_leaves_matches_it(event: Json, data: st.DataObject) -> None:
    pattern = pattern_of(event, data.draw)

    assert EventPattern(pattern).matches(event)


@given(EVENTS_WITHOUT_ARRAYS, st.data())
def test_event_with_one_leaf_changed_is_not_matched(event: Json, data: st.DataObject) -> None:
    pattern = EventPattern(pattern_of(event, data.draw))
    path = data.draw(st.sampled_from(leaf_paths(event)))

    assert not pattern.matches(changed(event, path))


@given(EVENTS_WITHOUT_ARRAYS, st.data())
def test_or_of_a_matching_and_another_pattern_matches(event: Json, data: st.DataObject) -> None:
    fitting = pattern_of(event, data.draw)
    unfitting = pattern_of(changed(event, data.draw(st.sampled_from(leaf_paths(event)))), data.draw)

    assert EventPattern({"$or": [unfitting, fitting]}).matches(event)
    assert EventPattern({"$or": [fitting, unfitting]}).matches(event)
    assert not EventPattern({"$or": [unfitting, unfitting]}).matches(event)


EVERY_OPERATOR = [EventPattern({"a": [matcher, 1], "b": {"c": [matcher]}}) for matcher, _, _ in OPERATORS.values()]


@given(st.dictionaries(NAMES | st.text(max_size=5), ANY_JSON, max_size=5))
def test_matching_never_fails_on_any_json_event(event: Json) -> None:
    outcomes = [pattern.matches(event) for pattern in EVERY_OPERATOR]

    assert set(outcomes) <= {True, False}
    assert outcomes == [pattern.matches(event) for pattern in EVERY_OPERATOR]


@given(st.text("ab*", max_size=6), st.text("ab\n", max_size=10))
def test_wildcard_is_a_regular_expression_of_any_text_for_each_star(pattern: str, value: str) -> None:
    pattern = re.sub(r"\*+", "*", pattern)
    expected = re.fullmatch(pattern.replace("*", ".*"), value, re.DOTALL) is not None

    assert matches({"wildcard": pattern}, value) == expected


# Matchers of one field, each with the function that says in Python's own terms what it matches.
TEXTS = st.text("aAßb.*-é", max_size=4)
COMPARISONS: dict[str, Any] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
    "=": operator.eq,
}
REFERENCES: dict[str, tuple[st.SearchStrategy[Json], Any]] = {
    "prefix": (TEXTS, lambda value, text: isinstance(value, str) and value.startswith(text)),
    "suffix": (TEXTS, lambda value, text: isinstance(value, str) and value.endswith(text)),
    "equals-ignore-case": (TEXTS, lambda value, text: isinstance(value, str) and value.lower() == text.lower()),
    "exists": (st.just(True), lambda value, _: True),
    "numeric": (
        st.tuples(st.sampled_from(["<", "<=", ">", ">=", "="]), st.integers(-3, 3) | st.floats(-3, 3)).map(list),
        lambda value, given: type(value) in (int, float) and COMPARISONS[given[0]](value, given[1]),
    ),
    "cidr": (
        st.tuples(st.ip_addresses(v=4, network="10.0.0.0/24"), st.integers(20, 31)).map(
            lambda each: f"{each[0]}/{each[1]}"
        ),
        lambda value, text: in_network(value, text),
    ),
}
FIELDS = SCALARS | TEXTS | st.integers(-4, 4) | st.ip_addresses(v=4, network="10.0.0.0/20").map(str)


def in_network(value: Json, network: str) -> bool:
    """Returns whether a text is an IPv4 address whose leading bits are those of the network."""

    def bits(address: str) -> str:
        return "".join(f"{int(part):08b}" for part in address.split("."))

    address, _, length = network.partition("/")
    is_address = isinstance(value, str) and re.fullmatch(r"\d+(\.\d+){3}", value, re.ASCII) is not None
    return is_address and bits(value)[: int(length)] == bits(address)[: int(length)]


@pytest.mark.parametrize("name", REFERENCES)
@given(data=st.data())
def test_operator_agrees_with_its_definition(name: str, data: st.DataObject) -> None:
    arguments, expected = REFERENCES[name]
    argument, value = data.draw(arguments), data.draw(FIELDS)

    assert matches({name: argument}, value) == expected(value, argument)


@given(st.lists(TEXTS, min_size=1, max_size=3) | st.lists(st.integers(-4, 4), min_size=1, max_size=3), FIELDS)
def test_anything_but_is_the_complement_of_the_same_list(excluded: list[Json], value: Json) -> None:
    equal = EventPattern({"field": excluded}).matches({"field": value})

    assert matches({"anything-but": excluded}, value) != equal


MATCHERS = SCALARS | st.sampled_from([matcher for matcher, _, _ in OPERATORS.values()])
PATTERNS = objects(st.lists(MATCHERS, min_size=1, max_size=2))


def compiled_or_none(pattern: Json) -> EventPattern | None:
    """Returns the compiled pattern, or None if EventBridge would refuse it."""
    try:
        return EventPattern(pattern)
    except InvalidEventPattern:
        return None


@given(PATTERNS, PATTERNS, EVENTS)
def test_or_matches_when_one_of_its_branches_does(left: Json, right: Json, event: Json) -> None:
    both = [compiled_or_none(left), compiled_or_none(right), compiled_or_none({"$or": [left, right]})]
    assume(None not in both)
    one, other, either = (pattern.matches(event) for pattern in both if pattern)

    assert either == (one or other)


@given(PATTERNS, EVENTS, st.text("xyz", min_size=1, max_size=3), SCALARS)
def test_a_field_that_the_pattern_does_not_name_changes_nothing(
    pattern: Json, event: Json, name: str, value: Json
) -> None:
    compiled = compiled_or_none(pattern)
    assume(compiled is not None)

    assert compiled is not None
    assert compiled.matches(event | {name: value}) == compiled.matches(event)


@given(objects(SCALARS), st.sampled_from(MISSING_UNMATCHED), st.dictionaries(NAMES, SCALARS))
def test_a_field_more_breaks_no_match_without_exists_false(event: Json, other: Json, more: Json) -> None:
    pattern = EventPattern({name: [value, other] for name, value in event.items()})

    assert pattern.matches(event)
    assert pattern.matches(more | event)


# Mostly invalid patterns, made of the words of the language.
WORDS = st.sampled_from([*REFERENCES, "anything-but", "wildcard", "$or", "a", "=", "<", "*", "**", "10.0.0.0/8", ""])
ANY_PATTERN = st.recursive(
    SCALARS | WORDS | st.integers() | st.floats(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=2),
    max_leaves=8,
)


@given(ANY_PATTERN | st.dictionaries(WORDS, ANY_PATTERN, max_size=2))
def test_any_json_is_a_pattern_or_an_invalid_pattern(pattern: Json) -> None:
    compiled = compiled_or_none(pattern)

    assert compiled is None or compiled.matches({"a": 1}) in (True, False)


# TestEventPattern

EVENT = {
    "id": "1",
    "account": "123456789012",
    "source": "shop",
    "time": "2026-11-21T18:36:00Z",
    "region": "us-east-1",
    "resources": [],
    "detail-type": "Sold",
}


@pytest.mark.parametrize(("source", "result"), [("shop", True), ("other", False)])
def test_the_events_api_tests_a_pattern(store: Store, source: str, result: bool) -> None:
    answer = store.client("events").test_event_pattern(
        EventPattern=json.dumps({"source": [source]}), Event=json.dumps(EVENT)
    )

    assert answer["Result"] is result


@pytest.mark.parametrize(
    ("pattern", "event", "error", "reason"),
    [
        ('{"source": "shop"}', json.dumps(EVENT), "InvalidEventPatternException", r"\$\.source: must be an object"),
        ("no JSON", json.dumps(EVENT), "InvalidEventPatternException", "Expecting value"),
        ('{"source": ["shop"]}', "no JSON", "ValidationException", "not an object"),
        ('{"source": ["shop"]}', "[]", "ValidationException", "not an object"),
        ('{"source": ["shop"]}', '{"source": "shop"}', "ValidationException", "it has no account, detail-type, id, "),
    ],
)
def test_the_events_api_refuses_an_invalid_pattern_or_event(
    store: Store, pattern: str, event: str, error: str, reason: str
) -> None:
    with pytest.raises(ClientError, match=reason) as refusal:
        store.client("events").test_event_pattern(EventPattern=pattern, Event=event)

    assert refusal.value.response["Error"]["Code"] == error
