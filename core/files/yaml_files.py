"""YAML for configurations: plain data as in JSON, without anything that other YAML readers interpret differently.

Numbers follow YAML 1.2, and may contain underscores: `1e-4` and `1_000` are numbers; `010`, `1:30`, `on`, `off`,
`yes`, `no` and dates are strings. Aliases and merge keys (`<<`) are expanded. Tags, keys that are not strings, and
repeated keys are refused.
"""

import re
import unicodedata
from pathlib import Path
from typing import Any

import yaml

from core.errors import UserError
from core.files.packaged import find_file

MOST_BYTES = 2**18
MOST_VALUES = 10_000
"""Counted after aliases are expanded."""
MOST_CHARACTERS = 1024
DEEPEST = 20

_TAG = "tag:yaml.org,2002:"
_DECIMAL = r"(?:0|[1-9](?:_?[0-9])*)"
_PLAIN = {
    "null": re.compile(r"^(?:~|null|Null|NULL|)$"),
    "bool": re.compile(r"^(?:true|True|TRUE|false|False|FALSE)$"),
    "int": re.compile(rf"^[-+]?{_DECIMAL}$|^0o[0-7]+$|^0x[0-9a-fA-F]+$"),
    "float": re.compile(
        rf"^[-+]?(?:\.[0-9]+|{_DECIMAL}(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?$"
        r"|^[-+]?\.(?:inf|Inf|INF)$|^\.(?:nan|NaN|NAN)$"
    ),
    "merge": re.compile(r"^<<$"),
}
"""Type of an unquoted scalar → pattern; the first match counts, anything else is a string."""
_RESOLVERS = [(_TAG + kind, pattern) for kind, pattern in _PLAIN.items()]


def load_yaml(path: Path) -> Any:
    """Read a YAML file as dictionaries, lists, strings, numbers, booleans and None; an empty file is an empty mapping.

    If the file does not exist, an installed configuration of that name is read (`core.files.packaged`).

    Raises:
        UserError: names the file, the line and what is wrong there; or the file is missing, too large or not UTF-8.
    """
    text = _read_text(path)
    try:
        node = _Loader(text).get_single_node()
        content = None if node is None else _PlainData().value(node)
    except yaml.reader.ReaderError as error:
        place = f"line {text.count(chr(10), 0, error.position) + 1}"
        raise UserError(f"{place}: YAML does not allow the character U+{error.character:04X}", where=path) from None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f"line {mark.line + 1}: " if mark else ""
        problem = _short(": ".join(part for part in (error.context, error.problem) if part), most=200)
        raise UserError(f"{place}is not valid YAML ({problem})", where=path) from None
    except ValueError:  # from PyYAML's conversions: an escape beyond Unicode, a version of 5,000 digits
        raise UserError("is not valid YAML (an escape or a directive is out of range)", where=path) from None
    except _NotPlainError as refused:
        raise UserError(f"line {refused.line}: {refused.what}", where=path, how=refused.how) from None
    return {} if content is None else content


def dump_plain(content: Any) -> str:
    """Plain data as YAML that this module and other YAML readers read back as equal data."""
    return yaml.dump(content, Dumper=_Dumper, sort_keys=False, allow_unicode=True)


def unfit_character(text: str) -> str | None:
    """The first control character, line break or half of a surrogate pair, as U+XXXX; None if there is none."""
    unfit = (letter for letter in text if unicodedata.category(letter) in ("Cc", "Cs", "Zl", "Zp"))
    return next((f"U+{ord(letter):04X}" for letter in unfit), None)


def _read_text(path: Path) -> str:
    try:
        with find_file(path).open("rb") as file:
            content = file.read(MOST_BYTES + 1)
    except FileNotFoundError:
        raise UserError("there is no such file", where=path) from None
    except IsADirectoryError:
        raise UserError("is a folder, not a YAML file", where=path) from None
    except OSError as error:
        raise UserError(f"cannot be read ({error.strerror})", where=path) from None
    if len(content) > MOST_BYTES:
        raise UserError(f"is larger than {MOST_BYTES // 1024} KiB, so it is no configuration", where=path)
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise UserError("is not UTF-8 text", where=path, how="save it as UTF-8") from None


class _NotPlainError(Exception):
    """Valid YAML that is not allowed in configurations."""

    def __init__(self, node: yaml.Node, what: str, how: str | None = None) -> None:
        super().__init__(what)
        self.line = node.start_mark.line + 1
        self.what = what
        self.how = how


