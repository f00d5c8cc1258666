"""The served model says what the torch runtime says, through a server of plain transformers."""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from aligncap.captioner.captioner import load
from aligncap.captioner.checkpoint import load_torch, load_vocabulary, read_meta
from aligncap.captioner.decoding import TorchRuntime
from aligncap.captioner.export import merge_folder
from aligncap.captioner.prompts import PromptBuilder
from aligncap.captioner.runtimes import (
    DecodeOptions,
    EndpointRuntime,
    EndpointSettings,
    ResponseRules,
    Sampling,
)
from aligncap.cli.main import main
from aligncap.errors import EndpointError, RecipeError
from aligncap.values import SpeechTokens
from support.captioner import log_probability, write_model
from support.server import Answer, Asked, Server, completing, serving

GREEDY = DecodeOptions(beam_size=1, min_length=3, max_length=12)


@pytest.fixture(scope="module")
def merged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("served")
    merge_folder(write_model(folder / "model"), folder / "merged")
    return folder / "merged"


@pytest.fixture(scope="module")
def server(merged: Path) -> Iterator[Server]:
    with serving(completing(merged, name="tiny")) as running:
        yield running


def rules_of(merged: Path) -> ResponseRules:
    return ResponseRules.of(load_vocabulary(merged))


def runtime(merged: Path, url: str, **more: object) -> EndpointRuntime:
    settings = EndpointSettings(url=url, **{"attempts": 2, **more})  # type: ignore[arg-type]
    return EndpointRuntime(settings, load_vocabulary(merged), rules_of(merged), name="tiny")


def prompts(merged: Path) -> list[tuple[int, ...]]:
    builder = PromptBuilder(load_vocabulary(merged), read_meta(merged).prompts)
    codes = ([[3, 1, 4]], [[500, 2, 2, 9, 31]], [[77]])
    return [builder.student(SpeechTokens(np.array(c)), language="en") for c in codes]


@pytest.mark.parametrize("gives_ids", [True, False])
def test_greedy_captions_are_those_of_torch(merged: Path, gives_ids: bool) -> None:
    asked, vocabulary = prompts(merged), load_vocabulary(merged)
    causal_lm = load_torch(merged).causal_lm
    expected = TorchRuntime(causal_lm, rules_of(merged)).generate(asked, GREEDY)
    with serving(completing(merged, name="tiny", gives_ids=gives_ids)) as server:
        found = runtime(merged, server.url).generate(asked, GREEDY)
    whole = ResponseRules(vocabulary.size, (vocabulary.eos_id,))
    for prompt, [ours], [theirs] in zip(asked, found, expected, strict=True):
        assert vocabulary.decode(ours.ids) == vocabulary.decode(theirs.ids)
        if gives_ids:  # bytes that are no character do not come back from a text
            assert ours.ids == theirs.ids
            exact = log_probability(causal_lm, prompt, ours.ids, whole)
            assert ours.log_probability == pytest.approx(exact, abs=1e-3)


def test_several_captions_are_the_greedy_one_and_draws(merged: Path, server: Server) -> None:
    [prompt, *_] = prompts(merged)
    served = runtime(merged, server.url)
    options = DecodeOptions(beam_size=4, captions=4, min_length=3, max_length=12)
    [found] = served.generate([prompt], options)
    [[greedy]] = served.generate([prompt], GREEDY)
    assert greedy.ids in [one.ids for one in found]
    assert len({one.ids for one in found}) == len(found) <= 4
    assert [one.score for one in found] == sorted((one.score for one in found), reverse=True)
    sampled = DecodeOptions(captions=2, max_length=8, sampling=Sampling(temperature=0.5, seed=3))
    assert served.generate([prompt], sampled) == served.generate([prompt], sampled)
    assert {"seed": 3, "temperature": 0.5, "n": 2}.items() <= server.asked[-1].body.items()


