import time
from contextlib import suppress

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from controlloop.yaml_documents import YamlError, documents


def read(text):
    return list(documents(text.encode()))


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("80", 80),
        ("-1", -1),
        ("1.5e3", 1500.0),
        ("true", True),
        ("~", None),
        ("", None),
        ("'80'", "80"),
        ("!!str 80", "80"),
        ("! 80", "80"),
        ("!!int 80", 80),
        ("no", "no"),
        ("2026-01-01T00:00:00Z", "2026-01-01T00:00:00Z"),
        ("10.96.0.10", "10.96.0.10"),
        ("1:30", "1:30"),
        ("-a", "-a"),
        ("9" * 400, "9" * 400),
        ("|\n  a\n  b\n", "a\nb\n"),
    ],
)
def test_scalars_follow_yaml_1_2(text, value):
    assert read(f"key: {text}") == [{"key": value}]


def test_documents_come_one_by_one():
    assert read("a: 1\n---\n- 2\n- [3, {b: ~}]\n---\n---\n...\n") == [{"a": 1}, [2, [3, {"b": None}]], None, None]


def test_keys_are_text():
    assert read("{80: a, true: b, ~: c}") == [{"80": "a", "true": "b", "~": "c"}]


def test_an_alias_stands_for_what_its_anchor_marks():
    assert read("a: &port 80\nb: *port\nc: &list [*port]\nd: {e: *list}") == [
        {"a": 80, "b": 80, "c": [80], "d": {"e": [80]}}
    ]


def test_an_alias_counts_in_its_own_document_only():
    with pytest.raises(YamlError, match="line 3: nothing named x stands before its alias"):
        read("&x a\n---\n*x")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("a: b: c", "line 1: mapping values are not allowed"),
        ("a: [1", "line"),
        ("&a [*a]", "nothing named a stands before its alias"),
        ("{[1]: 2}", "keys are text"),
        ("b: {<<: {a: 1}}", "merge keys"),
        ("a: !!python/object:os.system x", "tag tag:yaml.org,2002:python/object:os.system is not read"),
        ("a: !!timestamp x", "is not read"),
        ("a: \x00", "control characters"),
        ("[" * 1_000_000, "nested deeper than 64"),
        ("- " * 1_000_000, "nested deeper than 64"),
        ("{a: " * 1_000_000, "nested deeper than 64"),
    ],
)
def test_text_that_is_not_read_is_named_on_one_line(text, reason):
    with pytest.raises(YamlError, match=reason) as caught:
        read(text)
    assert "\n" not in str(caught.value)


def test_text_in_another_encoding_is_refused():
    with pytest.raises(YamlError):
        list(documents(b"a: \xff\xfe"))


def test_aliases_that_multiply_are_refused_before_they_fill_the_memory():
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{level}: &a{level} [{', '.join([f'*a{level - 1}'] * 9)}]" for level in range(1, 30)]
    with pytest.raises(YamlError, match="aliases make it larger"):
        read("\n".join(lines))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**17), 10**17) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


class Quoting(yaml.SafeDumper):
    """Our reading of an unquoted scalar and PyYAML's differ on purpose; quotes leave nothing to differ about."""


Quoting.add_representer(str, lambda dumper, text: dumper.represent_scalar("tag:yaml.org,2002:str", text, style='"'))


@given(st.lists(JSON, max_size=3), st.booleans())
def test_what_was_written_as_yaml_is_read_back(values, flow):
    text = yaml.dump_all(values, Dumper=Quoting, default_flow_style=flow)
    assert list(documents(text.encode())) == values


@given(st.binary() | st.text(alphabet="[]{}:-&*!|>'\"#?, \nab1").map(str.encode))
def test_garbage_is_read_or_refused(text):
    with suppress(YamlError):
        for _ in documents(text):
            pass


def seconds(text):
    begin = time.process_time()
    for _ in documents(text):
        pass
    return time.process_time() - begin


def test_time_grows_with_the_length_of_the_text():
    """One list of eight times as many items takes about eight times as long, not sixty-four times."""
    item = "- {name: web, ports: [{port: 80}], labels: {a: b, c: d}}\n"
    short, long = (min(seconds((item * count).encode()) for _ in range(2)) for count in (2_000, 16_000))
    assert long < 24 * short
