"""Encoder–decoder language models (BART): the prompt goes through the encoder, responses through
the decoder. A prompt is encoded once for all of its responses."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache, EncoderDecoderCache

from aligncap.captioner.connectors import Connector
from aligncap.captioner.model import CaptionModel, seeded
from aligncap.captioner.prefill import CACHE, TorchBatch
from aligncap.captioner.prompts import padded_features
from aligncap.captioner.vocabulary import Vocabulary


def caption_model(
    causal_lm: Any, vocabulary: Vocabulary, connector: Connector | None = None
) -> CaptionModel:
    """The caption model of a language model of either kind."""
    encodes = causal_lm.config.is_encoder_decoder
    return (EncoderDecoderModel if encodes else CaptionModel)(causal_lm, vocabulary, connector)


def small_bart(vocabulary: Vocabulary, *, seed: int = 0, **sizes: Any) -> Any:
    """A BART of `small_bart_config` sizes with random weights, to be trained from scratch."""
    from transformers import BartForConditionalGeneration

    with seeded(seed):
        return BartForConditionalGeneration(small_bart_config(vocabulary, **sizes))


def small_bart_config(
    vocabulary: Any,
    *,
    hidden: int,
    layers: int,
    encoder_layers: int,
    heads: int,
    max_positions: int,
    dropout: float,
) -> Any:
    """The configuration of a BART over a vocabulary; inner layers are four times as wide."""
    from transformers import BartConfig

    roles = ("bos", "eos", "pad")
    ids: dict[str, Any] = {f"{one}_token_id": getattr(vocabulary, f"{one}_id", 0) for one in roles}
    return BartConfig(
        vocab_size=vocabulary.size,
        d_model=hidden,
        encoder_layers=encoder_layers,
        decoder_layers=layers,
        encoder_attention_heads=heads,
        decoder_attention_heads=heads,
        encoder_ffn_dim=4 * hidden,
        decoder_ffn_dim=4 * hidden,
        max_position_embeddings=max_positions,
        dropout=dropout,
        attention_dropout=dropout,
        decoder_start_token_id=ids["eos_token_id"],  # as BART has it
        forced_eos_token_id=None,
        init_std=hidden**-0.5,  # with 0.02, meant for 768, a small one is slow to heed its encoder
        **ids,
    )


class EncoderDecoderModel(CaptionModel):
    """A model of transformers with encoder and decoder, over one vocabulary."""

    @property
    def begin(self) -> list[int]:
        """The ids that every response begins after: the decoder's start, and bos where the model
        was trained to write it first (BART)."""
        start = self.bare.config.decoder_start_token_id
        first = self.bare.generation_config.forced_bos_token_id
        return [start] if first is None else [start, first]

    def response_logits(self, batch: TorchBatch) -> Tensor:
        """Logits [N, vocabulary rows] of every token of every response."""
        logits: Tensor = self._decode(batch).logits
        return logits[self._predicting(batch)]

    def predicting_states(self, batch: TorchBatch) -> Tensor:
        """Last hidden states [N, width] of the decoder that predict the targets."""
        states: Tensor = self._decode(batch, output_hidden_states=True).decoder_hidden_states[-1]
        return states[self._predicting(batch)]

    def text_logits_and_states(self, batch: TorchBatch) -> tuple[Tensor, Tensor]:
        """`text_logits` [N, text_vocab_size], and the last hidden states [N, width] they are of."""
        output, places = self._decode(batch, output_hidden_states=True), self._predicting(batch)
        text = output.logits[places][:, : self.vocabulary.text_vocab_size]
        return text, output.decoder_hidden_states[-1][places]

    def encode(self, ids: Tensor, kept: Tensor, embeds: Tensor | None) -> Tensor:
        """The encoder's states [rows, T, hidden] of prompts, `kept` [rows, T] where they are."""
        given = {"input_ids": ids} if embeds is None else {"inputs_embeds": embeds}
        encoder = self.bare.get_encoder()
        states: Tensor = encoder(**given, attention_mask=kept.long()).last_hidden_state
        return states

    def _decode(self, batch: TorchBatch, **more: Any) -> Any:
        batch = self.embedded(batch)
        prompt = batch.segment_ids == 0
        longest = int(prompt.sum(1).max())
        ids, kept = batch.input_ids[:, :longest], prompt[:, :longest]
        embeds = None if batch.embeds is None else batch.embeds[:, :longest]
        states = self.encode(ids, kept, embeds)
        response, place = self._places(batch)
        # A response's first token is predicted by the last of its row's prompt.
        row = batch.predict_index[place == 0] // batch.input_ids.shape[1]
        shape = len(batch.response_lengths), int(batch.response_lengths.max()) + len(self.begin)
        fed = batch.target_ids.new_zeros(shape)
        begin = len(self.begin)
        fed[:, :begin] = fed.new_tensor(self.begin)
        fed[response, place + begin] = batch.target_ids
        return self.causal_lm(
            encoder_outputs=(states[row],),
            attention_mask=kept[row].long(),
            decoder_input_ids=fed[:, :-1],
            use_cache=False,
            **more,
        )

    def _predicting(self, batch: TorchBatch) -> tuple[Tensor, Tensor]:
        """Of each target [N] its response, and the decoder's column that predicts it."""
        response, place = self._places(batch)
        return response, place + len(self.begin) - 1

    @staticmethod
    def _places(batch: TorchBatch) -> tuple[Tensor, Tensor]:
        """Of each target [N] its response and its place there."""
        ends = batch.response_lengths.cumsum(0)
        number = torch.arange(len(batch.target_ids), device=batch.target_ids.device)
        return batch.target_response, number - (ends - batch.response_lengths)[
            batch.target_response
        ]


class DecoderContinuation:
    """Partial texts of an encoder–decoder model, as `decoding.Continuation` has them: each has a
    row of the decoder's cache of its own."""

    def __init__(self, model: EncoderDecoderModel, prompts: Sequence[Sequence[int]]) -> None:
        """Encode the prompts once; each is one text."""
        longest = max(map(len, prompts))
        ids = torch.zeros(len(prompts), longest, dtype=torch.long)
        kept = torch.zeros(len(prompts), longest, dtype=torch.bool)
        for row, prompt in enumerate(prompts):
            ids[row, : len(prompt)] = torch.tensor(prompt)
            kept[row, : len(prompt)] = True
        ids, self._kept = ids.to(model.device), kept.to(model.device)
        embeds = None
        if model.connector is not None:
            found = padded_features(prompts).values()
            embeds = model.embed(ids, *(torch.from_numpy(one).to(model.device) for one in found))
        self._model = model
        self._states = model.encode(ids, self._kept, embeds)
        self._cache = EncoderDecoderCache(DynamicCache(), DynamicCache())
        self.logits = self._step(ids.new_tensor([model.begin]).expand(len(prompts), -1))

    def advance(self, rows: Sequence[int], tokens: Sequence[int]) -> None:
        """Continue the texts `rows` (any, in any order, also repeatedly), each by one token."""
        index = torch.tensor(rows, device=self._model.device)
        self._cache.batch_select_indices(index)
        self._states, self._kept = self._states[index], self._kept[index]
        self.logits = self._step(torch.tensor(tokens, device=index.device)[:, None])

    def _step(self, ids: Tensor) -> Tensor:
        output = self._model.causal_lm(
            encoder_outputs=(self._states,),
            attention_mask=self._kept.long(),
            decoder_input_ids=ids,
            use_cache=True,
            **{CACHE: self._cache},
        )
        logits: Tensor = output.logits[:, -1]
        return logits
