from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from core.errors import UserError
from core.files.yaml_files import dump_plain, load_yaml


def read(folder: Path, text: str | bytes) -> Any:
    path = folder / "some.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return load_yaml(path)


def refusal(folder: Path, text: str | bytes) -> str:
    with pytest.raises(UserError) as caught:
        read(folder, text)
    message = str(caught.value)
    assert message.startswith(f"{folder / 'some.yaml'}: ")
    assert len(message.splitlines()) == 1
    assert len(message) < len(str(folder)) + 400
    return message


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-4", 1e-4),
        ("1E5", 1e5),
        ("-2e+3", -2000.0),
        ("1.5e3", 1500.0),
        (".5", 0.5),
        ("3.", 3.0),
        ("1_000", 1000),
        ("0x1F", 31),
        ("0o17", 15),
        ("+7", 7),
        ("-0", 0),
        ("010", "010"),
        ("0.1.2", "0.1.2"),
        ("1:30", "1:30"),
        ("1e", "1e"),
        ("1e4f", "1e4f"),
        ("e4", "e4"),
        ("'1e4'", "1e4"),
        ("2001-01-01", "2001-01-01"),
        ("yes", "yes"),
        ("off", "off"),
        ("=", "="),
        ("true", True),
        ("False", False),
        ("null", None),
        ("~", None),
        ("", None),
        ("!!str 5", "5"),
        ("!!int '5'", 5),
        ("!!float 5", 5.0),
    ],
)
def test_a_scalar_is_what_yaml_1_2_says(tmp_path: Path, text: str, value: object) -> None:
    read_back = read(tmp_path, f"key: {text}\n")["key"]
    assert read_back == value
    assert type(read_back) is type(value)


def test_numbers_in_lists_are_numbers(tmp_path: Path) -> None:
    assert read(tmp_path, "[1e-3, 1e-4]") == [1e-3, 1e-4]


@pytest.mark.parametrize("text", ["", "# nothing\n", "---\n", "null"])
def test_an_empty_file_is_an_empty_mapping(tmp_path: Path, text: str) -> None:
    assert read(tmp_path, text) == {}


def test_a_byte_order_mark_is_read_over(tmp_path: Path) -> None:
    assert read(tmp_path, b"\xef\xbb\xbfseed: 3") == {"seed": 3}


def test_aliases_and_merge_keys_are_expanded_and_what_is_written_here_wins(tmp_path: Path) -> None:
    text = "one: &one {a: 1, b: 1}\ntwo: &two {b: 2, c: 2}\nboth: {<<: [*one, *two], c: 3}\nagain: *one\n"
    content = read(tmp_path, text)
    assert content["both"] == {"a": 1, "b": 1, "c": 3}
    assert content["again"] == {"a": 1, "b": 1}
    assert read(tmp_path, "'<<': 1") == {"<<": 1}


LAUGHS = "a0: &a0 [1, 1]\n" + "".join(f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}]\n" for n in range(1, 18))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("? [a, b]\n: 1", "line 1: a key is not a string"),
        ("a: 1\n1: 2", "line 2: the key 1 is not a string"),
        ("null: x", "the key null is not a string"),
        ("true: x", "the key true is not a string"),
        ("{a: 1, a: 2}", "a is given twice"),
        ("a: &x {b: 1}\nc: {<<: *x, <<: *x}", "<< is given twice"),
        ("a: {<<: 3}", "only mappings can be merged with <<"),
        ("a: {<<: [3]}", "only mappings can be merged with <<"),
        ("a: &a [*a]", "nested more than 20 deep; do not use an alias (*) inside its own anchor (&)"),
        ("a: &a {b: *a}", "nested more than 20 deep"),
        ("[" * 100_000, "line 1: is nested more than 20 deep"),
        ("- " * 100_000, "nested more than 20 deep"),
        (LAUGHS, "the file has more than 10,000 values once aliases are expanded"),
        ("a: *nowhere", "found undefined alias 'nowhere'"),
        ("a: !!python/object/apply:os.system [ls]", "the tag '!!python/object/apply:os.system' is not allowed"),
        ("a: !!binary aGVsbG8=", "the tag '!!binary' is not allowed"),
        ("a: !!timestamp 2001-01-01", "the tag '!!timestamp' is not allowed"),
        ("a: !!set {b, c}", "the tag '!!set' is not allowed"),
        ("a: !mine 3", "the tag '!mine' is not allowed"),
        ("a: !<x%0Ay> 3", r"the tag 'x\ny' is not allowed"),
        ("a: !!int x", "x is not of type int"),
        ("a:\n\tb: 3", "line 2: is not valid YAML"),
        ("a: 1\n---\na: 2", "line 2: is not valid YAML (expected a single document in the stream"),
        ("a: [1", "is not valid YAML"),
        ('a: "\\0"', "a string contains the control character or line break U+0000"),
        ('a: "\\ud800"', "U+D800"),
        ("a: |\n  one\n  two\n", "U+000A"),
        ('a: "\\U00110000"', "is not valid YAML (an escape or a directive is out of range)"),
        ("a: 1\nb: \x07", "line 2: YAML does not allow the character U+0007"),
        ("%YAML " + "9" * 5000 + ".1\n--- 3", "is not valid YAML"),
        ("a: " + "9" * 500, "has too many digits"),
        ("a: " + "9" * 5000, "is longer than 1024 characters"),
        ("a: " + "x" * 5000, "is longer than 1024 characters"),
        ("a" * 300_000, "is larger than 256 KiB, so it is no configuration"),
        ("seed: 3".encode("utf-16"), "is not UTF-8 text; save it as UTF-8"),
        ("seed: 3".encode("utf-16-le"), "YAML does not allow the character U+0000"),
    ],
)
def test_what_no_configuration_needs_is_refused_in_one_line(tmp_path: Path, text: str | bytes, message: str) -> None:
    assert message in refusal(tmp_path, text)


def test_what_is_no_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "circle").symlink_to("circle")
    (tmp_path / "file").touch()
    for name, message in {
        "nowhere": "there is no such file",
        ".": "is a folder",
        "circle": "cannot be read (Too many levels of symbolic links)",
        "file/x": "cannot be read (Not a directory)",
        "n" * 300: "cannot be read (File name too long)",
    }.items():
        with pytest.raises(UserError, match=r"^/") as caught:
            load_yaml(tmp_path / name)
        assert message in str(caught.value)


WORDS = st.text(st.characters(exclude_categories=["Cc", "Cs", "Zl", "Zp"]), max_size=20)
ODD_WORDS = st.sampled_from(
    ["1e4", "010", "1_0", "on", "~", "<<", "=", "0x1", "1:30", ".5", "2001-01-01", "- a", "#", "!"]
)
PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | WORDS | ODD_WORDS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS | ODD_WORDS, inner, max_size=3),
    max_leaves=10,
)


@given(PLAIN)
def test_what_is_dumped_reads_back_equal_here_and_in_other_readers(
    tmp_path_factory: pytest.TempPathFactory, content: object
) -> None:
    text = dump_plain({"content": content})
    assert read(tmp_path_factory.getbasetemp(), text) == {"content": content}
    assert yaml.safe_load(text) == {"content": content}


@given(st.text(st.characters(exclude_categories=["Cs"])) | st.text("[]{}:,-?&*!|>'\"%@<# \n\tab1."))
def test_any_text_is_read_or_refused_in_one_line(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    line = ""
    try:
        read(tmp_path_factory.getbasetemp(), text)
    except UserError as error:
        line = str(error)
    assert len(line.splitlines()) <= 1
