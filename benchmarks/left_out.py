"""Emotions of corpora that nothing was learnt from: each corpus left out in turn, and its rivals.

    python benchmarks/left_out.py all runs/left-out --output docs/results/left-out.md

`all` goes on where it was stopped, and takes an hour of a core. It does what the other commands
do one by one: `measure` features of some clips of each corpus, openSMILE's eGeMAPS or a frozen
Whisper's; `fit` a classifier of them; train mini's second readout by `recipes/mini/readout.toml`
without each corpus (emodb_more is held out with emodb), which `hear`s the corpus alone and with a
baseline, the mean vector of the others of its corpus or speaker; `table` scores the clips that all
systems have. An encoder that was trained by `recipes/mini/encoder.toml --set 'hold_out=["iesc"]'`
and its readout after it can be heard as well:

    python benchmarks/left_out.py hear runs/iesc/encoder predictions/NAME --corpora iesc

A folder of predictions has a folder for each system with one file a corpus: `iesc.npz` holds the
`names` of clips ("iesc/file.wav") and their `scores` for each emotion in the order of EMOTIONS
[clips, 8], from a system that has learnt nothing of iesc. Classifiers are trained on the training
speakers of the other corpora; there `--per` subtracts from features the mean of each corpus or
speaker and divides by its deviation, in training as in the test. No label is needed for either.
To be even between corpora and emotions, every clip weighs as one over the clips of its corpus and
emotion.
"""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import typer
from numpy.typing import NDArray

import aligncap
from aligncap.audio import load
from aligncap.captioner.checkpoint import BUILTIN_FOLDER
from aligncap.data.manifest import Utterance, read_manifest
from aligncap.data.splits import split_of
from aligncap.errors import DataError
from aligncap.experiments.validation import bootstrap_interval, functionals
from aligncap.metrics.claims import macro_recall
from aligncap.prosody.baseline import LEAST_CLIPS
from aligncap.recipes import run_recipe
from aligncap.storage import hash_of
from aligncap.tokenizers.builtin import WhisperTokenizer, open_builtin, whisper_log_mel
from aligncap.values import EMOTIONS

Numbers = NDArray[np.float64]
Truth = dict[str, Utterance]
Per = Literal["", "corpus", "speaker"]
Head = Literal["svm", "linear"]

CORPORA = ("ravdess", "nemo", "emodb", "ased", "emovo", "uem_es", "turev_db", "iesc", "tess")
MINI_1 = ("ravdess", "nemo", "emodb", "ased")
"""Corpora that `mini-1` was trained on."""
FAMILY = {"emodb_more": "emodb"}
"""Corpora that are left out with another one."""
DATA = Path("../shared/data/speech")
EVERY = ",".join(CORPORA)
EACH = 410
"""Clips of a corpus that features are measured of, by the hash of their names."""
PER: tuple[Per, ...] = ("", "corpus", "speaker")
RIVALS: dict[str, tuple[str, Head]] = {
    "eGeMAPS + SVM": ("egemaps", "svm"),
    "Whisper + linear head": ("whisper", "linear"),
}
"""System → its features and its classifier."""
RECIPE = Path("recipes/mini/readout.toml")

app = typer.Typer(pretty_exceptions_enable=False, add_completion=False)
Data = Annotated[Path, typer.Option(help="Folder with a folder a corpus.")]
Corpora = Annotated[str, typer.Option(help="Corpora, parted by commas.")]
Output = Annotated[Path | None, typer.Option(help="Markdown file to write.")]


@cache
def labelled(data: Path) -> Truth:
    """The clips with an emotion by their names."""
    found = {}
    for folder in (*CORPORA, *FAMILY):
        for one in read_manifest(data / folder / "manifest.jsonl"):
            if one.emotion:
                found[f"{folder}/{one.path.name}"] = one
    return found


def corpus_of(name: str) -> str:
    """The corpus that a clip is left out with."""
    folder = name.partition("/")[0]
    return FAMILY.get(folder, folder)