class _Loader(yaml.SafeLoader):
    """Composes nodes only, with a limit on nesting."""

    yaml_implicit_resolvers = {None: _RESOLVERS}
    _depth = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        self._depth += 1
        if parent is not None and self._depth > DEEPEST:
            raise _NotPlainError(parent, f"is nested more than {DEEPEST} deep")
        node = super().compose_node(parent, index)
        self._depth -= 1
        return node


class _Dumper(yaml.SafeDumper):
    """Quotes strings that YAML 1.1 or `_Loader` would read as another type."""

    yaml_implicit_resolvers = {**yaml.SafeDumper.yaml_implicit_resolvers, None: _RESOLVERS}


class _PlainData:
    """Turns the nodes of one file into plain data, aliases expanded up to a limit."""

    def __init__(self) -> None:
        self._values = 0

    def value(self, node: yaml.Node, depth: int = 1) -> Any:
        """Value of a node; raises _NotPlainError or MarkedYAMLError at the first problem."""
        self._values += 1
        if depth > DEEPEST:  # an alias adds depth that the text does not show
            raise _NotPlainError(
                node, f"is nested more than {DEEPEST} deep", "do not use an alias (*) inside its own anchor (&)"
            )
        if self._values > MOST_VALUES:
            raise _NotPlainError(node, f"the file has more than {MOST_VALUES:,} values once aliases are expanded")
        if isinstance(node, yaml.MappingNode) and node.tag == _TAG + "map":
            return self._mapping(node, depth)
        if isinstance(node, yaml.SequenceNode) and node.tag == _TAG + "seq":
            return [self.value(item, depth + 1) for item in node.value]
        return _scalar(node)

    def _mapping(self, node: yaml.MappingNode, depth: int) -> dict[str, Any]:
        own: dict[str, Any] = {}
        merged: dict[str, Any] = {}
        seen = set()
        for key_node, value_node in node.value:
            key, value = _key(key_node), self.value(value_node, depth + 1)
            if key in seen:
                raise yaml.MarkedYAMLError(problem=f"{key} is given twice", problem_mark=key_node.start_mark)
            seen.add(key)
            if key_node.tag == _TAG + "merge":
                merged = _merged(value_node, value)
            else:
                own[key] = value
        return merged | own


def _merged(node: yaml.Node, value: object) -> dict[str, Any]:
    sources = value if isinstance(value, list) else [value]
    if not all(isinstance(source, dict) for source in sources):
        raise _NotPlainError(node, "only mappings can be merged with <<", "write <<: *name, or <<: [*one, *other]")
    return {key: item for source in reversed(sources) for key, item in source.items()}  # the first source wins


def _key(node: yaml.Node) -> str:
    if not isinstance(node, yaml.ScalarNode) or node.tag not in (_TAG + "str", _TAG + "merge"):
        what = f"the key {_short(node.value)}" if isinstance(node, yaml.ScalarNode) else "a key"
        raise _NotPlainError(node, f"{what} is not a string", "a key is the name of a setting")
    return _text(node)


def _scalar(node: yaml.Node) -> str | int | float | bool | None:
    kind, tag = node.tag.removeprefix(_TAG), _short(node.tag.replace(_TAG, "!!"))
    if not isinstance(node, yaml.ScalarNode) or kind not in ("str", "null", "bool", "int", "float"):
        raise _NotPlainError(
            node, f"the tag {tag!r} is not allowed", "write plain strings, numbers, lists and mappings"
        )
    text = _text(node)
    if kind == "str":
        return text
    if not _PLAIN[kind].match(text):
        raise _NotPlainError(node, f"{_short(text)} is not of type {kind}", "remove its tag")
    return _constant_or_number(kind, text, node)


def _constant_or_number(kind: str, text: str, node: yaml.Node) -> int | float | bool | None:
    if kind == "null":
        return None
    if kind == "bool":
        return text.lower() == "true"
    if len(text) > 64:
        raise _NotPlainError(node, f"the number {_short(text)} has too many digits")
    if kind == "int":
        return int(text, 0)
    return float(re.sub(r"\.(?=inf|nan)", "", text.lower()))


def _text(node: yaml.ScalarNode) -> str:
    text = str(node.value)
    if unfit := unfit_character(text):
        raise _NotPlainError(node, f"a string contains the control character or line break {unfit}", "remove it")
    if len(text) > MOST_CHARACTERS:
        raise _NotPlainError(node, f"{_short(text)} is longer than {MOST_CHARACTERS} characters")
    return text


def _short(text: str, *, most: int = 40) -> str:
    return text if len(text) <= most else f"{text[: most - 1]}…"
