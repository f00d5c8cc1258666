"""Pretrained language models and their tokenizers, found on this machine; nothing is downloaded."""

from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from aligncap.errors import DataError, MissingModelError
from aligncap.foreign import (
    AGAIN,
    LARGEST_WEIGHT,
    MOST_JSON_BYTES,
    check_regular,
    check_tensors,
    read_table,
    reading,
    refuse_code,
)

QUANTIZATIONS = ("nf4",)
"""Formats of a frozen base's weights in fewer bits."""


def load_causal_lm(name: str, *, dtype: str = "auto", quantization: str | None = None) -> Any:
    """A causal LM, or an encoder–decoder model, from a folder or the local Hugging Face cache,
    safetensors only.

    With `quantization` "nf4" its matrices are quantised to 4 bits as they are loaded, on this
    process's GPU. MissingModelError says what to fetch, or what 4 bits need.
    """
    from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM

    more = {} if quantization is None else _quantization(name, dtype)
    config = load_config(name)
    kind: Any = AutoModelForSeq2SeqLM if config.is_encoder_decoder else AutoModelForCausalLM
    with reading(Path(name), hint=AGAIN):
        try:
            found: Any = kind.from_pretrained(
                _checked_folder(name),
                config=config,
                local_files_only=True,
                use_safetensors=True,
                trust_remote_code=False,
                dtype=dtype,
                attn_implementation="sdpa",
                output_loading_info=True,
                **more,
            )
        except (OSError, ValueError) as error:
            raise _missing(name, "weights", error) from error
        causal_lm, loaded = found
        if loaded["missing_keys"]:
            raise ValueError(f"lacks the weights {min(loaded['missing_keys'])}")
        check_finite(causal_lm)
    # An adapter stores its base by this: the name, not a path in this machine's cache.
    causal_lm.config.name_or_path = name
    return causal_lm


def _quantization(name: str, dtype: str) -> dict[str, Any]:
    """transformers' options for 4 bits; MissingModelError where GPU or library are missing."""
    import torch

    missing = [
        what
        for what, there in (
            ("a CUDA GPU", torch.cuda.is_available()),
            ("bitsandbytes (pip install bitsandbytes)", find_spec("bitsandbytes") is not None),
        )
        if not there
    ]
    if missing:
        raise MissingModelError(
            f"language model {name!r}: 4-bit weights need {' and '.join(missing)}, not here; "
            "set model.quantization to none"
        )
    from transformers import BitsAndBytesConfig

    from aligncap.training.devices import training_device

    config = BitsAndBytesConfig(**four_bits(dtype))  # type: ignore[no-untyped-call]
    return {"quantization_config": config, "device_map": {"": training_device()}}


def four_bits(dtype: str) -> dict[str, Any]:
    """QLoRA's settings of bitsandbytes (Dettmers et al. 2023): NF4, its scales quantised again,
    computed in `dtype`; "auto" computes in bfloat16."""
    return {
        "load_in_4bit": True,
        "bnb_4bit_quant_type": "nf4",
        "bnb_4bit_use_double_quant": True,
        "bnb_4bit_compute_dtype": "bfloat16" if dtype == "auto" else dtype,
    }


def check_finite(model: Any) -> None:
    """ValueError where a weight is not finite, or greater than half precision can hold."""
    for name, weight in model.named_parameters():
        # Written so that NaN is refused, too; packed weights are whole numbers.
        if weight.is_floating_point() and not bool((weight.detach().abs() <= LARGEST_WEIGHT).all()):
            raise ValueError(f"{name} holds a number that is not finite or too large")


def load_tokenizer(name: str) -> Any:
    """The tokenizer of that model, likewise."""
    from transformers import AutoTokenizer

    with reading(Path(name), hint=AGAIN):
        try:
            return AutoTokenizer.from_pretrained(
                _checked_folder(name), local_files_only=True, trust_remote_code=False
            )
        except (OSError, ValueError) as error:
            raise _missing(name, "tokenizer", error) from error


def load_config(name: str) -> Any:
    """The configuration of that model, likewise; its weights need not be here."""
    from transformers import AutoConfig

    with reading(Path(name), hint=AGAIN):
        try:
            config = AutoConfig.from_pretrained(
                _checked_folder(name), local_files_only=True, trust_remote_code=False
            )
        except (OSError, ValueError) as error:
            raise _missing(name, "configuration", error) from error
        for size, largest in LARGEST_SIZES.items():
            value = getattr(config, size, None)
            if value is not None and not (isinstance(value, int) and 1 <= value <= largest):
                raise ValueError(f"{size} is {value!r}")
    return config


LARGEST_SIZES = {
    "num_hidden_layers": 512,
    "num_attention_heads": 1024,
    "num_key_value_heads": 1024,
    "head_dim": 2**12,
    "hidden_size": 2**16,
    "intermediate_size": 2**20,
    "vocab_size": 2**20,
    "max_position_embeddings": 2**24,
}
"""Of a configuration: beyond what any published model has."""


def _checked_folder(name: str) -> str:
    """`folder_of`; DataError where the folder brings code, where a file of it names files outside
    of it, or where one is cut short or no regular file."""
    folder = Path(folder_of(name))
    refuse_code(folder)
    for path in folder.glob("*.json"):
        check_regular(path, hint=AGAIN, most_bytes=MOST_JSON_BYTES)
    for path in folder.glob("*.safetensors"):
        check_tensors(path, hint=AGAIN)
    for path in folder.glob("*.index.json"):
        _check_names(path, read_table(path, hint=AGAIN).get("weight_map"))
    path = folder / "tokenizer_config.json"
    if path.exists():
        table = read_table(path, hint=AGAIN)
        _check_names(path, {key: table[key] for key in table if key.endswith("_file")})
    return str(folder)


def _check_names(path: Path, names: Any) -> None:
    """DataError where a table of file names has one that leads elsewhere."""
    values = names.values() if isinstance(names, dict) else [None]
    if not all(isinstance(one, str) and Path(one).name == one for one in values):
        raise DataError(f"{path}: names files outside of its folder; {AGAIN}")


def folder_of(name: str) -> str:
    """The folder of a model on this machine; OSError or ValueError where it is not here.

    transformers itself would ask the network for an adapter even of local files, and wait.
    """
    from huggingface_hub import snapshot_download

    return name if Path(name).is_dir() else str(snapshot_download(name, local_files_only=True))


def _missing(name: str, what: str, error: Exception) -> MissingModelError:
    from huggingface_hub.errors import LocalEntryNotFoundError

    if isinstance(error, LocalEntryNotFoundError):  # its text is about the library's options
        reason = "not in this machine's Hugging Face cache"
    else:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
    return MissingModelError(
        f"language model {name!r}: no usable {what} here ({reason}); {_hint(name)}"
    )


def _hint(name: str) -> str:
    with suppress(OSError, ValueError):
        folder = Path(folder_of(name))
        if any(folder.glob("*.bin")) and not any(folder.glob("*.safetensors")):
            return (
                "its weights are pickled, and nothing is unpickled here; convert it once, with "
                f"transformers: save_pretrained of {name!r}, model and tokenizer, to a new folder"
            )
    path = Path(name)
    if path.is_dir():
        return "the folder needs config.json, model.safetensors and tokenizer.json"
    if path.is_absolute() or name.startswith(".") or len(path.parts) > 2:
        return "no such folder; put it back, or give another one, or a model's name on the hub"
    return (
        f"fetch it once with `hf download {name}` (where there is no network: elsewhere, with "
        "--local-dir, and give the folder)"
    )
