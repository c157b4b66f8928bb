"""A tiny random InternVL of the real transformers classes, for demos and tests."""

from collections.abc import Sequence
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    GotOcr2ImageProcessorPil,
    InternVLConfig,
    InternVLModel,
    InternVLVisionConfig,
    PreTrainedTokenizerFast,
    Qwen2Config,
)
from transformers.utils import logging as transformers_logging

WEIGHT_STD, POSITION_STD = 0.09, 0.6
CHAT_TEMPLATE = """{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' }}\
{% if message['content'] is string %}{{ message['content'] }}{% else %}{% for content in message['content'] %}\
{% if content['type'] == 'image' %}{{ '<IMG_CONTEXT>\n' }}{% else %}{{ content['text'] }}{% endif %}{% endfor %}\
{% endif %}{{ '<|im_end|>\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"""
"""The layout of InternVL3's own."""
IMAGE_TOKENS = {
    "start_image_token": "<img>", "end_image_token": "</img>", "context_image_token": "<IMG_CONTEXT>",
    "video_token": "<video>",
}  # fmt: skip


def build_tiny_checkpoint(folder: Path, texts: Sequence[str], *, seed: int) -> None:
    """Save a random InternVL of fewer than 3 million parameters, built from the real classes, with its own tokenizer.

    Args:
        texts: training data of the byte-level BPE tokenizer.
    """
    transformers_logging.disable_progress_bar()
    tokenizer = _train_tokenizer(texts)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = InternVLModel(_tiny_config(tokenizer))
        _initialise_tower(model.vision_tower)
    folder.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    GotOcr2ImageProcessorPil(
        size={"height": 112, "width": 112},
        crop_to_patches=False,
        image_mean=[0.485, 0.456, 0.406],
        image_std=[0.229, 0.224, 0.225],
    ).save_pretrained(folder)


def _initialise_tower(tower: torch.nn.Module) -> None:
    """Weights of a size at which position and content both reach the output.

    transformers leaves position embeddings and CLS at zero and weights so small that the tower is nearly linear; such
    a tower tells nothing of where an object is.
    """
    for name, parameter in tower.named_parameters():
        if name.endswith(("position_embeddings", "cls_token")):
            torch.nn.init.normal_(parameter, std=POSITION_STD)
        elif ".lambda_" in name:
            torch.nn.init.ones_(parameter)
        elif parameter.ndim >= 2:
            torch.nn.init.normal_(parameter, std=WEIGHT_STD)


def _tiny_config(tokenizer: PreTrainedTokenizerFast) -> InternVLConfig:
    vision = InternVLVisionConfig(
        hidden_size=128,
        num_hidden_layers=3,
        num_attention_heads=4,
        intermediate_size=256,
        image_size=112,
        patch_size=14,
        attention_bias=True,
    )
    text = Qwen2Config(
        vocab_size=len(tokenizer),
        hidden_size=112,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        intermediate_size=256,
        max_position_embeddings=512,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    image_token_id = tokenizer.convert_tokens_to_ids("<IMG_CONTEXT>")
    return InternVLConfig(vision_config=vision, text_config=text, image_token_id=image_token_id)


def _train_tokenizer(texts: Sequence[str]) -> PreTrainedTokenizerFast:
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", *IMAGE_TOKENS.values()]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=1024,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<|endoftext|>",
        eos_token="<|im_end|>",
        padding_side="right",
        extra_special_tokens=IMAGE_TOKENS,
        chat_template=CHAT_TEMPLATE,
    )
