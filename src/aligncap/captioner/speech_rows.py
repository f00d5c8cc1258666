"""Speech tokens that begin from the tokenizer's own codebook."""

import torch
from torch import Tensor

from aligncap.captioner.model import CaptionModel
from aligncap.errors import RecipeError


@torch.no_grad()
def set_speech_rows(model: CaptionModel, vectors: Tensor, *, seed: int = 0) -> None:
    """Begin the speech rows of the embedding from the codebook's `vectors` [codes, any width].

    A random projection keeps who is near whom; the result has the mean and the spread of the text
    rows, so that no speech token is an outlier. Raises RecipeError for another number of codes.
    """
    table, vocabulary = model.bare.get_input_embeddings().weight, model.vocabulary
    rows = slice(vocabulary.speech_base, vocabulary.speech_base + len(vectors))
    if rows.stop != vocabulary.size:
        raise RecipeError(
            f"the codebook has {len(vectors)} entries, the vocabulary "
            f"{vocabulary.size - vocabulary.speech_base} speech tokens; use the tokenizer's own"
        )
    generator = torch.Generator().manual_seed(seed)
    centred = (vectors - vectors.mean(0)).float()
    drawn = centred @ torch.randn(vectors.shape[1], table.shape[1], generator=generator)
    text = table[: vocabulary.text_rows].float().cpu()
    table[rows] = (text.mean(0) + drawn / drawn.std() * text.std(0).mean()).to(table)
