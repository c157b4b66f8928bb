"""A backbone with InternVL3-1B's architecture and random weights: as slow as the real one, without a download."""

import torch
from transformers import InternVLConfig, InternVLModel, InternVLVisionConfig, Qwen2Config

from benchmarks.demo import demo_campaign
from core.backbone.internvl import FrozenBackbone, load_backbone

VISION_DIM, TEXT_DIM = 1024, 896


def full_size_backbone(device: str, dtype: torch.dtype, *, layers: int = 24, micro_batch: int) -> FrozenBackbone:
    """InternVL3-1B's architecture with random weights; the tokenizer is the demo's."""
    vision = InternVLVisionConfig(
        hidden_size=VISION_DIM,
        num_hidden_layers=layers,
        num_attention_heads=16,
        intermediate_size=4096,
        image_size=448,
        patch_size=14,
        attention_bias=True,
    )
    text = Qwen2Config(
        vocab_size=151_674,
        hidden_size=TEXT_DIM,
        num_hidden_layers=layers,
        num_attention_heads=14,
        num_key_value_heads=2,
        intermediate_size=4864,
    )
    config = demo_campaign().base.features
    tiny = load_backbone(config, "cpu")
    tokenizer, processor, image_token = tiny._tokenizer, tiny._image_processor, tiny._model.config.image_token_id
    with torch.device(device):
        whole = InternVLConfig(vision_config=vision, text_config=text, image_token_id=image_token)
        model = InternVLModel(whole).to(dtype)
    full = config.model_copy(update={"image_size": 448, "max_tokens": 128, "micro_batch": micro_batch})
    return FrozenBackbone(model, tokenizer, processor, full)
