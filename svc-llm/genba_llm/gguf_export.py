"""A model folder of the Phi-3 family as one GGUF file, for llama.cpp, Ollama and LM Studio.

``qkv_proj`` and ``gate_up_proj`` stay fused, as the architecture ``phi3`` has them there. F16, F32 and Q8_0 are written here; the
K-quants (Q4_K_M, Q6_K) by llama.cpp itself, from the F16 file, where ``llama-cpp-python`` is installed.
"""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt
import torch

from genba_llm.refused import Refused

Quant = Literal["F32", "F16", "Q8_0", "Q4_K_M", "Q6_K"]
WRITTEN_HERE: Final = ("F32", "F16", "Q8_0")
_FILE_TYPES: Final = {"F32": 0, "F16": 1, "Q8_0": 7}
_LLAMA_FILE_TYPES: Final = {"Q4_K_M": 15, "Q6_K": 18}
_K_BLOCK, _Q8_BLOCK = 256, 32
_NORMAL, _CONTROL, _USER_DEFINED, _UNUSED = 1, 3, 4, 5
_LAYER: Final = {
    "input_layernorm": "attn_norm",
    "self_attn.qkv_proj": "attn_qkv",
    "self_attn.o_proj": "attn_output",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
_TOP: Final = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}


class CannotExport(Refused):
    """The model cannot become a GGUF file of this kind."""


def gguf_name(name: str) -> str:
    """``model.layers.0.self_attn.qkv_proj.weight`` → ``blk.0.attn_qkv.weight``. Raises: CannotExport for a tensor that phi3 has not."""
    stem = name.removesuffix(".weight")
    if stem in _TOP and stem != name:
        return f"{_TOP[stem]}.weight"
    parts = stem.split(".", 3)
    if stem != name and parts[:2] == ["model", "layers"] and len(parts) == 4 and parts[3] in _LAYER:
        return f"blk.{parts[2]}.{_LAYER[parts[3]]}.weight"
    message = f"The architecture phi3 has no tensor for {name}."
    raise CannotExport(message)


