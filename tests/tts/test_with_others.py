"""What others wrote reads what is written and carries `annotate`: datasets, Parler-TTS' column
arguments, webdataset, Ray Data, datatrove."""

import json
from pathlib import Path
from typing import Any

import pytest

from aligncap.tts import AnnotateSettings
from aligncap.tts.engines import DatatroveAnnotator, RayAnnotator
from aligncap.tts.runs import AnnotateRun
from aligncap.tts.sources import open_corpus
from support import killer
from tts.made import COUNT, bytes_of, columns_of, open_fake, read_out, write_parquet, write_tars

FAKE = AnnotateSettings()


def annotate(corpus: Path, out: Path, **options: Any) -> Path:
    AnnotateRun(open_corpus(corpus, 3), out, FAKE, open_model=open_fake, **options)()
    return out


@pytest.mark.slow
def test_datasets_reads_recordings_as_audio_and_all_columns(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    out = annotate(write_parquet(tmp_path / "in"), tmp_path / "out")
    found = datasets.load_dataset(str(out), cache_dir=str(tmp_path / "cache"))
    assert {split: len(rows) for split, rows in found.items()} == {"train": 5, "test": 2}
    plain = found["train"].cast_column("audio", datasets.Audio(decode=False))
    assert [row["audio"]["bytes"] for row in plain] == [bytes_of(n) for n in range(5)]
    assert plain.features["evidence"].feature["verdict"].dtype == "string"
    tars = annotate(write_tars(tmp_path / "tars"), tmp_path / "tars-out")
    streamed = datasets.load_dataset(str(tars), split="train", streaming=True)
    assert isinstance(streamed.features["audio"], datasets.Audio)


@pytest.mark.slow
def test_parler_joins_descriptions_to_recordings_by_its_column_arguments(tmp_path: Path) -> None:
    """As its load_multiple_datasets does with id_column_name="id" and target_audio_column_name=
    "audio"; description_column_name is "text_description"."""
    datasets = pytest.importorskip("datasets")
    corpus = write_parquet(tmp_path / "in")
    described = annotate(corpus, tmp_path / "out", audio=False)

    def load(folder: Path) -> Any:
        return datasets.load_dataset(
            str(folder), "default", split="train", cache_dir=str(tmp_path / "cache")
        )

    audio = load(corpus).cast_column("audio", datasets.Audio(sampling_rate=44100, decode=False))
    metadata = load(described).rename_column("id", "metadata_id")
    double = set(metadata.column_names) & set(audio.column_names)
    joined = datasets.concatenate_datasets([audio, metadata.remove_columns(list(double))], axis=1)
    assert (
        len(joined.filter(lambda one, other: one != other, input_columns=["id", "metadata_id"]))
        == 0
    )
    for row in joined:
        assert row["audio"]["bytes"]
        assert 0 < len(row["text_description"]) < 600
    both = load(annotate(corpus, tmp_path / "both"))
    assert {"id", "audio", "text_description", "speaker_id", "gender"} <= set(both.column_names)


@pytest.mark.slow
def test_tars_that_webdataset_wrote_are_read(tmp_path: Path) -> None:
    webdataset = pytest.importorskip("webdataset")
    pattern = str(tmp_path / "in" / "%06d.tar")
    (tmp_path / "in").mkdir()
    with webdataset.ShardWriter(pattern, maxcount=4, verbose=0) as writer:
        for number in range(COUNT):
            row = {"__key__": f"a/clip{number}", "wav": bytes_of(number), "txt": "Kids talk."}
            writer.write({**row, "json": columns_of(number)})
    rows = read_out(annotate(tmp_path / "in", tmp_path / "out"))
    assert [row["id"] for row in rows] == [f"clip{n}" for n in range(COUNT)]
    assert {row["text"] for row in rows} == {"Kids talk."}
    assert all(row["audio"]["bytes"] for row in rows)
    assert all(row["phonemes"] for row in rows)


RAY = """
import sys, ray
from aligncap.tts import AnnotateSettings
from aligncap.tts.engines import RayAnnotator
from tts.made import open_fake
ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, object_store_memory=10**8)
rows = ray.data.read_parquet(sys.argv[1]).map_batches(
    RayAnnotator, batch_format="pyarrow", batch_size=3, concurrency=1,
    fn_constructor_kwargs={"settings": AnnotateSettings(), "open_model": open_fake},
)
rows.write_parquet(sys.argv[2])
"""


@pytest.mark.slow
@pytest.mark.timeout(1800)  # a busy machine is no failure
def test_ray_data_carries_it(tmp_path: Path) -> None:
    pytest.importorskip("ray")
    corpus = write_parquet(tmp_path / "in")
    out = tmp_path / "out" / "data"
    killer.finish(killer.start("-c", RAY, corpus / "data", out))
    expected = {row["id"]: row for row in read_out(annotate(corpus, tmp_path / "whole"))}
    rows = read_out(tmp_path / "out")
    assert [row["id"] for row in rows] == sorted(expected)
    for row in rows:
        own = expected[row["id"]]
        for name in ("audio", "snr", "evidence", "emotion", "take", "error"):
            assert row[name] == own[name]
        assert row["text_description"]  # the pitch in it is of the utterance alone


DATATROVE = """
import json, sys
from pathlib import Path
from datatrove.data import Document, Media, MediaType
from datatrove.executor import LocalPipelineExecutor
from aligncap.tts.engines import DatatroveAnnotator
from tts.made import COUNT, bytes_of, columns_of, open_fake

def read(data, rank=0, world_size=1):
    for number in range(rank, COUNT, world_size):
        sound = Media(id="a", type=MediaType.AUDIO, url="a.wav", media_bytes=bytes_of(number))
        metadata = columns_of(number)
        yield Document(text="Kids talk.", id=metadata.pop("id"), media=[sound], metadata=metadata)

def write(data, rank=0, world_size=1):
    with Path(sys.argv[1], f"{rank}.jsonl").open("w", encoding="utf-8") as lines:
        for document in data:
            told = {"id": document.id, "text": document.text, "metadata": document.metadata}
            print(json.dumps(told), file=lines)
            yield document

if __name__ == "__main__":
    LocalPipelineExecutor(
        [read, DatatroveAnnotator(open_model=open_fake), write],
        tasks=2, workers=1, logging_dir=sys.argv[2],
    ).run()
"""


@pytest.mark.slow
def test_datatrove_carries_it(tmp_path: Path) -> None:
    pytest.importorskip("datatrove")
    script = tmp_path / "steps.py"
    script.write_text(DATATROVE, "utf-8")
    out, logs = tmp_path / "out", tmp_path / "logs"
    out.mkdir()
    killer.finish(killer.start(script, out, logs))
    lines = [line for file in sorted(out.iterdir()) for line in file.read_text().splitlines()]
    rows = {row["id"]: row for row in map(json.loads, lines)}
    assert sorted(rows) == [f"clip{n}" for n in range(COUNT)]
    for number in range(COUNT):
        row = rows[f"clip{number}"]
        assert row["text"] == "Kids talk."
        assert row["metadata"]["take"] == number
        assert row["metadata"]["text_description"].startswith("Somebody speaks loudly.")
        assert "audio" not in row["metadata"]
    assert len(list((logs / "completions").iterdir())) == 2


def test_the_engines_classes_without_their_engines() -> None:
    """What Ray hands over is a table, what datatrove hands over are documents."""
    import pyarrow as pa

    table = pa.Table.from_pylist([{"id": "a", "audio": bytes_of(0)}, {"id": "b", "audio": b"x"}])
    done = RayAnnotator(FAKE, open_fake)(table)
    again = RayAnnotator(FAKE, open_fake)(table.slice(1))
    assert done.schema == again.schema
    assert [bool(error) for error in done.column("error").to_pylist()] == [False, True]
    four = pa.Table.from_pylist([{"speaker": "a", "audio": bytes_of(0)}] * 4)
    relative = RayAnnotator(AnnotateSettings(per_speaker=True), open_fake)
    assert relative(four).column("baseline_clips").to_pylist() == [4] * 4
    nobody = relative(table).column("baseline_clips")
    assert (nobody.to_pylist(), nobody.type) == ([None, None], pa.int64())
    assert list(DatatroveAnnotator(FAKE, open_fake)(iter(()))) == []
