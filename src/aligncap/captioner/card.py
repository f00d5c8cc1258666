"""The model card: README.md of a model folder, written from what the folder says of itself."""

from collections.abc import Iterable

from aligncap.captioner.meta import ModelMeta


def model_card(meta: ModelMeta) -> str:
    """The card in Markdown; a section with nothing to say is left out."""
    notes = meta.notes
    sections = [
        ("", notes.summary),
        ("Use", _use(meta)),
        ("Good for", _bullets(notes.good_for)),
        ("Not for", _bullets(notes.not_for)),
        ("Trained on", _bullets(notes.trained_on)),
        ("Scores", _bullets(f"{name}: {value}" for name, value in notes.scores.items())),
        ("What it is", _bullets(_facts(meta))),
        ("How it was made", _bullets(f"{key}: {value}" for key, value in meta.provenance.items())),
        ("Licence", notes.license),
    ]
    parts = [f"# {meta.name}"]
    for title, body in sections:
        if body:
            parts.append(f"## {title}\n\n{body}" if title else body)
    return "\n\n".join(parts) + "\n"


def _use(meta: ModelMeta) -> str:
    return (
        f"Captions of how somebody speaks, in {', '.join(meta.languages)}.\n\n"
        "    aligncap caption speech.wav --model FOLDER\n\n"
        "A caption can be wrong, and can name an emotion that is not there. "
        "Read its evidence beside it."
    )


def _facts(meta: ModelMeta) -> Iterable[str]:
    tokenizer, shape = meta.tokenizer, meta.vocabulary
    yield (
        f"speech tokenizer: {tokenizer.name} ({shape.codebooks} x {shape.codebook_size} entries, "
        f"{tokenizer.frame_rate_hz:g} Hz, fingerprint {tokenizer.fingerprint})"
    )
    yield f"acoustic prompt when captioning: {meta.act_mode}"
    limits = meta.limits
    yield (
        f"a caption has {limits.min_tokens} to {limits.max_tokens} tokens and ends with one "
        f"of {limits.stop_characters}"
    )
    if meta.base:
        yield f"a LoRA adapter of {meta.base}, which is not in this folder"


def _bullets(lines: Iterable[str]) -> str:
    return "\n".join(f"- {line}" for line in lines)
