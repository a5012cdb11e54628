"""From a trained adapter to a plain model, and from that to GGUF."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.llm.phi3_world import tiny_phi3
from tests.llm.run_world import local_run
from torch.nn import functional as F  # noqa: N812 - the usual name

from genba_llm.base_model import UnusableModel, empty_model, load_base, load_tokenizer
from genba_llm.finetune import Data, Finetuning, finetune
from genba_llm.finetune_config import config_of
from genba_llm.finish import load_gates, merged_model, reload, save_adapter, write_model
from genba_llm.gguf_export import CannotExport, export_gguf, gguf_name, go_template, modelfile
from genba_llm.memory_plan import memory_plan
from genba_llm.packing import Sample, pack
from genba_llm.tokenizer_training import LONGEST_BYTES, TAGS, train_tokenizer

# peft asks transformers by a name that transformers is about to rename.
pytestmark = pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")
TEXTS = ["点検の手順を確認します。", "患者の記録は閲覧できません。", "The valve is closed before the pump starts."] * 5
SMALL: dict[str, Any] = {
    "quantise": "none",
    "lora": {"rank": 4, "alpha": 8.0},
    "max_tokens": 48,
    "max_steps": 3,
    "accumulation": 1,
    "learning_rate": 2e-2,
    "gradient_checkpointing": False,
}


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return train_tokenizer(TEXTS, vocab_size=320, max_tokens=128)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory, tokenizer: Any) -> Path:
    folder = tmp_path_factory.mktemp("base")
    tiny_phi3(vocab=320).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def _data(tokenizer: Any) -> Data:
    samples = [Sample(tuple(tokenizer(text)["input_ids"][:40]), 2) for text in TEXTS]
    rows = [[samples[index] for index in group] for group in pack([len(each.ids) for each in samples], 48)]
    return Data(rows[1:], rows[:1], 48, tokenizer.pad_token_id)


def _trained(base: Path, tokenizer: Any, folder: Path, **changed: Any) -> tuple[Finetuning, Data]:
    data = _data(tokenizer)
    training = Finetuning(load_base(base), config_of({**SMALL, **changed}), seed=1)
    finetune(training, data, local_run(folder))
    return training, data


def test_the_finished_model_answers_like_the_trained_one_and_is_plain(
    base: Path, tokenizer: Any, tmp_path: Path
) -> None:
    training, data = _trained(base, tokenizer, tmp_path / "run")
    save_adapter(training, tmp_path / "adapter")
    ids = torch.tensor([data.validation[0][0].ids])
    training.model.eval()
    with torch.no_grad():
        expected = training.model(input_ids=ids).logits
    model, gates = merged_model(base, tmp_path / "adapter")
    certificate = write_model(model, gates, tokenizer, tmp_path / "model", probes=data.validation[0])
    assert certificate is not None
    assert certificate.holds
    plain, _ = reload(tmp_path / "model")
    with torch.no_grad():
        assert torch.allclose(plain(input_ids=ids).logits, expected, atol=1e-4)
    assert {name: tensor.shape for name, tensor in plain.state_dict().items()} == {
        name: tensor.shape for name, tensor in load_base(base).state_dict().items()
    }
    assert json.loads((tmp_path / "model" / "burn_in.json").read_text())["holds"] is True


def test_angles_of_another_base_are_refused(base: Path, tokenizer: Any, tmp_path: Path) -> None:
    training, _ = _trained(base, tokenizer, tmp_path / "run", max_steps=1)
    save_adapter(training, tmp_path / "adapter")
    with pytest.raises(ValueError, match="another base"):
        load_gates(tmp_path / "adapter", tiny_phi3(layers=3))


def test_a_base_of_another_family_or_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UnusableModel, match=r"config\.json is missing"):
        load_base(tmp_path / "nothing")
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    with pytest.raises(UnusableModel, match="'llama'"):
        load_base(tmp_path)


def test_a_base_whose_weights_were_cut_off_is_refused(base: Path, tmp_path: Path) -> None:
    cut = Path(shutil.copytree(base, tmp_path / "cut"))
    whole = (cut / "model.safetensors").read_bytes()
    (cut / "model.safetensors").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UnusableModel, match="'cut' cannot be loaded"):
        load_base(cut)


def test_a_tokenizer_without_a_chat_template_is_refused(base: Path, tmp_path: Path) -> None:
    plain = load_tokenizer(base)
    plain.chat_template = None
    plain.save_pretrained(tmp_path)
    with pytest.raises(UnusableModel, match="chat template"):
        load_tokenizer(tmp_path)


def test_control_tokens_are_one_token_each_and_text_comes_back(tokenizer: Any) -> None:
    for tag in TAGS:
        ids = tokenizer(tag)["input_ids"]
        assert len(ids) == 1
        assert tokenizer.decode(ids, skip_special_tokens=True) == tag, "a thought without its tags would be an answer"
    assert tokenizer.decode(tokenizer("<|end|>")["input_ids"], skip_special_tokens=True) == ""
    text = "未知の文字 𠮷 and ASCII"
    assert tokenizer.decode(tokenizer(text)["input_ids"]) == text


def test_no_token_is_longer_than_servers_write() -> None:
    texts = [
        "この質問に答えられる知識を持っていません",
        "関係する文書を登録していただければ、そこからお答えします。",
    ] * 50
    found = train_tokenizer(texts, vocab_size=640, max_tokens=128)
    assert 16 < max(map(len, found.get_vocab())) <= LONGEST_BYTES, "in an alphabet whose characters are bytes"


def test_the_same_texts_give_the_same_tokenizer(tokenizer: Any) -> None:
    again = train_tokenizer(TEXTS, vocab_size=320, max_tokens=128)
    assert again.backend_tokenizer.to_str() == tokenizer.backend_tokenizer.to_str()
    with pytest.raises(ValueError, match="vocab_size 200"):
        train_tokenizer(TEXTS, vocab_size=200, max_tokens=128)


def test_the_memory_plan_counts_what_is_trained_and_fits_a_twelve_gib_card(base: Path) -> None:
    from tests.llm.phi3_world import phi4_mini_shape

    config = config_of({"preset": "phi-4-mini", "max_tokens": 1024, "batch_size": 1})
    plan = memory_plan(phi4_mini_shape(), config)
    assert plan.n_trainable == 92_274_688 + 32 * 384 * 28
    assert 4.0 < plan.weights / 2**30 < 5.5
    assert plan.total / 2**30 < 12.0
    on_cpu = memory_plan(phi4_mini_shape(), config_of({"preset": "phi-4-mini", "quantise": "none"}), device="cpu")
    assert on_cpu.weights / 2**30 == pytest.approx(4 * 3.836e9 / 2**30, rel=0.01), "single precision"
    assert on_cpu.optimiser == 8.0 * on_cpu.n_trainable, "the 8-bit optimiser is for GPUs"
    assert "92,618,752 parameters" in plan.table()
    assert memory_plan(empty_model(base), config_of(SMALL)).n_trainable < 20_000


# -- GGUF ----------------------------------------------------------------------------------------------------------------


def _read(path: Path) -> tuple[dict[str, Any], dict[str, np.ndarray[Any, Any]]]:
    import gguf

    reader = gguf.GGUFReader(path)
    fields = {name: field.contents() for name, field in reader.fields.items()}
    tensors = {
        each.name: gguf.quants.dequantize(each.data, each.tensor_type).reshape(each.shape[::-1])
        for each in reader.tensors
    }
    return fields, tensors


def _kl(expected: torch.Tensor, found: torch.Tensor) -> float:
    log_p, log_q = F.log_softmax(expected.double(), -1), F.log_softmax(found.double(), -1)
    return float((log_p.exp() * (log_p - log_q)).sum(-1).mean())


@pytest.mark.parametrize(("quant", "at_most"), [("F32", 0.0), ("F16", 1e-5), ("Q8_0", 5e-3)])
def test_a_gguf_file_holds_the_models_shape_and_weights(
    base: Path, tokenizer: Any, tmp_path: Path, quant: Any, at_most: float
) -> None:
    training, data = _trained(base, tokenizer, tmp_path / "run", train="all", so8t=None)
    model = training.model
    training.close()
    fields, tensors = _read(export_gguf(model, tokenizer, tmp_path / "model.gguf", quant=quant))
    config = model.config
    assert fields["general.architecture"] == "phi3"
    assert fields["phi3.context_length"] == config.max_position_embeddings
    assert fields["phi3.rope.scaling.original_context_length"] == config.original_max_position_embeddings
    assert fields["phi3.rope.dimension_count"] == int(16 * 0.75)
    assert fields["phi3.attention.head_count_kv"] == config.num_key_value_heads
    assert fields["tokenizer.ggml.pre"] == "gpt-2"
    assert len(fields["tokenizer.ggml.tokens"]) == config.vocab_size
    assert "output.weight" not in tensors  # tied
    back = tiny_phi3(vocab=320).eval()
    state = {
        name: torch.from_numpy(tensors[gguf_name(name)].copy())
        for name in back.state_dict()
        if name != "lm_head.weight"
    }
    back.load_state_dict(state, strict=False)
    ids = torch.tensor([data.validation[0][0].ids])
    with torch.no_grad():
        assert _kl(model.eval()(input_ids=ids).logits, back(input_ids=ids).logits) <= at_most + 1e-12


def test_long_rope_adds_its_factors(tokenizer: Any, tmp_path: Path) -> None:
    from transformers import Phi3Config, Phi3ForCausalLM

    config = Phi3Config(
        vocab_size=320,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=1,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
        original_max_position_embeddings=128,
        rope_parameters={
            "rope_type": "longrope",
            "rope_theta": 10000.0,
            "partial_rotary_factor": 0.75,
            "long_factor": [1.0, 1.5, 2.0, 2.5, 3.0, 4.0],
            "short_factor": [1.0] * 6,
        },
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
    )
    fields, tensors = _read(export_gguf(Phi3ForCausalLM(config), tokenizer, tmp_path / "model.gguf"))
    assert tensors["rope_factors_long.weight"].tolist() == [1.0, 1.5, 2.0, 2.5, 3.0, 4.0]
    assert tensors["rope_factors_short.weight"].tolist() == [1.0] * 6
    assert fields["phi3.rope.scaling.attn_factor"] == pytest.approx((1 + np.log(4) / np.log(128)) ** 0.5)


def test_a_tensor_that_the_architecture_has_not_is_refused() -> None:
    with pytest.raises(CannotExport, match="q_proj"):
        gguf_name("model.layers.0.self_attn.q_proj.weight")


def test_a_k_quant_without_llama_cpp_says_what_to_install(base: Path, tokenizer: Any, tmp_path: Path) -> None:
    pytest.importorskip("gguf")
    try:
        import llama_cpp  # noqa: F401
    except ImportError:
        with pytest.raises(CannotExport, match=r"genba\[gguf\]"):
            export_gguf(load_base(base), tokenizer, tmp_path / "model.gguf", quant="Q4_K_M")
    else:
        with pytest.raises(CannotExport, match="divisible by 256"):
            export_gguf(load_base(base), tokenizer, tmp_path / "model.gguf", quant="Q4_K_M")


def _as_ollama(template: str, messages: list[dict[str, str]]) -> str:
    """What Ollama's engine writes, for the constructs that these templates use."""
    head, body, opening = re.split(r"\{\{ range \.Messages \}\}|(?<=\{\{ end \}\})\{\{ end \}\}", template)
    rules = dict(re.findall(r'\{\{ if eq \.Role "(\w+)" \}\}(.*?)\{\{ end \}\}', body, re.DOTALL))
    return head + "".join(rules[each["role"]].replace("{{ .Content }}", each["content"]) for each in messages) + opening


def test_the_modelfile_writes_conversations_as_the_chat_template_does(tokenizer: Any) -> None:
    talk = [
        {"role": "system", "content": "規則"},
        {"role": "user", "content": "質問"},
        {"role": "assistant", "content": "答え"},
        {"role": "user", "content": "続き"},
    ]
    expected = tokenizer.apply_chat_template(talk, tokenize=False, add_generation_prompt=True)
    assert _as_ollama(go_template(tokenizer), talk) == expected
    text = modelfile("model.gguf", tokenizer)
    assert text.startswith("FROM ./model.gguf\n")
    assert 'PARAMETER stop "<|end|>"' in text
    assert "PARAMETER repeat_penalty 1\n" in text


def test_a_template_that_is_no_sequence_of_messages_is_refused(tokenizer: Any) -> None:
    import copy

    odd = copy.copy(tokenizer)
    odd.chat_template = "{% for message in messages %}{{ loop.index }}{{ message['content'] }}{% endfor %}"
    with pytest.raises(CannotExport, match="by hand"):
        go_template(odd)
