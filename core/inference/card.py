"""README.md of an exported model: the hub's front matter, how to use it, and the model card of the final model."""

import re

from core.files.yaml_files import dump_plain
from core.inference.retrieval_model import RetrievalModel

USE = """## Use

```python
from core import ImageIndex, load_model  # pip install crossmodal-search

model = load_model("{place}"{backbone})
index = ImageIndex.open(model, "pictures")
for match in model.search("a white dome left of the car park", index, top=5):
    print(match.path, match.score, match.box)
```"""


USE_OF_VECTORS = """## Use

```python
from core import load_model  # pip install crossmodal-search

model = load_model("{place}")
images = model.embed_image_vectors(image_vectors)  # [N, {images}]: {image_readings}, side by side
texts = model.embed_text_vectors(text_vectors)  # [N, {texts}]: {text_readings}, side by side
similarity = texts @ images.T
```"""


def export_card(model: RetrievalModel, *, place: str, written: str | None) -> str:
    """The card as Markdown.

    Args:
        place: by which others load the model: its repository, or its folder.
        written: model card of the final model; None where there is none.
    """
    backbone = model.config.features.backbone
    facts: dict[str, object] = {
        "library_name": "crossmodal-search",
        "pipeline_tag": "feature-extraction",
        "tags": ["image-text-retrieval", *(["grounding"] if model.learned("box") else []), "safetensors"],
    }
    if backbone is not None and not backbone.startswith("/"):
        facts["base_model"] = backbone
    title, rest = _split(written or _plain(model))
    return f"---\n{dump_plain(facts)}---\n\n{title}\n\n{_use(model, place)}\n\n{rest}"


def _use(model: RetrievalModel, place: str) -> str:
    """How to use it in Python: with pictures and texts, or with vectors where it reads those of other encoders."""
    features, readings = model.config.features, model.config.readings
    if any(reading.is_vector for reading in readings.all):
        return USE_OF_VECTORS.format(
            place=place,
            images=model.widths.images,
            image_readings=features.image,
            texts=model.widths.texts,
            text_readings=features.text,
        )
    local = str(features.backbone).startswith("/")
    return USE.format(place=place, backbone=', backbone="FOLDER OF THE BACKBONE"' if local else "")


def _split(card: str) -> tuple[str, str]:
    """Title with introduction, and the sections."""
    start = re.search(r"^## ", card, flags=re.MULTILINE)
    return (card[: start.start()].rstrip(), card[start.start() :]) if start else (card.rstrip(), "")


def _plain(model: RetrievalModel) -> str:
    """A card of a model that is not a campaign's final one."""
    checkpoint, parameters = model.checkpoint, model.checkpoint.receipt.parameters
    encoders, epoch = model.config.features.encoders, checkpoint.history[checkpoint.epoch]
    notes = "\n".join(f"- {note[0].upper()}{note[1:]}." for note in model.notes()) or "- None is known."
    return (
        "# Adapters for image-text retrieval\n\n"
        f"Adapters and heads with {parameters:,} trainable parameters on {encoders}, after epoch "
        f"{checkpoint.epoch}.\n\n"
        f"## Validation\n\nrecall_mean {epoch.recall_mean:.4f} on {epoch.gallery_images} images and "
        f"{epoch.gallery_texts} texts. There is no figure of a test split.\n\n"
        f"## Limits\n\n{notes}\n"
    )