def read(path: Path, key: str) -> dict[str, Numbers]:
    """The rows of an .npz by clip."""
    with np.load(path, allow_pickle=False) as stored:
        return dict(zip(stored["names"].tolist(), stored[key].astype(float), strict=True))


def write(path: Path, names: Sequence[str], **arrays: Numbers) -> None:
    """An .npz of rows by clip."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(".part.npz")
    np.savez_compressed(unfinished, names=np.array(names), **arrays)
    unfinished.replace(path)


@app.command("all")
def everything(
    work: Annotated[Path, typer.Argument(help="Folder of what is made.")],
    output: Output = None,
    data: Data = DATA,
    whisper: Annotated[
        str, typer.Option(help="The Whisper that mini began as: a name on the hub, or a folder.")
    ] = "openai/whisper-tiny.en",
    encoder: Annotated[Path, typer.Option(help="A trained encoder that began as it.")] = Path(
        "runs/mini/encoder/encoder"
    ),
) -> None:
    """Make and score all systems; what is in the folder already is not made again."""
    predictions = work / "predictions"
    for name, (kind, head) in RIVALS.items():
        features = work / f"{kind}.npz"
        if not features.exists():
            measure(features, whisper if kind == "whisper" else "", data)
        for per in PER:
            system = predictions / with_baseline(name, per)
            if not all((system / f"{corpus}.npz").exists() for corpus in CORPORA):
                fit(features, system, head, 1.0, per, data)
    chosen = work / "whisper.npz"
    for corpus in CORPORA:
        run = work / "readouts" / corpus
        if not (run / "encoder" / "encoder.onnx").exists():
            family = [one for one in (corpus, *FAMILY) if corpus_of(one) == corpus]
            print(f"{corpus}: training mini's second readout without it", flush=True)
            # That of the fine-tuned layers, which has learnt from all corpora, is not to count.
            overrides = [f"hold_out={json.dumps(family)}", "share=[0.0, 0.0]"]
            overrides += [f"start={whisper}", f"encoder={encoder}"]
            run_recipe(RECIPE, overrides=overrides, output=run, resume=True)
        for heard, system, per in (
            *((run / "encoder", with_baseline("mini's statistics", per), per) for per in PER),
            (BUILTIN_FOLDER.with_name("mini-1"), "mini-1", ""),
        ):
            if not (predictions / system / f"{corpus}.npz").exists():
                hear(heard, predictions / system, corpus, per, data, chosen)
    table(predictions, data, output)


def with_baseline(system: str, per: Per) -> str:
    """The name of a system that is told of a corpus or a speaker."""
    return f"{system}, per {per}" if per else system


@app.command()
def measure(
    features: Path,
    whisper: Annotated[
        str, typer.Option(help="A Whisper in place of eGeMAPS: its name on the hub, or a folder.")
    ] = "",
    data: Data = DATA,
) -> None:
    """Write the eGeMAPS functionals of some clips of each corpus, or a frozen Whisper's vectors."""
    truth = labelled(data)
    names: list[str] = []
    for corpus in CORPORA:
        own = [name for name in truth if corpus_of(name) == corpus]
        names += sorted(own, key=lambda name: hash_of(f"left out/{name}"))[:EACH]
    chosen = [truth[name] for name in names]
    if whisper:
        write(features, names, values=whisper_vectors(chosen, whisper))
    else:
        cache = features.with_suffix(".measured.npz")
        write(features, names, values=functionals(chosen, cache))


