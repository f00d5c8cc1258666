"""A BART on shared-prompt batches and in the searches, beside transformers' own forward."""

from typing import Any

import pytest
import torch

from aligncap.captioner.connectors import LinearConnector
from aligncap.captioner.decoding import TorchRuntime
from aligncap.captioner.encoder_decoder import EncoderDecoderModel, caption_model, small_bart
from aligncap.captioner.prompts import PromptBuilder, SharedPromptRow, collate, to_torch
from aligncap.captioner.runtimes import DecodeOptions, ResponseRules
from aligncap.values import SpeechFeatures, SpeechTokens
from support.captioner import random_rows, tiny_vocabulary

VOCABULARY = tiny_vocabulary()
RULES = ResponseRules.of(VOCABULARY)
TEXT = VOCABULARY.text_vocab_size


def bart(*, first: int | None = None) -> EncoderDecoderModel:
    sizes = {"hidden": 32, "layers": 2, "encoder_layers": 1, "heads": 2, "max_positions": 64}
    lm = small_bart(VOCABULARY, dropout=0.0, **sizes).eval()
    lm.get_output_embeddings().weight.data.mul_(30)  # opinions that float can tell apart
    lm.generation_config.forced_bos_token_id = first
    model = caption_model(lm, VOCABULARY)
    assert isinstance(model, EncoderDecoderModel)
    return model


def log_probs(model: EncoderDecoderModel, prompt: Any, response: tuple[int, ...]) -> torch.Tensor:
    """The oracle: one plain forward."""
    begun = torch.tensor([[*model.begin, *response[:-1]]])
    with torch.no_grad():
        logits = model.causal_lm(input_ids=torch.tensor([prompt]), decoder_input_ids=begun).logits
    return logits[0, len(model.begin) - 1 :, :TEXT]


@pytest.mark.parametrize("first", [None, 1])
def test_responses_are_scored_as_each_by_itself(first: int | None) -> None:
    model, rows = bart(first=first), random_rows(VOCABULARY, seed=0, rows=3, responses=3)
    with torch.no_grad():
        found = model.token_log_probs(to_torch(collate(rows, 0)))
    expected = [
        log_probs(model, row.prompt_ids, said).log_softmax(-1)[range(len(said)), list(said)]
        for row in rows
        for said in row.responses
    ]
    torch.testing.assert_close(found, torch.cat(expected), rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    "options",
    [
        DecodeOptions(beam_size=4, captions=4, max_length=6),
        DecodeOptions(beam_size=1, max_length=6),
        DecodeOptions(beam_size=3, groups=3, captions=3, max_length=6),
    ],
    ids=["beams", "greedy", "diverse"],
)
def test_a_search_knows_what_it_found(options: DecodeOptions) -> None:
    model = bart(first=1)
    prompts = [row.prompt_ids for row in random_rows(VOCABULARY, seed=5, rows=3, responses=1)]
    found = TorchRuntime(model, RULES).generate(prompts, options)
    for prompt, hypotheses in zip(prompts, found, strict=True):
        assert hypotheses
        for one in hypotheses:
            logits = log_probs(model, prompt, one.ids).clone()
            logits[: options.min_length - 1, list(RULES.stop_ids)] = -torch.inf
            said = logits.log_softmax(-1)[range(len(one.ids)), list(one.ids)]
            assert one.log_probability == pytest.approx(float(said.sum()), abs=1e-3)


def test_the_encoder_reads_vectors() -> None:
    """A frame is a vector, in its place among the prompt's embeddings."""
    model = bart()
    torch.manual_seed(0)
    model.connector = LinearConnector(5, 32)
    builder, rows, alone = PromptBuilder(VOCABULARY), [], []
    for number, frames in enumerate((4, 7)):
        vectors = torch.randn(frames, 5)
        tokens = SpeechTokens(
            torch.zeros(1, frames, dtype=torch.long).numpy(),
            features=SpeechFeatures.of(vectors.numpy()),
        )
        prompt = builder.student(tokens, language="en")
        said = tuple(builder.response(("Sad.", "He speaks.")[number]))
        rows.append(SharedPromptRow(prompt, (said,)))
        table = model.bare.get_input_embeddings()
        with torch.no_grad():
            before, after = (
                table(torch.tensor(part)) for part in (prompt[:2], prompt[2 + frames :])
            )
            embeds = torch.cat([before, model.connector.project(vectors), after])[None]
            begun = torch.tensor([[*model.begin, *said[:-1]]])
            alone.append(model.causal_lm(inputs_embeds=embeds, decoder_input_ids=begun).logits[0])
    with torch.no_grad():
        found = model.response_logits(to_torch(collate(rows, 0)))
    torch.testing.assert_close(found, torch.cat(alone), rtol=0, atol=1e-4)
