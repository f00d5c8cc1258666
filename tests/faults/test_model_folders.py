"""Model folders that are damaged or made to harm: one line, no code run, nothing read elsewhere."""

import json
import os
import shutil
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import aligncap
from aligncap.alignment.examples import write_rows
from aligncap.captioner.checkpoint import MODELS, load_torch
from aligncap.captioner.export import export, merge_folder
from aligncap.captioner.runtimes import _ct2_arrays
from aligncap.errors import AlignCapError
from aligncap.recipes import run_recipe
from aligncap.training.pretrained import load_causal_lm, load_config, load_tokenizer
from support.rows import SOURCE, tiny_rows

MINI = MODELS["mini-1"]
Fault = Callable[[Path], object]
POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:aa\nsize 1\n"
CODE = "from pathlib import Path\nPath({canary!r}).write_text('run')\nclass Config: ...\n"

WARM = """
kind = "warmup"
[data]
rows = ["{rows}"]
[model.new]
hidden = 16
layers = 1
heads = 2
text_vocabulary = 330
[training]
steps = 1
learning_rate = 1e-3
[validation]
rows = 0
"""
ADAPTED = """
kind = "ce"
[data]
rows = ["{rows}"]
[model]
start = "{start}"
[model.lora]
rank = 2
[training]
steps = 1
learning_rate = 1e-3
[validation]
rows = 0
"""


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A trained model of one step and an adapter of it."""
    folder = tmp_path_factory.mktemp("trained")
    write_rows(folder / "rows.jsonl", SOURCE, tiny_rows(12))
    found = {}
    for name, text in (("full", WARM), ("adapter", ADAPTED)):
        start = found.get("full", "")
        (folder / f"{name}.toml").write_text(text.format(rows=folder / "rows.jsonl", start=start))
        run_recipe(folder / f"{name}.toml", output=folder / name)
        found[name] = folder / name / "model"
    return found


def copy_of(source: Path, target: Path) -> Path:
    """A copy of a model folder."""
    return Path(shutil.copytree(source, target))


def write(name: str, content: bytes | str) -> Fault:
    def apply(folder: Path) -> None:
        path = folder / name
        path.unlink(missing_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)

    return apply


def cut(name: str, share: float) -> Fault:
    def apply(folder: Path) -> None:
        data = (folder / name).read_bytes()
        (folder / name).write_bytes(data[: min(int(len(data) * share), len(data) - 3)])

    return apply


def special(name: str, make: Callable[[Path], object]) -> Fault:
    def apply(folder: Path) -> None:
        (folder / name).unlink()
        make(folder / name)

    return apply


def everywhere(name: str) -> dict[str, Fault]:
    """What may be wrong with any file."""
    deep = '{"a":' * 100_000
    return {
        f"{name} {fault}": apply
        for fault, apply in {
            "a pointer": write(name, POINTER),
            "empty": write(name, b""),
            "zeros": write(name, bytes(5000)),
            "noise": write(name, bytes(range(256)) * 20),
            "half": cut(name, 0.5),
            "nearly whole": cut(name, 0.999),
            "deep": write(name, deep),
            "missing": lambda folder: (folder / name).unlink(),
            "a folder": special(name, Path.mkdir),
            "a pipe": special(name, os.mkfifo),
            "a device": special(name, lambda path: path.symlink_to("/dev/zero")),
            "a link to nothing": special(name, lambda path: path.symlink_to("/nowhere")),
            "a link to a secret": special(name, lambda path: path.symlink_to("/etc/passwd")),
        }.items()
    }


def table(name: str, /, *keys: str, **changes: object) -> Fault:
    """Other values in a JSON file, within the table of these keys."""

    def apply(folder: Path) -> None:
        whole = json.loads((folder / name).read_text("utf-8"))
        inside = whole
        for key in keys:
            inside = inside[key]
        inside.update(changes)
        write(name, json.dumps(whole))(folder)

    return apply


def meta(*keys: str, **changes: object) -> Fault:
    return table("aligncap.json", *keys, **changes)


def ct2(change: Callable[[dict[str, np.ndarray[Any, Any]]], object], *, kind: str = "") -> Fault:
    """A model.bin with other arrays, whole in itself."""

    def apply(folder: Path) -> None:
        path = folder / "ct2" / "model.bin"
        arrays = dict(_ct2_arrays(np.frombuffer(path.read_bytes(), np.uint8)))
        arrays = {name: array.copy() for name, array in arrays.items()}
        change(arrays)
        types = [np.dtype(one) for one in (np.float32, np.int8, np.int16, np.int32, np.float16)]

        def text(value: str) -> bytes:
            return struct.pack("<H", len(value) + 1) + value.encode() + b"\0"

        out = [struct.pack("<I", 6), text(kind or "TransformerDecoderSpec")]
        out.append(struct.pack("<II", 8, len(arrays)))
        for name, array in arrays.items():
            out += [text(name), struct.pack("<B", array.ndim)]
            out += [struct.pack("<I", side) for side in array.shape]
            out += [struct.pack("<BI", types.index(array.dtype), array.nbytes), array.tobytes()]
        path.write_bytes(b"".join([*out, struct.pack("<I", 0)]))

    return apply


def _fill(name: str, value: float) -> Fault:
    return ct2(lambda arrays: arrays[f"decoder/{name}"].reshape(-1)[:1].fill(value))


def _reshape(name: str, *shape: int) -> Fault:
    def change(arrays: dict[str, np.ndarray[Any, Any]]) -> None:
        old = arrays[f"decoder/{name}"]
        arrays[f"decoder/{name}"] = np.zeros(shape, old.dtype)

    return ct2(change)


def claim(offset_of: str, value: int) -> Fault:
    """A model.bin that says of an array that it is of another size."""

    def apply(folder: Path) -> None:
        path = folder / "ct2" / "model.bin"
        data = bytearray(path.read_bytes())
        place = data.index(offset_of.encode() + b"\0") + len(offset_of) + 2
        data[place : place + 4] = struct.pack("<I", value)
        path.write_bytes(data)

    return apply


def flip(name: str, places: int) -> Fault:
    """Some bytes changed at random."""

    def apply(folder: Path) -> None:
        data = bytearray((folder / name).read_bytes())
        for place in np.random.default_rng(places).integers(0, min(len(data), 200), places):
            data[place] ^= 0xFF
        (folder / name).write_bytes(data)

    return apply


def onnx_file(change: Callable[[Any], object]) -> Fault:
    """An encoder.onnx with another graph, and the fingerprint that belongs to it."""

    def apply(folder: Path) -> None:
        onnx = pytest.importorskip("onnx")
        from aligncap.storage import hash_of_file

        model = onnx.load(folder / "encoder.onnx")
        change(model)
        (folder / "encoder.onnx").write_bytes(model.SerializeToString())
        own = hash_of_file(folder / "encoder.onnx")
        meta("tokenizer", fingerprint=own)(folder)

    return apply


def _first(model: Any) -> Any:
    return max(model.graph.initializer, key=lambda one: len(one.raw_data))


def _external(location: str) -> Callable[[Any], object]:
    def change(model: Any) -> None:
        one = _first(model)
        size = len(one.raw_data)
        one.ClearField("raw_data")
        one.data_location = 1
        for key, value in (("location", location), ("offset", "0"), ("length", str(size))):
            one.external_data.add(key=key, value=value)

    return change


def _numbers(value: float) -> Callable[[Any], object]:
    def change(model: Any) -> None:
        one = _first(model)
        one.raw_data = np.full(len(one.raw_data) // 4, value, np.float32).tobytes()

    return change


def _loop(model: Any) -> None:
    node = model.graph.node.add(op_type="If", input=["heard"], output=["never"])
    node.attribute.add(name="then_branch", type=5).g.name = "inside"


EXPORTED: dict[str, Fault] = {
    **everywhere("aligncap.json"),
    **everywhere("tokenizer.json"),
    **everywhere("ct2/model.bin"),
    **everywhere("ct2/vocabulary.json"),
    **everywhere("ct2/config.json"),
    **everywhere("encoder.onnx"),
    "meta of a list": write("aligncap.json", "[]"),
    "meta of a number": write("aligncap.json", "1"),
    "meta with NaN": write("aligncap.json", '{"format": NaN}'),
    "meta of a format in words": meta(format="one"),
    "meta of a newer format": meta(format=2),
    "meta without languages": meta(languages=[]),
    "meta of languages that are numbers": meta(languages=[1, 2]),
    "meta of an unknown language": meta(languages=["xx"]),
    "meta with an unknown key": meta(surprise=1),
    "meta with a million codebooks": meta("vocabulary", codebooks=10**6),
    "meta with a codebook of millions": meta("vocabulary", codebook_size=10**9),
    "meta with a codebook of none": meta("vocabulary", codebook_size=0),
    "meta with a text of millions": meta("vocabulary", base_size=10**9),
    "meta with another text": meta("vocabulary", base_size=10**5),
    "meta without such a token": meta("vocabulary", bos="<nothing>"),
    "meta of endless captions": meta("limits", max_tokens=10**6),
    "meta of no captions": meta("limits", max_tokens=0),
    "meta of endless speech": meta("limits", max_speech_s=1e12),
    "meta of no speech": meta("limits", max_speech_s=-1.0),
    "meta of an unknown tokenizer": meta("tokenizer", name="os.system"),
    "meta of a tokenizer's unknown option": meta("tokenizer", options={"path": 1}),
    "meta of a tokenizer's option in words": meta("tokenizer", options={"threads": "many"}),
    "meta of another tokenizer": meta("tokenizer", fingerprint="aa"),
    "meta of instructions that are lists": meta("prompts", instructions={"en": []}),
    "text of another kind": write("tokenizer.json", '{"model": {"type": "Surprise"}}'),
    "text of a list": write("tokenizer.json", "[]"),
    "text of an empty model": write("tokenizer.json", '{"model": {}}'),
    "text with ids of millions": table(
        "tokenizer.json", "model", vocab={"a": 0, "b": 2_000_000_000}, merges=[]
    ),
    "ct2 names of numbers": write("ct2/vocabulary.json", "[1, 2, 3]"),
    "ct2 names of a table": write("ct2/vocabulary.json", "{}"),
    "ct2 names too few": write("ct2/vocabulary.json", '["a", "b"]'),
    "ct2 config of a list": write("ct2/config.json", "[]"),
    "ct2 of another kind": ct2(lambda _: None, kind="WhisperSpec"),
    "ct2 with NaN": _fill("layer_0/ffn/layer_norm/gamma", float("nan")),
    "ct2 with infinity": _fill("layer_0/ffn/layer_norm/gamma", float("inf")),
    "ct2 with a huge number": _fill("layer_1/self_attention/layer_norm/gamma", 1e30),
    "ct2 with a scale of NaN": _fill("embeddings/weight_scale", float("nan")),
    "ct2 with a scale of 0": _fill("layer_0/ffn/linear_0/weight_scale", 0.0),
    "ct2 with a negative scale": _fill("layer_0/ffn/linear_0/weight_scale", -300.0),
    "ct2 with a tiny scale": _fill("layer_0/ffn/linear_1/weight_scale", 1e-30),
    "ct2 with no heads": _fill("num_heads", 0),
    "ct2 with odd heads": _fill("num_heads", 7),
    "ct2 that turns too much": _fill("layer_0/self_attention/rotary_dim", 30_000),
    "ct2 with fewer embeddings": _reshape("embeddings/weight", 100, 256),
    "ct2 with narrow embeddings": _reshape("embeddings/weight", 2562, 8),
    "ct2 with another projection": _reshape("projection/weight", 10, 256),
    "ct2 with a wide layer": _reshape("layer_1/ffn/linear_0/weight", 704, 512),
    "ct2 with a flat layer": _reshape("layer_1/ffn/linear_0/weight", 704 * 256),
    "ct2 with a short norm": _reshape("layer_0/ffn/layer_norm/gamma", 3),
    "ct2 with few scales": _reshape("layer_0/ffn/linear_0/weight_scale", 3),
    "ct2 without embeddings": ct2(lambda arrays: arrays.pop("decoder/embeddings/weight")),
    "ct2 without a scale": ct2(
        lambda arrays: arrays.pop("decoder/layer_0/ffn/linear_0/weight_scale")
    ),
    "ct2 without a layer's weight": ct2(
        lambda arrays: arrays.pop("decoder/layer_2/ffn/linear_1/weight")
    ),
    "ct2 that claims much": claim("decoder/embeddings/weight", 2**31),
    "ct2 that claims a dimension": claim("decoder/layer_0/ffn/layer_norm/gamma", 2**30),
    "ct2 with more at its end": lambda folder: (folder / "ct2" / "model.bin").write_bytes(
        (folder / "ct2" / "model.bin").read_bytes() + b"more"
    ),
    **{f"ct2 with {n} bytes flipped": flip("ct2/model.bin", n) for n in (20, 21, 22)},
    **{f"onnx with {n} bytes flipped": flip("encoder.onnx", n) for n in (20, 21, 22)},
    **{
        f"onnx with numbers in {location}": onnx_file(_external(location))
        for location in ("../secret.bin", "/etc/passwd", "/dev/zero", "beside.bin", "a/../../x")
    },
    "onnx of NaN": onnx_file(_numbers(float("nan"))),
    "onnx of huge numbers": onnx_file(_numbers(1e38)),
    "onnx with another input": onnx_file(lambda model: setattr(model.graph.input[0], "name", "x")),
    "onnx without an output": onnx_file(lambda model: model.graph.output.pop()),
    "onnx with a branch": onnx_file(_loop),
    "onnx without its note": onnx_file(lambda model: model.metadata_props.pop()),
    "onnx with a note in words": onnx_file(
        lambda model: setattr(model.metadata_props[0], "value", "many")
    ),
    "onnx with another codebook": onnx_file(
        lambda model: setattr(model.metadata_props[0], "value", "2")
    ),
    "onnx of an unknown kind": onnx_file(
        lambda model: setattr(model.graph.node[0], "op_type", "Surprise")
    ),
    "onnx of a stranger's library": onnx_file(
        lambda model: setattr(model.graph.node[0], "domain", "evil.example")
    ),
    "onnx of a newer set": onnx_file(
        lambda model: setattr(model.opset_import[0], "version", 10**6)
    ),
    "onnx without nodes": onnx_file(lambda model: model.graph.ClearField("node")),
}


def refused(open_it: Callable[[], object], folder: Path) -> str:
    """What is said of a folder: one printable line of bounded length."""
    with pytest.raises(AlignCapError) as caught:
        open_it()
    said = str(caught.value)
    assert "\n" not in said
    assert len(said) < 700
    assert folder.name in said or "known: " in said, said
    return said


@pytest.mark.parametrize("fault", EXPORTED.values(), ids=EXPORTED)
def test_an_exported_folder_that_is_damaged_or_hostile(fault: Fault, tmp_path: Path) -> None:
    folder = copy_of(MINI, tmp_path / "model")
    (tmp_path / "secret.bin").write_bytes(bytes(2**22))
    (folder / "beside.bin").write_bytes(bytes(2**22))
    fault(folder)
    said = refused(lambda: aligncap.load(folder, threads=1), folder)
    if "a pointer" in said:
        assert "git lfs pull" in said


def test_the_model_itself_is_not_refused(tmp_path: Path, example_clips: list[Path]) -> None:
    folder = copy_of(MINI, tmp_path / "model")
    assert aligncap.load(folder, threads=1).caption(example_clips[0]).text


def weights(change: Callable[[dict[str, torch.Tensor]], object], name: str) -> Fault:
    def apply(folder: Path) -> None:
        stored = load_file(folder / name)
        change(stored)
        save_file(stored, folder / name, {"format": "pt"})

    return apply


def _of_weights(name: str) -> dict[str, Fault]:
    def largest(stored: dict[str, torch.Tensor]) -> str:
        return max(sorted(stored), key=lambda one: stored[one].numel())

    def fill(value: float) -> Fault:
        return weights(lambda stored: stored[largest(stored)].view(-1)[:1].fill_(value), name)

    def other(stored: dict[str, torch.Tensor]) -> None:
        stored[largest(stored)] = stored[largest(stored)][:-1].clone()

    return {
        **everywhere(name),
        f"{name} with NaN": fill(float("nan")),
        f"{name} with infinity": fill(-float("inf")),
        f"{name} with a huge number": fill(1e30),
        f"{name} without a weight": weights(lambda stored: stored.pop(largest(stored)), name),
        f"{name} with a renamed weight": weights(
            lambda stored: stored.update(x=stored.pop(largest(stored))), name
        ),
        f"{name} with another shape": weights(other, name),
        f"{name} with a huge header": lambda folder: (folder / name).write_bytes(
            (2**62).to_bytes(8, "little") + (folder / name).read_bytes()[8:]
        ),
    }


def _index(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder.parent / "outside.safetensors")
    names = dict.fromkeys(
        load_file(folder.parent / "outside.safetensors"), "../outside.safetensors"
    )
    index = {"metadata": {}, "weight_map": names}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    (folder / "empty.safetensors").write_bytes(b"\x02\0\0\0\0\0\0\0{}")


FULL: dict[str, Fault] = {
    **_of_weights("model.safetensors"),
    **everywhere("config.json"),
    "config of a list": write("config.json", "[]"),
    "config of an unknown kind": table("config.json", model_type="surprise"),
    "config of layers in words": table("config.json", num_hidden_layers="many"),
    "config of a million layers": table("config.json", num_hidden_layers=10**6),
    "config of no layers": table("config.json", num_hidden_layers=0),
    "config of a million heads": table("config.json", num_attention_heads=10**6),
    "config of a million wide": table("config.json", hidden_size=10**6),
    "config of a million inside": table("config.json", intermediate_size=10**8),
    "config of a million words": table("config.json", vocab_size=10**9),
    "config of another width": table("config.json", hidden_size=32),
    "config of more layers": table("config.json", num_hidden_layers=3),
    "config of other heads": table("config.json", num_attention_heads=3),
    "config of another type": table("config.json", model_type="gpt2"),
    "weights outside of the folder": _index,
}
ADAPTER: dict[str, Fault] = {
    **_of_weights("adapter/adapter_model.safetensors"),
    **everywhere("adapter/adapter_config.json"),
    **{
        f"adapter of the kind {kind}": table("adapter/adapter_config.json", peft_type=kind)
        for kind in ("IA3", "PROMPT_TUNING", "SURPRISE", None, 5, ["LORA"])
    },
    **{
        f"adapter of rank {rank}": table("adapter/adapter_config.json", r=rank)
        for rank in (0, -1, 10**6, "two", 2.5, None, 3)
    },
    "adapter of a pattern": table("adapter/adapter_config.json", target_modules="(a+)+$"),
    "adapter of no layer": table("adapter/adapter_config.json", target_modules=["surprise"]),
    "adapter of a library": table(
        "adapter/adapter_config.json", megatron_config={"a": 1}, megatron_core="canary"
    ),
    "adapter of another base": meta(base="no/such/model/here"),
    "adapter of a folder that is none": meta(base="/etc"),
    "adapter of a device": meta(base="/dev"),
}
CODED: dict[str, Fault] = {
    "a config that asks for code": table("config.json", auto_map={"AutoConfig": "canary.Config"}),
    "a config that asks another's code": table(
        "config.json", auto_map={"AutoModelForCausalLM": "someone/repo--canary.Config"}
    ),
    "a tokenizer that asks for code": write(
        "tokenizer_config.json", '{"auto_map": {"AutoTokenizer": ["canary.Config", null]}}'
    ),
    "a way to generate in code": lambda folder: (folder / "custom_generate").mkdir(),
    "code beside the weights": lambda folder: None,
}


@pytest.mark.parametrize("fault", FULL.values(), ids=FULL)
def test_a_trained_folder_that_is_damaged_or_hostile(
    fault: Fault, trained: dict[str, Path], tmp_path: Path
) -> None:
    folder = copy_of(trained["full"], tmp_path / "model")
    fault(folder)
    refused(lambda: load_torch(folder), folder)


@pytest.mark.parametrize("fault", ADAPTER.values(), ids=ADAPTER)
def test_an_adapter_that_is_damaged_or_hostile(
    fault: Fault, trained: dict[str, Path], tmp_path: Path
) -> None:
    folder = copy_of(trained["adapter"], tmp_path / "model")
    fault(folder)
    refused(lambda: load_torch(folder), folder)


def with_code(source: Path, folder: Path, fault: Fault, name: str) -> tuple[Path, Path]:
    """A model folder that brings code, and the file that the code would write."""
    copy_of(source, folder)
    canary = folder.parent / "canary"
    fault(folder)
    if "asks" not in name or "another" not in name:
        (folder / "canary.py").write_text(CODE.format(canary=str(canary)))
    return folder, canary


@pytest.mark.parametrize("name", CODED)
def test_no_code_of_a_model_is_run_or_asked_about(
    name: str, trained: dict[str, Path], tmp_path: Path
) -> None:
    folder, canary = with_code(trained["full"], tmp_path / "model", CODED[name], name)
    rows = tmp_path / "rows.jsonl"
    write_rows(rows, SOURCE, tiny_rows(6))
    recipe = tmp_path / "r.toml"
    ways: list[Callable[[], object]] = [
        lambda: aligncap.load(folder),
        lambda: load_torch(folder),
        lambda: export(folder, tmp_path / "out"),
        lambda: merge_folder(folder, tmp_path / "out"),
        lambda: load_causal_lm(str(folder)),
        lambda: load_config(str(folder)),
        lambda: load_tokenizer(str(folder)),
    ]
    for way in ways:
        assert "code" in refused(way, folder)
    adapter = copy_of(trained["adapter"], tmp_path / "adapter")
    meta(base=str(folder))(adapter)
    assert "code" in refused(lambda: load_torch(adapter), folder)
    for start in (f'start = "{folder}"', f'base = "{folder}"', f'start = "{adapter}"'):
        recipe.write_text(ADAPTED.format(rows=rows, start="").replace('start = ""', start))
        for dry in (True, False):
            said = refused(lambda: run_recipe(recipe, output=tmp_path / "run", dry_run=dry), folder)  # noqa: B023
            assert "code" in said
    assert not canary.exists()


def test_a_tokenizers_files_are_those_of_its_folder(
    trained: dict[str, Path], tmp_path: Path
) -> None:
    folder = copy_of(trained["full"], tmp_path / "model")
    (folder / "tokenizer_config.json").write_text('{"tokenizer_file": "/etc/passwd"}')
    assert "outside of its folder" in refused(lambda: load_tokenizer(str(folder)), folder)


@pytest.mark.slow
@pytest.mark.parametrize("verb", ["caption", "merge", "export", "train"])
def test_the_command_line_asks_nothing_and_says_one_line(
    verb: str, trained: dict[str, Path], tmp_path: Path, example_clips: list[Path]
) -> None:
    name = "a config that asks for code"
    folder, canary = with_code(trained["full"], tmp_path / "model", CODED[name], name)
    write_rows(tmp_path / "rows.jsonl", SOURCE, tiny_rows(6))
    text = ADAPTED.format(rows=tmp_path / "rows.jsonl", start=folder)
    (tmp_path / "r.toml").write_text(text)
    arguments = {
        "caption": ["caption", example_clips[0], "--model", folder],
        "merge": ["merge", folder, tmp_path / "out"],
        "export": ["export", folder, tmp_path / "out"],
        "train": ["train", tmp_path / "r.toml", "--dry-run"],
    }[verb]
    done = subprocess.run(
        [sys.executable, "-m", "aligncap", *map(str, arguments)],
        input="y\ny\n", capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip
    said = [line for line in done.stderr.splitlines() if line.startswith("aligncap:")]
    assert done.returncode == 2
    assert len(said) == 1
    assert "no code of a model is run" in said[0]
    assert "Traceback" not in done.stderr
    assert not canary.exists()