def export_gguf(
    model: Any, tokenizer: Any, path: Path, *, quant: Quant = "F16", name: str = "genba", pre: str | None = None
) -> Path:
    """Write ``model`` (transformers, Phi-3 family, floating point) with its tokenizer to ``path``.

    ``pre`` names llama.cpp's rule for splitting text before the merges; without it, it is read off the tokenizer.
    Raises: CannotExport for an adapted or quantised model, rows that a K-quant cannot hold, or an unknown splitting rule.
    """
    if quant not in WRITTEN_HERE:
        return _k_quant(model, tokenizer, path, quant=quant, name=name, pre=pre)
    import gguf

    kinds = gguf.GGMLQuantizationType
    writer = gguf.GGUFWriter(path, "phi3")
    _write_shape(writer, model.config, name, _FILE_TYPES[quant])
    _write_tokenizer(writer, tokenizer, model.config.vocab_size, pre)
    for tensor_name, values in _tensors(model):
        wide = values.ndim == 2
        if wide and quant == "Q8_0" and values.shape[-1] % _Q8_BLOCK == 0:
            writer.add_tensor(tensor_name, gguf.quants.quantize(values, kinds.Q8_0), raw_dtype=kinds.Q8_0)
        else:  # norms and rope factors stay in single precision: llama.cpp reads them so
            writer.add_tensor(tensor_name, values.astype(np.float16) if wide and quant != "F32" else values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@torch.no_grad()
def as_q8_0(model: Any) -> Any:
    """A copy of ``model`` whose matrices hold what its Q8_0 file does, to be measured where no llama.cpp is."""
    import gguf

    kind = gguf.GGMLQuantizationType.Q8_0
    quantised = copy.deepcopy(model)
    for parameter in quantised.parameters():
        if parameter.ndim != 2:
            continue
        values = parameter.detach().float().cpu().numpy()
        if values.shape[-1] % _Q8_BLOCK == 0:
            values = gguf.quants.dequantize(gguf.quants.quantize(values, kind), kind).astype(np.float32)
        else:
            values = values.astype(np.float16).astype(np.float32)
        parameter.copy_(torch.from_numpy(values))
    return quantised


def modelfile(gguf_file: str, tokenizer: Any, *, temperature: float = 0.0) -> str:
    """An Ollama Modelfile whose TEMPLATE writes conversations as the tokenizer's chat template does.

    Repetition is not punished, as a server does unless told otherwise: an answer repeats the words of its documents.
    """
    template = go_template(tokenizer)
    stops = "\n".join(f'PARAMETER stop "{token}"' for token in _stops(tokenizer))
    set_to = f"PARAMETER temperature {temperature:g}\nPARAMETER repeat_penalty 1"
    return f'FROM ./{gguf_file}\nTEMPLATE """{template}"""\n{set_to}\n{stops}\n'


def go_template(tokenizer: Any) -> str:
    """The chat template as a Go template, read off what the tokenizer writes for one message of each role.

    Raises: CannotExport if the template is not a plain sequence of messages, and then there is no equal Go template.
    """
    marks = {role: f"@@{role}@@" for role in ("system", "user", "assistant")}
    whole = [{"role": role, "content": mark} for role, mark in marks.items()]
    wraps = {role: _wrap(tokenizer, role, mark) for role, mark in marks.items()}
    head = (
        str(tokenizer.bos_token)
        if tokenizer.apply_chat_template(whole, tokenize=False).startswith(str(tokenizer.bos_token))
        else ""
    )
    told = tokenizer.apply_chat_template(whole, tokenize=False)
    built = head + "".join(before + marks[role] + after for role, (before, after) in wraps.items())
    prompt = tokenizer.apply_chat_template(whole[:2], tokenize=False, add_generation_prompt=True)
    opening = prompt[len(head + "".join(wraps[r][0] + marks[r] + wraps[r][1] for r in ("system", "user"))) :]
    if not told.startswith(built) or opening != wraps["assistant"][0]:
        raise CannotExport(
            "The chat template is more than a sequence of messages; write the Modelfile's TEMPLATE by hand."
        )
    parts = "".join(
        f'{{{{ if eq .Role "{role}" }}}}{before}{{{{ .Content }}}}{after}{{{{ end }}}}'
        for role, (before, after) in wraps.items()
    )
    return f"{head}{{{{ range .Messages }}}}{parts}{{{{ end }}}}{opening}"


def _wrap(tokenizer: Any, role: str, mark: str) -> tuple[str, str]:
    """What stands before and after a message of a role."""
    text = tokenizer.apply_chat_template([{"role": role, "content": mark}], tokenize=False)
    if tokenizer.bos_token:
        text = text.removeprefix(str(tokenizer.bos_token))
    before, found, after = text.partition(mark)
    if not found:
        message = f"The chat template does not write the content of a {role} message."
        raise CannotExport(message)
    return before, after


def _stops(tokenizer: Any) -> list[str]:
    return list(dict.fromkeys(str(token) for token in (tokenizer.eos_token, "<|end|>") if token))


def _tensors(model: Any) -> Iterator[tuple[str, npt.NDArray[np.float32]]]:
    tied = bool(model.config.tie_word_embeddings)
    for name, tensor in model.state_dict().items():
        if name == "lm_head.weight" and tied:
            continue
        yield gguf_name(name), tensor.detach().float().cpu().numpy()
    yield from _rope_factors(model.config)


def _rope_factors(config: Any) -> Iterator[tuple[str, npt.NDArray[np.float32]]]:
    rope = dict(config.rope_parameters or {})
    if rope.get("rope_type") == "longrope":
        yield "rope_factors_long.weight", np.asarray(rope["long_factor"], np.float32)
        yield "rope_factors_short.weight", np.asarray(rope["short_factor"], np.float32)


def _write_shape(writer: Any, config: Any, name: str, file_type: int) -> None:
    rope = dict(config.rope_parameters or {})
    head = config.hidden_size // config.num_attention_heads
    context, original = config.max_position_embeddings, config.original_max_position_embeddings
    writer.add_name(name)
    writer.add_context_length(context)
    writer.add_rope_scaling_orig_ctx_len(original)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_dimension_count(int(head * float(rope.get("partial_rotary_factor", 1.0))))
    writer.add_rope_freq_base(float(rope.get("rope_theta", 10_000.0)))
    writer.add_sliding_window(config.sliding_window or 0)
    writer.add_file_type(file_type)
    if rope.get("rope_type") == "longrope":
        scale = context / original
        writer.add_rope_scaling_attn_factors(
            math.sqrt(1.0 + math.log(scale) / math.log(original)) if scale > 1.0 else 1.0
        )


def _write_tokenizer(writer: Any, tokenizer: Any, vocab_size: int, pre: str | None) -> None:
    document = json.loads(tokenizer.backend_tokenizer.to_str())
    model = document["model"]
    if model.get("type") != "BPE":
        message = f"The tokenizer is a {model.get('type')}; byte-level BPE is what is exported."
        raise CannotExport(message)
    tokens: list[str | None] = [None] * vocab_size
    kinds = [_UNUSED] * vocab_size
    for token, index in model["vocab"].items():
        tokens[index], kinds[index] = token, _NORMAL
    for added in document["added_tokens"]:
        tokens[added["id"]], kinds[added["id"]] = added["content"], _CONTROL if added["special"] else _USER_DEFINED
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(pre or _pre_of(document))
    writer.add_token_list([token if token is not None else f"[PAD{index}]" for index, token in enumerate(tokens)])
    writer.add_token_types(kinds)
    writer.add_token_merges([merge if isinstance(merge, str) else " ".join(merge) for merge in model["merges"]])
    for token_id, add in (
        (tokenizer.bos_token_id, writer.add_bos_token_id),
        (tokenizer.eos_token_id, writer.add_eos_token_id),
        (tokenizer.pad_token_id, writer.add_pad_token_id),
    ):
        if token_id is not None:
            add(token_id)
    writer.add_add_bos_token(value=False)  # the chat template writes it where it belongs
    if tokenizer.chat_template:
        writer.add_chat_template(tokenizer.chat_template)


def _pre_of(document: dict[str, Any]) -> str:
    """llama.cpp's name of the splitting rule: plain ByteLevel is GPT-2's; a Split with GPT-4o's case classes is gpt-4o."""
    pre = document.get("pre_tokenizer") or {}
    steps = pre.get("pretokenizers", [pre])
    if [step.get("type") for step in steps] == ["ByteLevel"] and steps[0].get("use_regex", True):
        return "gpt-2"
    if any("\\p{Lm}" in json.dumps(step) for step in steps):
        return "gpt-4o"
    raise CannotExport("How this tokenizer splits text is not known to llama.cpp by a name known here; give `pre`.")


def _k_quant(model: Any, tokenizer: Any, path: Path, *, quant: Quant, name: str, pre: str | None) -> Path:
    try:
        import llama_cpp
    except ImportError as err:
        message = (
            f"{quant} is written by llama.cpp: install genba[gguf]. Without it there are {', '.join(WRITTEN_HERE)}."
        )
        raise CannotExport(message) from err
    odd = [each for each, values in _tensors(model) if values.ndim == 2 and values.shape[-1] % _K_BLOCK]
    if odd:
        message = f"{quant} needs rows divisible by {_K_BLOCK}; {odd[0]} and {len(odd) - 1} more are not."
        raise CannotExport(message)
    plain = export_gguf(model, tokenizer, path.with_suffix(".f16.tmp"), quant="F16", name=name, pre=pre)
    try:
        params = llama_cpp.llama_model_quantize_default_params()
        params.ftype = _LLAMA_FILE_TYPES[quant]
        status = llama_cpp.llama_model_quantize(str(plain).encode(), str(path).encode(), params)
    finally:
        plain.unlink(missing_ok=True)
    if status:
        message = f"llama.cpp could not write {quant} (status {status})."
        raise CannotExport(message)
    return path