def test_no_speech_token_may_be_said(merged: Path, server: Server) -> None:
    runtime(merged, server.url, key="secret").generate(prompts(merged)[:1], GREEDY)
    vocabulary = load_vocabulary(merged)
    never = {int(i) for i, bias in server.asked[-1].body["logit_bias"].items() if bias == -100}
    assert never == set(range(vocabulary.text_vocab_size, vocabulary.size))
    assert server.asked[-1].headers["Authorization"] == "Bearer secret"


def test_the_whole_way_through_the_command_line(
    merged: Path, server: Server, example_clips: list[Path], capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["caption", str(example_clips[0]), "--model", str(merged), "--format", "jsonl"]
    assert main([*arguments, "--endpoint", server.url]) == 0
    record = json.loads(capsys.readouterr().out)
    expected = load(merged, endpoint=EndpointSettings(url=server.url)).caption(example_clips[0])
    assert (record["caption"], record["model"]) == (expected.text, "tiny")
    for more, said in ((["--endpoint", server.url], "no such model"), ([], "--endpoint")):
        assert main([*arguments, *more, "--served", "other"]) == 2
        assert said in capsys.readouterr().err


def test_settings_are_checked_and_a_server_that_is_not_there_is_named(merged: Path) -> None:
    with pytest.raises(RecipeError, match="give its base, http://h/v1"):
        EndpointSettings(url="http://h/v1/completions")
    with pytest.raises(RecipeError, match="concurrency"):
        EndpointSettings(url="http://h/v1", concurrency=0)
    nowhere = runtime(merged, "http://127.0.0.1:9/v1")
    with pytest.raises(RecipeError, match="diverse beams"):
        nowhere.generate([(1,)], DecodeOptions(beam_size=4, groups=2))
    with pytest.raises(EndpointError, match="nobody answers there"):
        nowhere.generate(prompts(merged), GREEDY)


def test_an_answer_that_is_no_text_is_one_line(merged: Path) -> None:
    speech = load_vocabulary(merged).size - 1
    choice = {"text": "?", "token_ids": [speech], "logprobs": {"token_logprobs": [-1.0]}}
    answers = [{"choices": [{"text": "no log-probabilities"}]}, {"choices": [choice]}]

    def behave(asked: Asked) -> Answer:
        return Answer(json.dumps(answers[min(asked.number, 1)]).encode())

    with (
        serving(behave) as server,
        pytest.raises(EndpointError, match="tiny: its answer is no text; start the server with"),
    ):
        runtime(merged, server.url).generate(prompts(merged)[:1], GREEDY)
    assert len(server.asked) == 2


def answering(text: str, tokens: int = 1) -> Answer:
    choice = {"text": text, "finish_reason": "stop"}
    choice["logprobs"] = {"token_logprobs": [-1.0] * tokens}
    return Answer(json.dumps({"choices": [choice]}).encode())


def test_an_empty_answer_is_no_caption_and_the_others_go_on(
    merged: Path, example_clips: list[Path]
) -> None:
    texts = ["", "A calm voice.", " \n"]
    clips: list[list[int]] = []

    def behave(asked: Asked) -> Answer:
        prompt = asked.body["prompt"]
        clips.extend([prompt] if prompt not in clips else [])
        return answering(texts[clips.index(prompt)])

    with serving(behave) as server:
        endpoint = EndpointSettings(url=server.url, concurrency=1)
        empty, said, blank = load(merged, endpoint=endpoint).caption_many(example_clips[:3])
    assert said.text == "A calm voice."
    for one in (empty, blank):
        assert isinstance(one, EndpointError)
        assert "the server's answer is empty" in str(one)


def test_a_long_answer_is_read_in_part(merged: Path) -> None:
    with serving(lambda asked: answering("angry " * 500_000, 20)) as server:
        [[found]] = runtime(merged, server.url).generate(prompts(merged)[:1], GREEDY)
    assert len(found.ids) <= 100 * GREEDY.max_length + 1
