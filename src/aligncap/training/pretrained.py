"""Pretrained language models and their tokenizers, found on this machine; nothing is downloaded."""

from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from aligncap.errors import MissingModelError

QUANTIZATIONS = ("nf4",)
"""Formats of a frozen base's weights in fewer bits."""


def load_causal_lm(name: str, *, dtype: str = "auto", quantization: str | None = None) -> Any:
    """A causal LM from a folder or the local Hugging Face cache, safetensors only.

    With `quantization` "nf4" its matrices are quantised to 4 bits as they are loaded, on this
    process's GPU. MissingModelError says what to fetch, or what 4 bits need.
    """
    from transformers import AutoModelForCausalLM

    more = {} if quantization is None else _quantization(name, dtype)
    try:
        causal_lm = AutoModelForCausalLM.from_pretrained(
            folder_of(name),
            local_files_only=True,
            use_safetensors=True,
            dtype=dtype,
            attn_implementation="sdpa",
            **more,
        )
    except (OSError, ValueError) as error:
        raise _missing(name, "weights", error) from error
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


def load_tokenizer(name: str) -> Any:
    """The tokenizer of that model, likewise."""
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(folder_of(name), local_files_only=True)
    except (OSError, ValueError) as error:
        raise _missing(name, "tokenizer", error) from error


def load_config(name: str) -> Any:
    """The configuration of that model, likewise; its weights need not be here."""
    from transformers import AutoConfig

    try:
        return AutoConfig.from_pretrained(folder_of(name), local_files_only=True)
    except (OSError, ValueError) as error:
        raise _missing(name, "configuration", error) from error


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
