import pytest
from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerFast

from core.backbone.prompts import image_prompt_tokens
from core.backbone.tiny import CHAT_TEMPLATE
from core.errors import UserError

# What both make of real input is compared with transformers' own processor in test_internvl.


def test_a_tokenizer_without_image_tokens_is_refused() -> None:
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.WordLevel({"a": 0}, "a")), chat_template=CHAT_TEMPLATE
    )
    with pytest.raises(UserError, match="has no tokens that stand for an image"):
        image_prompt_tokens(tokenizer, "What is it?", 4)
