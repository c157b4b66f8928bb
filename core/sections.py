"""What every YAML file of the project has in common: sections, their validation, and errors that name the mistake.

Frozen pydantic models; an unknown key is an error that names the file, the key and the nearest valid one.
"""

import hashlib
import json
import reprlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Strict, ValidationError

from core.errors import UserError
from core.files.yaml_files import dump_plain, load_yaml
from core.places import require_place
from core.similar_names import similar_names

Scalar = str | int | float | bool


def _require_number(value: object) -> object:
    if isinstance(value, bool):
        raise ValueError("must be a number")
    if isinstance(value, str):
        raise ValueError("must be a number like 10, 0.5 or 1e-4")
    return value


Integer = Annotated[int, Strict()]
Number = Annotated[float, BeforeValidator(_require_number)]


class Section(BaseModel):
    """Base class of everything read from YAML: frozen, unknown keys are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, validate_default=True)

    @classmethod
    def refuse_other_kind(cls, content: object, path: Path) -> None:
        """Raise UserError if the file is recognised as one of another kind."""


ModelT = TypeVar("ModelT", bound=BaseModel)
SectionT = TypeVar("SectionT", bound="Section")
BASE = "base"
"""Key that names the file to take all other settings from."""


def parse(kind: type[ModelT], content: object, *, where: object, base: Path | None = None) -> ModelT:
    """Validate plain YAML content as a section, or as a model in one.

    Args:
        where: prefix of error messages, usually the file.
        base: folder that relative paths are relative to; None leaves them unchanged.
    Raises:
        UserError: names `where`, the key and, for an unknown key, a similar valid one.
    """
    if not isinstance(content, dict):
        raise UserError(f"must be a mapping of settings, not {shown(content)}", where=where)
    try:
        return kind.model_validate(content, context={"base": base})
    except ValidationError as error:
        raise UserError(_first_problem(kind, error), where=where) from None
    except UserError as error:  # from another file that this one names
        raise UserError(str(error), where=where) from None


def load_section(kind: type[SectionT], path: Path, *, above: tuple[Path, ...] = ()) -> SectionT:
    """Read a file as a section; its key `base` names another file, which provides the settings that it omits.

    A base must be valid by itself. Every path is relative to the folder of the file that contains it.

    Args:
        above: files that have this one as a base, to detect cycles.
    Raises:
        UserError: names the file with the mistake, after the files that have it as a base.
    """
    content = load_yaml(path)
    kind.refuse_other_kind(content, path)
    if isinstance(content, dict) and BASE in content:
        own = {key: value for key, value in content.items() if key != BASE}
        below = _load_base(kind, content[BASE], path, above)
        content = _merged(kind, below.model_dump(mode="json", by_alias=True), own)
    return parse(kind, content, where=path, base=path.resolve().parent)


def _load_base(kind: type[SectionT], name: object, path: Path, above: tuple[Path, ...]) -> SectionT:
    above = (*above, path.resolve())
    try:
        if not isinstance(require_place(name), str):
            raise UserError(f"must be the name of a file, not {shown(name)}")
        base = above[-1].parent / Path(str(name)).expanduser()
        if base.resolve() in above:
            raise UserError(f"{name} leads back to this file", how="name another file")
        return load_section(kind, base, above=above)
    except (ValueError, UserError) as error:
        raise UserError(f"{BASE}: {error}", where=path) from None


def _merged(kind: type[BaseModel], below: dict[str, Any], own: dict[str, Any]) -> dict[str, Any]:
    """Settings of a base, overridden by those of the file; sections are merged, other values replaced."""
    merged = below | own
    for name, field in kind.model_fields.items():
        section, changes = field.annotation, own.get(name)
        if isinstance(section, type) and issubclass(section, BaseModel) and isinstance(changes, dict):
            merged[name] = _merged(section, below[name], changes)
    return merged


def dump_yaml(section: Section) -> str:
    """The section as YAML, defaults included."""
    return dump_plain(section.model_dump(mode="json", by_alias=True))


def hash_of(content: object) -> str:
    """Hash of plain JSON data, independent of the order of keys: sixteen hexadecimal digits."""
    canonical = json.dumps(content, sort_keys=True)
    return hashlib.sha256(canonical.encode()).hexdigest()[:16]


def dotted_keys(kind: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """Every setting of a section as a dotted path, e.g. 'loss.itm'."""
    for name, field in kind.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, Section):
            yield from dotted_keys(field.annotation, f"{prefix}{name}.")
        else:
            yield f"{prefix}{field.alias or name}"


def unknown_key(path: str, kind: type[BaseModel], sections: Iterable[str] = ()) -> str:
    """Error message for an unknown key; suggests a similar one, or lists the valid ones.

    Args:
        sections: names of sections to suggest, too.
    """
    settings = list(dotted_keys(kind))
    if inside := [key for key in settings if key.startswith(f"{path}.")]:
        return f"{path} is not a setting but a section; its settings are {', '.join(inside)}"
    problem = f"{path if path.strip().isprintable() and 0 < len(path.strip()) <= 80 else shown(path)} is not a setting"
    if near := similar_names(path[:80], settings, sections):
        return f"{problem}; did you mean {' or '.join(near)}?"
    section = path.rpartition(".")[0]
    siblings = [key for key in settings if section and key.startswith(f"{section}.")]
    return f"{problem}; valid names are {', '.join(siblings or dict.fromkeys(key.split('.')[0] for key in settings))}"


_MESSAGES = {
    "missing": "is missing; add it",
    "model_type": "must be a mapping of settings",
    "dict_type": "must be a mapping of settings",
    "list_type": "must be a list",
    "path_type": "must be the name of a file or folder, in quotes if it looks like a number",
    "string_type": "must be a string, in quotes if it looks like a number",
}
"""Type of a pydantic error → message used instead of pydantic's own."""


def _first_problem(kind: type[BaseModel], error: ValidationError) -> str:
    problem = error.errors(include_url=False)[0]
    path = ".".join(str(part) for part in problem["loc"])
    if problem["type"] == "extra_forbidden":
        return _unknown_in_file(path, kind)
    message = _MESSAGES.get(problem["type"], problem["msg"].removeprefix("Value error, "))
    if isinstance(problem["input"], Scalar | None) or problem["type"].endswith("_type"):
        message = f"{message}, not {shown(problem['input'])}"
    return f"{path}: {message}" if path else message


def _unknown_in_file(path: str, kind: type[BaseModel]) -> str:
    settings = list(dotted_keys(kind))
    if path in settings:
        *sections, name = path.split(".")
        nested = "".join(f"{section}: {{" for section in sections) + f"{name}: …" + "}" * len(sections)
        return f"{path} is written as one key, but {name} belongs in {'.'.join(sections)}: write {nested}"
    return unknown_key(path, kind, {key[: key.rindex(".")] for key in settings if "." in key})


def shown(value: object) -> str:
    """A value as messages quote it: short, on one line; a URL is not shown, since it may contain a password."""
    if value is None:
        return "null"
    if isinstance(value, dict | list):
        return "a mapping" if isinstance(value, dict) else "a list"
    return "the URL given" if isinstance(value, str) and "://" in value else _SHORT.repr(value)


_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = 60
