"""The files of a checkpoint that are loaded, determined by name before any is read.

Fingerprints cover exactly these files, and `core.backbone.internvl` loads from a folder that contains nothing else, so
a loaded file cannot be missing from a fingerprint. Weights are safetensors; pickled ones are never read.
"""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
from typing import Any

from core.errors import UserError

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
VOCABULARIES = ("tokenizer.json", "tokenizer.*.json", "vocab.json", "vocab.txt", "tekken.json", "*.model", "*.tiktoken")
"""A tokenizer needs at least one of them."""
SETTINGS = (
    "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "merges.txt", "chat_template.jinja",
    "chat_template.json", "preprocessor_config.json", "processor_config.json",
)  # fmt: skip
CHECKPOINT_PATTERNS = ("config.json", "*.safetensors", "*.safetensors.index.json", *VOCABULARIES, *SETTINGS)
LFS_POINTER = b"version https://git-lfs"


def backbone_files(folder: Path) -> dict[str, Path]:
    """All files of an InternVL checkpoint that are loaded: name in the checkpoint → file.

    Symbolic links are followed, since the hub's cache consists of them.

    Raises:
        UserError: it is no InternVL checkpoint, has no safetensors weights or no vocabulary, lacks a shard, names one
            outside of the folder, or comes with an adapter.
    """
    config = _read_config(folder)
    if (folder / "adapter_config.json").exists():
        raise UserError("is an adapter, not a whole model", where=folder, how="merge it into its base model and save")
    names = sorted({"config.json", *_weights(folder, config), *_tokenizer(folder)})
    for name in names:
        with (folder / name).open("rb") as stream:
            if stream.read(len(LFS_POINTER)) == LFS_POINTER:
                raise UserError("is a pointer of Git LFS, not the file", where=folder / name, how="run git lfs pull")
    return {name: folder / name for name in names}


@contextmanager
def these_alone(files: Mapping[str, Path]) -> Iterator[Path]:
    """A temporary folder with links to these files only."""
    with TemporaryDirectory(prefix="backbone-") as folder:
        for name, path in files.items():
            link = Path(folder) / name
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(path.absolute())
        yield Path(folder)


def _read_config(folder: Path) -> dict[str, Any]:
    try:
        config: Any = json.loads((folder / "config.json").read_bytes())
        kind = config.get("model_type")
    except FileNotFoundError:
        raise UserError("holds no config.json, so it is no InternVL checkpoint", where=folder) from None
    except (OSError, ValueError, AttributeError, RecursionError):
        raise UserError("is not a valid checkpoint configuration", where=folder / "config.json") from None
    if kind != "internvl":
        raise UserError(
            f"is a {str(kind)[:40]} checkpoint, not InternVL",
            where=folder,
            how="use the '-hf' version of an InternVL, e.g. OpenGVLab/InternVL3-1B-hf",
        )
    return dict(config)


def _weights(folder: Path, config: Mapping[str, Any]) -> list[str]:
    """The weights file, or the index and its shards; the order is that of transformers."""
    configured = config.get("transformers_weights")
    if configured is not None:
        suffixes = (".safetensors", ".safetensors.index.json")
        _require_weights(folder, configured, where=folder / "config.json", suffixes=suffixes)
    name = str(configured or (WEIGHTS if (folder / WEIGHTS).is_file() else INDEX))
    if not (folder / name).is_file():
        raise _no_weights(folder)
    return [name, *_shards(folder, folder / name)] if name.endswith(".index.json") else [name]


def _no_weights(folder: Path) -> UserError:
    pickled = sorted(path.name for path in folder.iterdir() if path.suffix in (".bin", ".pt", ".pth", ".ckpt"))
    if not pickled:
        return UserError(f"has no {WEIGHTS}", where=folder, how="download the checkpoint again")
    return UserError(
        f"has no {WEIGHTS}, and {pickled[0]} is pickled: it can run code and is never read",
        where=folder,
        how="convert it where you trust it: AutoModel.from_pretrained(folder).save_pretrained(folder)",
    )


def _shards(folder: Path, index: Path) -> list[str]:
    try:
        content: Any = json.loads(index.read_bytes())
    except (OSError, ValueError, RecursionError):
        content = None
    match content:
        case {"weight_map": {**weights}, "metadata": {}} if weights:
            pass
        case _:
            raise UserError("is not an index of weights", where=index, how="download the checkpoint again")
    for shard in weights.values():
        _require_weights(folder, shard, where=index, suffixes=(".safetensors",))
    return sorted(set(map(str, weights.values())))


def _require_weights(folder: Path, name: Any, *, where: Path, suffixes: tuple[str, ...]) -> None:
    """Check that a name given by another file is a weights file inside the folder."""
    how = "download the checkpoint again"
    if not isinstance(name, str) or not name.endswith(suffixes) or "\0" in name:
        raise UserError(f"names {str(name)[:80]!r} as weights, which is no safetensors file", where=where, how=how)
    if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
        raise UserError(f"names weights outside of the checkpoint, {name[:80]!r}", where=where, how=how)
    if not (folder / name).is_file():
        raise UserError(f"names {name[:80]}, which is missing", where=where, how=how)


def _tokenizer(folder: Path) -> list[str]:
    """Vocabularies, and the settings of text and image processing."""
    vocabularies = [path.name for pattern in VOCABULARIES for path in folder.glob(pattern) if path.is_file()]
    if not vocabularies:
        raise UserError("has no tokenizer.json and no other vocabulary", where=folder, how="download it again")
    return [*vocabularies, *(name for name in SETTINGS if (folder / name).is_file())]
