"""A tokenizer of the project's own: byte-level BPE with the Phi family's turns as control tokens and the thinking's tags whole.

The tags are no control tokens: those vanish when text is decoded, and a thought without its tags would pass for an answer.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from genba_llm.turns import BOS, CHAT_TEMPLATE, END, EOS, PAD, ROLES, turn_mark
from genba_shared.torchvision import make_torchvision_importable

LONGEST_BYTES: Final = 32  # llama-cpp-python 0.3.36 writes nothing for a longer token
TURNS: Final = tuple(map(turn_mark, ROLES))
TAGS: Final = tuple(
    f"<{slash}{tag}>" for tag in ("think-task", "think-safety", "think-policy", "final") for slash in ("", "/")
)


def train_tokenizer(texts: Iterable[str], *, vocab_size: int, max_tokens: int) -> Any:
    """A transformers tokenizer learned from ``texts``; the same texts in the same order give the same one.

    Raises: ValueError for a vocabulary that does not hold the bytes and the control tokens.
    """
    make_torchvision_importable()
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    special = [PAD, BOS, EOS, END, *TURNS]
    least = 256 + len(special) + len(TAGS)
    if vocab_size < least:
        message = f"vocab_size {vocab_size} is less than {least}: the bytes, the control tokens and the tags."
        raise ValueError(message)
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size - len(TAGS),
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        max_token_length=LONGEST_BYTES,  # in the alphabet's characters, which are bytes
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.add_tokens([AddedToken(tag, special=False, normalized=False) for tag in TAGS])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        bos_token=BOS,
        eos_token=END,
        model_max_length=max_tokens,
        chat_template=CHAT_TEMPLATE,
        clean_up_tokenization_spaces=False,
    )
