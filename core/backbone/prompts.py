"""Images and texts in the checkpoint's own chat template, followed by a prompt, as token ids."""

from collections.abc import Sequence
from typing import Any

from core.errors import UserError

ANSWER = {"add_generation_prompt": True, "tokenize": False}


def image_prompt_tokens(tokenizer: Any, prompt: str, image_tokens: int) -> list[int]:
    """Token ids of an image and a prompt; the image is `image_tokens` times the tokenizer's image token.

    Equal to what transformers' InternVLProcessor makes of one image of one tile.

    Raises:
        UserError: the checkpoint has no usable chat template, or no tokens that stand for an image.
    """
    content = [{"type": "image"}, {"type": "text", "text": prompt}]
    try:
        start, token, end = (
            getattr(tokenizer, f"{name}_image_token") for name in ("start", "context", "end")
        )  # as InternVLProcessor names them
    except AttributeError:
        raise UserError("the tokenizer has no tokens that stand for an image, which lm readings need") from None
    rendered = _render(tokenizer, content, prompt)
    if rendered.count(token) != 1:
        raise UserError("the chat template or the prompt does not hold the image exactly once")
    return list(tokenizer(rendered.replace(token, f"{start}{token * image_tokens}{end}"))["input_ids"])


def text_prompt_tokens(tokenizer: Any, texts: Sequence[str], prompt: str, max_tokens: int) -> list[list[int]]:
    """Token ids of each text, of at most `max_tokens` tokens, and a prompt below it.

    Raises:
        UserError: the checkpoint has no usable chat template.
    """
    plain = tokenizer(list(texts), truncation=True, max_length=max_tokens, return_offsets_mapping=True)
    ends = [offsets[-1][1] if offsets else None for offsets in plain["offset_mapping"]]
    rendered = [_render(tokenizer, f"{text[:end]}\n{prompt}", prompt) for text, end in zip(texts, ends, strict=True)]
    return list(tokenizer(rendered)["input_ids"])


def _render(tokenizer: Any, content: Any, prompt: str) -> str:
    if not getattr(tokenizer, "chat_template", None):
        raise UserError("the checkpoint has no chat template, which readings by prompt need")
    try:
        rendered: str = tokenizer.apply_chat_template([{"role": "user", "content": content}], **ANSWER)
    except Exception as error:  # whatever the template of a checkpoint raises
        reason = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
        raise UserError(f"the chat template cannot be rendered ({reason})") from None
    if prompt.strip() not in rendered:
        raise UserError("the chat template leaves the prompt out")
    return rendered
