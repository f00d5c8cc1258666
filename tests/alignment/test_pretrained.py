"""Stages over a pretrained language model: LoRA, new ids, no second copy (decision 2), gradient
checkpointing and 4-bit weights, which take less memory and must change nothing else."""

from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

from aligncap.alignment import kd
from aligncap.alignment.examples import BatchSettings, DataSettings
from aligncap.alignment.init_model import ModelSettings, SizeSettings, checkpoint_layers
from aligncap.alignment.kd import KdSettings, TeacherSettings
from aligncap.alignment.trainer import StageSettings, ValidationSettings, check_layout
from aligncap.captioner.checkpoint import load_torch, read_meta
from aligncap.captioner.model import AdapterSettings, CaptionModel, adapter_disabled, add_adapter
from aligncap.captioner.prompts import collate, to_torch
from aligncap.captioner.vocabulary import train_text_tokenizer
from aligncap.errors import MissingModelError, RecipeError, UnknownNameError
from aligncap.training.loop import read_log
from aligncap.training.pretrained import four_bits, load_causal_lm
from aligncap.training.settings import FitSettings
from support.captioner import random_rows, tiny_model
from support.recipe_runs import run
from support.rows import FEELINGS, write_tiny

_SIZES = {
    "llama": {"intermediate_size": 64, "tie_word_embeddings": False},
    "gpt2": {},
    "opt": {"word_embed_proj_dim": 32, "ffn_dim": 64},
}


def pretrained(kind: str, folder: Path) -> Path:
    """A folder as one would fetch it: a model and its tokenizer, which know nothing of speech."""
    tokenizer = train_text_tokenizer(
        [text for texts in FEELINGS.values() for text in texts] * 4, 300
    )
    specials = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>"}
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **specials).save_pretrained(folder)
    shape = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2} | _SIZES[kind]
    torch.manual_seed(0)
    config = AutoConfig.for_model(kind, vocab_size=tokenizer.get_vocab_size(), **shape)
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    return folder


@pytest.mark.parametrize("kind", _SIZES)
def test_a_pretrained_model_is_distilled_through_an_adapter(kind: str, tmp_path: Path) -> None:
    base = pretrained(kind, tmp_path / "base")
    settings = KdSettings(
        data=DataSettings(rows=(write_tiny(tmp_path, count=30),)),
        training=FitSettings(
            precision="float32", steps=30, learning_rate=2e-2, save_every=30, log_every=5
        ),
        model=ModelSettings(base=str(base), lora=AdapterSettings(rank=4)),
        batch=BatchSettings(rows=4, captions=2),
        teacher=TeacherSettings(prompt="act+sem"),
        validation=ValidationSettings(every=10, rows=12),
    )
    output = tmp_path / "run"
    summary = run(kd.train_kd, settings, output)
    assert "LoRA" in str(summary["trained"])
    assert "new token rows" in str(summary["trained"])
    divergences = [line["validation_kl"] for line in read_log(output) if "validation_kl" in line]
    assert divergences[-1] < divergences[0]
    meta = read_meta(output / "model")
    assert (meta.weights, meta.base) == ("adapter", str(base))
    # The folder alone brings back what was validated last: base, adapter and new rows.
    student = load_torch(output / "model")
    assert student.vocabulary.size == student.vocabulary.speech_base + 12
    data = kd.read_training_rows(settings.data.rows, needs_speech=True)
    again = kd.StageTrainer(settings, tmp_path / "again", kind="kd", data=data)
    task = kd.kd_task(settings, again, output / kd.CACHE_FOLDER)
    means = again.validator(task, student)()
    assert means["validation_kl"] == pytest.approx(divergences[-1], rel=1e-3)


@pytest.mark.parametrize(
    ("name", "cure"),
    [
        ("openai-community/gpt2", "`hf download openai-community/gpt2`"),
        ("gpt2", "`hf download gpt2`"),
        ("/nowhere/runs/warmed", "no such folder; put it back"),
        ("runs/warmup/model", "no such folder; put it back"),
    ],
)
def test_a_missing_backbone_says_what_to_do(name: str, cure: str) -> None:
    with pytest.raises(MissingModelError) as told:
        load_causal_lm(name)
    assert cure in str(told.value)
    assert "local_files_only" not in str(told.value)
    assert ("hf download" in str(told.value)) == ("hf download" in cure)


