"""Tiny models of the Phi-3 family, built from its real configuration class with random weights."""

from __future__ import annotations

from typing import Any

import torch

from genba_shared.torchvision import make_torchvision_importable


def tiny_phi3(*, seed: int = 0, layers: int = 2, hidden: int = 64, vocab: int = 128, device: str = "cpu") -> Any:
    """Tied embeddings, grouped keys, partial rotary .75 and no biases, as Phi-4-mini has them."""
    make_torchvision_importable()
    from transformers import Phi3Config, Phi3ForCausalLM

    config = Phi3Config(
        vocab_size=vocab,
        hidden_size=hidden,
        intermediate_size=2 * hidden,
        num_hidden_layers=layers,
        num_attention_heads=hidden // 16,
        num_key_value_heads=max(1, hidden // 32),
        partial_rotary_factor=0.75,
        tie_word_embeddings=True,
        max_position_embeddings=256,
        original_max_position_embeddings=256,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
    )
    torch.manual_seed(seed)
    with torch.device(device):
        return Phi3ForCausalLM(config)


def phi4_mini_shape() -> Any:
    """The full shape of Phi-4-mini on the meta device: no memory is taken."""
    make_torchvision_importable()
    from transformers import Phi3Config, Phi3ForCausalLM

    config = Phi3Config(
        vocab_size=200_064,
        hidden_size=3072,
        intermediate_size=8192,
        num_hidden_layers=32,
        num_attention_heads=24,
        num_key_value_heads=8,
        partial_rotary_factor=0.75,
        tie_word_embeddings=True,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
    )
    with torch.device("meta"):
        return Phi3ForCausalLM(config)


def tokens(batch: int = 2, length: int = 24, *, vocab: int = 128, seed: int = 1) -> torch.Tensor:
    """Token ids that are none of the special ones."""
    return torch.randint(3, vocab, (batch, length), generator=torch.Generator().manual_seed(seed))