def whisper_vectors(utterances: Sequence[Utterance], source: str) -> Numbers:
    """Mean and deviation over time of a Whisper's convolutions and first two layers, all brought to
    12.5 vectors a second first; [clips, 6 * width]."""
    import torch

    from aligncap.tokenizers.whisper import load_whisper

    layers, found = load_whisper(source, 2), []
    for one in utterances:
        mel = torch.from_numpy(whisper_log_mel(load(one.path).samples))[None]
        with torch.inference_mode():
            outputs = layers(mel, torch.ones(1, (mel.shape[1] + 1) // 2, dtype=torch.bool))
        joined = torch.cat(outputs, dim=2)[0]
        slow = joined[: len(joined) // 4 * 4].unflatten(0, (-1, 4)).mean(dim=1)
        found.append(torch.cat((slow.mean(dim=0), slow.std(dim=0, correction=0))).numpy())
    return np.stack(found).astype(np.float64)


@app.command()
def fit(
    features: Path,
    predictions: Path,
    head: Annotated[Head, typer.Option(help="The classifier.")] = "svm",
    penalty: Annotated[float, typer.Option(help="C of the SVM; alpha of the ridge a clip.")] = 1.0,
    per: Annotated[Per, typer.Option(help="Normalise by.")] = "",
    data: Data = DATA,
) -> None:
    """Predict each corpus by a classifier that is trained on the others."""
    truth, rows = labelled(data), read(features, "values")
    rows = {name: row for name, row in rows.items() if name in truth and np.isfinite(row).all()}
    if per:
        rows = normalised(rows, {n: group_of(n, truth[n], per) for n in rows})
    for corpus in CORPORA:
        train = [n for n in rows if corpus_of(n) != corpus and split_of(truth[n]) == "train"]
        test = [n for n in rows if corpus_of(n) == corpus]
        weights = Counter((corpus_of(n), truth[n].emotion) for n in train)
        found = scores_of(
            np.stack([rows[n] for n in train]),
            [str(truth[n].emotion) for n in train],
            np.array([1 / weights[corpus_of(n), truth[n].emotion] for n in train]),
            np.stack([rows[n] for n in test]),
            head=head,
            penalty=penalty,
        )
        write(predictions / f"{corpus}.npz", test, scores=found)
        print(f"{corpus}: {len(train)} clips trained on, {len(test)} predicted", flush=True)


def group_of(name: str, utterance: Utterance, per: str) -> str:
    """What a clip is normalised with: its corpus, or its speaker where that is known."""
    return f"{corpus_of(name)}/{utterance.speaker}" if per == "speaker" else corpus_of(name)


def normalised(rows: Mapping[str, Numbers], groups: Mapping[str, str]) -> dict[str, Numbers]:
    """The rows less the mean of their group, over its deviation."""
    found: dict[str, Numbers] = {}
    for group in set(groups.values()):
        own = [name for name in rows if groups[name] == group]
        values = np.stack([rows[name] for name in own])
        scaled = (values - values.mean(axis=0)) / (values.std(axis=0) + 1e-6)
        found |= dict(zip(own, scaled, strict=True))
    return {name: found[name] for name in rows}


def scores_of(
    train: Numbers,
    emotions: Sequence[str],
    weights: Numbers,
    test: Numbers,
    *,
    head: str,
    penalty: float,
) -> Numbers:
    """The scores of each emotion for the rows of `test`, [clips, 8]; -inf for one never seen."""
    from sklearn.linear_model import RidgeClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from sklearn.svm import SVC

    weights = weights / weights.mean()
    kind: Any = (
        SVC(C=penalty, decision_function_shape="ovr")
        if head == "svm"
        else RidgeClassifier(alpha=penalty * len(train))
    )
    machine = make_pipeline(StandardScaler(), kind)
    machine.fit(train, emotions, **{f"{machine.steps[-1][0]}__sample_weight": weights})
    found = np.full((len(test), len(EMOTIONS)), -np.inf)
    places = [EMOTIONS.index(name) for name in machine.classes_]
    found[:, places] = machine.decision_function(test)
    return found


@app.command()
def hear(
    encoder: Path,
    predictions: Path,
    corpora: Corpora = EVERY,
    per: Annotated[Per, typer.Option(help="The baseline of a clip.")] = "",
    data: Data = DATA,
    names_of: Annotated[Path | None, typer.Option(help="Features whose clips are taken.")] = None,
) -> None:
    """Predict corpora by an exported encoder."""
    truth, tokenizer = labelled(data), open_builtin(encoder)
    wanted = set(read(names_of, "values")) if names_of else set(truth)
    for corpus in corpora.split(","):
        names = [name for name in truth if corpus_of(name) == corpus and name in wanted]
        heard = {name: tokenizer.encode(load(truth[name].path)) for name in names}
        if per:
            if not isinstance(tokenizer, WhisperTokenizer):
                raise DataError(f"{encoder}: knows no baselines; leave out --per")
            groups = {name: group_of(name, truth[name], per) for name in names}
            sizes: Counter[str] = Counter(groups.values())
            totals: dict[str, Any] = dict.fromkeys(sizes, 0.0)
            for name in names:
                totals[groups[name]] = totals[groups[name]] + heard[name].vector
            for name in names:
                others = sizes[groups[name]] - 1
                if others >= LEAST_CLIPS:
                    mean = (totals[groups[name]] - heard[name].vector) / others
                    heard[name] = tokenizer.encode(load(truth[name].path), np.float32(mean))
        scores = np.array([[heard[n].readout["emotion"][e] for e in EMOTIONS] for n in names])
        write(predictions / f"{corpus}.npz", names, scores=scores)


@app.command()
def table(
    predictions: Path,
    data: Data = DATA,
    output: Output = None,
) -> None:
    """Print, or write, the macro recall of each system on each corpus."""
    truth = labelled(data)
    systems = sorted(path.name for path in predictions.iterdir() if path.is_dir())
    if not systems:
        raise DataError(f"{predictions}: has no folder with predictions; make them first")
    found = {
        one: {c: read(predictions / one / f"{c}.npz", "scores") for c in CORPORA} for one in systems
    }
    common = {
        c: sorted(set.intersection(*(set(found[one][c]) for one in systems)) & set(truth))
        for c in CORPORA
    }
    lines = [
        "# Corpora that nothing was learnt from",
        "",
        "Made by `python benchmarks/left_out.py all`, which explains what is done; do not edit. "
        f"Signature: aligncap {aligncap.__version__} · clips "
        f"{hash_of(' '.join(n for c in CORPORA for n in common[c]))[:12]} · "
        "95 % intervals by 1,000 stratified bootstrap draws of clips, seed 0.",
        "",
        f"`mini-1` is the model as shipped: it was trained on {', '.join(MINI_1)}, so only its "
        "recall on the other five says anything. Every other system has learnt nothing of the "
        "corpus of its column. `mini's statistics` is its second readout alone, of Whisper's "
        "layers as they came; `mini` joins it with that of its fine-tuned layers, which has "
        "learnt from all corpora and is left out here.",
    ]
    for title, own in (("of eight", False), ("of the corpus's own emotions", True)):
        lines += ["", f"## Macro recall of the likeliest emotion {title}", "",
                  "| system | " + " | ".join(CORPORA) + " | mean | of the five |",
                  "| --- |" + " ---: |" * (len(CORPORA) + 2)]  # fmt: skip
        if not own:
            lines.append("| clips | " + " | ".join(str(len(common[c])) for c in CORPORA) + " | | |")
        for one in systems:
            lines.append(row(one, found[one], common, truth, own=own))
    text = "\n".join(lines) + "\n"
    if output is not None:
        output.write_text(text, encoding="utf-8")
    print(text)


def row(
    system: str,
    found: Mapping[str, Mapping[str, Numbers]],
    common: Mapping[str, Sequence[str]],
    truth: Truth,
    *,
    own: bool,
) -> str:
    """One system's line of the table."""
    cells: list[str] = []
    values: dict[str, float] = {}
    for corpus, names in common.items():
        labels = [str(truth[name].emotion) for name in names]
        allowed = [n for n, one in enumerate(EMOTIONS) if not own or one in labels]
        named = [EMOTIONS[allowed[int(found[corpus][n][allowed].argmax())]] for n in names]
        low, high = bootstrap_interval(labels, named)
        values[corpus] = macro_recall(labels, named)
        cells.append(f"{values[corpus]:.3f} ({low:.2f}–{high:.2f})")
    five = np.mean([value for corpus, value in values.items() if corpus not in MINI_1])
    every = f"{np.mean(list(values.values())):.3f}" if system != "mini-1" else "–"
    return f"| {system} | {' | '.join(cells)} | {every} | {five:.3f} |"


if __name__ == "__main__":
    app()