def test_pickled_weights_are_not_read_but_explained(tmp_path: Path) -> None:
    folder = pretrained("opt", tmp_path / "base")
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(b"pickled")
    with pytest.raises(MissingModelError, match=r"save_pretrained of .*model and tokenizer"):
        load_causal_lm(str(folder))


def gradients(
    model: CaptionModel, *, turning: Callable[[], None] = lambda: None
) -> dict[str, torch.Tensor]:
    """Of a loss like KD's: before the way back, when `turning` is called, the student is asked as
    its own teacher too."""
    rows = random_rows(model.vocabulary, seed=1, rows=3, responses=2)
    batch = to_torch(collate(rows, pad_id=0), model.device)
    torch.manual_seed(3)
    logits = model.text_logits(batch)
    taught = torch.zeros_like(logits)
    if hasattr(model.causal_lm, "peft_config"):
        with adapter_disabled(model):
            taught = model.text_logits(batch)
    loss = (logits - taught).square().mean() + logits.logsumexp(1).mean()
    turning()
    loss.backward()
    found = {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    return found


@pytest.mark.parametrize("kind", ["llama", "gpt2", "opt"])
@pytest.mark.parametrize("lora", [False, True])
def test_checkpointed_layers_have_the_same_gradients(kind: str, lora: bool) -> None:
    model = tiny_model(kind)
    if lora:
        model = add_adapter(model, AdapterSettings(rank=2, dropout=0.2))
        for name, weight in model.named_parameters():
            if "lora_B" in name:
                weight.data.normal_()
    model.train()
    # Prompts and responses in one pass, as checkpointed layers are run: dropout draws the same.
    model.causal_lm.config.sliding_window = 1
    plain = gradients(model)
    runs: list[int] = []
    (layers,) = [m for m in model.modules() if isinstance(m, torch.nn.ModuleList)]
    inside = next(layers[0].children())
    inside.register_forward_pre_hook(lambda *_: runs.append(1))
    gradients(model, turning=runs.clear)
    assert not runs
    checkpoint_layers(model)
    again = gradients(model, turning=runs.clear)
    assert len(runs) == 1, "the student's layer should run again on the way back"
    torch.testing.assert_close(again, plain)


def test_four_bits_are_those_of_qlora() -> None:
    settings = four_bits("bfloat16")
    assert settings["bnb_4bit_quant_type"] == "nf4"
    assert settings["load_in_4bit"] is settings["bnb_4bit_use_double_quant"] is True
    computed = [four_bits(one)["bnb_4bit_compute_dtype"] for one in ("float32", "auto")]
    assert computed == ["float32", "bfloat16"]
    if find_spec("bitsandbytes"):
        from transformers import BitsAndBytesConfig

        config = BitsAndBytesConfig(**settings)
        assert (config.quantization_method(), config.bnb_4bit_compute_dtype) == (
            "nf4", torch.bfloat16,
        )  # fmt: skip


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_four_bits_without_a_gpu_are_refused_in_one_line(tmp_path: Path) -> None:
    message = "^[^\n]*a CUDA GPU[^\n]*set model.quantization to none[^\n]*$"
    with pytest.raises(MissingModelError, match=message):
        load_causal_lm(str(tmp_path), quantization="nf4")


def test_four_bit_weights_are_neither_trained_nor_shared_out() -> None:
    with pytest.raises(RecipeError, match="LoRA"):
        ModelSettings(base="some-model", quantization="nf4")
    with pytest.raises(UnknownNameError, match="'nf4'"):
        ModelSettings(base="some-model", lora=AdapterSettings(), quantization="nf5")

    def checked(way: str, model: ModelSettings) -> None:
        training = FitSettings(precision="float32", steps=1, learning_rate=1e-3, sharding=way)
        data = DataSettings(rows=(Path("rows.jsonl"),))
        check_layout(StageSettings(data=data, training=training, model=model))

    packed = ModelSettings(base="some-model", lora=AdapterSettings(), quantization="nf4")
    checked("zero2", packed)
    checked("fsdp", ModelSettings(new=SizeSettings()))
    for way in ("fsdp", "zero3"):
        with pytest.raises(RecipeError, match=way):
            checked(way, packed)
