"""README.md of an exported model: the hub's front matter, how to use it, and the model card of the final model."""

import re

from core.files.yaml_files import dump_plain
from core.inference.encoding import backbone_of
from core.inference.retrieval_model import RetrievalModel

USE = """## Use

```python
from core import ImageIndex, load_model  # pip install crossmodal-search

model = load_model("{place}"{backbone})
index = ImageIndex.open(model, "pictures")
for match in model.search("a white dome left of the car park", index, top=5):
    print(match.path, match.score, match.box)
```"""


def export_card(model: RetrievalModel, *, place: str, written: str | None) -> str:
    """The card as Markdown.

    Args:
        place: by which others load the model: its repository, or its folder.
        written: model card of the final model; None where there is none.
    """
    backbone = backbone_of(model.config)
    local = backbone.startswith("/")
    facts: dict[str, object] = {
        "library_name": "crossmodal-search",
        "pipeline_tag": "feature-extraction",
        "tags": ["image-text-retrieval", "grounding", "safetensors"],
    }
    if not local:
        facts["base_model"] = backbone
    use = USE.format(place=place, backbone=', backbone="FOLDER OF THE BACKBONE"' if local else "")
    title, rest = _split(written or _plain(model))
    return f"---\n{dump_plain(facts)}---\n\n{title}\n\n{use}\n\n{rest}"


def _split(card: str) -> tuple[str, str]:
    """Title with introduction, and the sections."""
    start = re.search(r"^## ", card, flags=re.MULTILINE)
    return (card[: start.start()].rstrip(), card[start.start() :]) if start else (card.rstrip(), "")


def _plain(model: RetrievalModel) -> str:
    """A card of a model that is not a campaign's final one."""
    checkpoint, parameters = model.checkpoint, model.checkpoint.receipt.parameters
    backbone, epoch = backbone_of(model.config).rpartition("/")[2], checkpoint.history[checkpoint.epoch]
    notes = "\n".join(f"- {note[0].upper()}{note[1:]}." for note in model.notes()) or "- None is known."
    return (
        "# Adapters for image-text retrieval\n\n"
        f"Adapters and heads with {parameters:,} trainable parameters on a frozen {backbone}, after epoch "
        f"{checkpoint.epoch}.\n\n"
        f"## Validation\n\nrecall_mean {epoch.recall_mean:.4f} on {epoch.gallery_images} images and "
        f"{epoch.gallery_texts} texts. There is no figure of a test split.\n\n"
        f"## Limits\n\n{notes}\n"
    )
