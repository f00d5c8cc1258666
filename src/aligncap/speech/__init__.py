"""Speech to discrete tokens: the tokenizers, by name, and the store that keeps a corpus's tokens.

`open_tokenizer` opens SpeechTokenizer (the paper's, §3.1), Mimi or the built-in tokenizer;
`TokenCache` keeps what they give, so that a corpus is encoded once. torch is imported by the
tokenizers that need it, when they are opened.
"""

from aligncap.speech.cache import Clip, Failure, Summary, TokenCache, tokenize_manifest
from aligncap.speech.tokenizers import TOKENIZERS, open_tokenizer

__all__ = [
    "TOKENIZERS",
    "Clip",
    "Failure",
    "Summary",
    "TokenCache",
    "open_tokenizer",
    "tokenize_manifest",
]
