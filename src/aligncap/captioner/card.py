"""The card of a model folder, README.md: what people should know of the model."""

from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from aligncap.captioner.checkpoint import ModelMeta

NO_CORPORA = "Not recorded; whoever trained it can say so in the recipe (`notes.trained_on`)."
NO_SCORES = (
    "None are recorded. Measure it on speech like yours before relying on it: `aligncap evaluate`."
)
NO_LICENCE = (
    "None is recorded (`notes.license`). The terms of the base model, of the speech tokenizer and "
    "of the corpora hold."
)

STAGES = {
    "warmup": "writes captions from clues in text (warm-up); it has not learnt to hear",
    "kd": "was taught to hear by a teacher that reads (KD-Regularization)",
    "ce": "was taught to hear by captions alone (cross-entropy, the rival of KD)",
    "dpo": "was taught to hear, and then which captions are preferred (PO-Regularization, DPO)",
    "ppo": "was taught to hear, and then rewarded for its captions (RLHF, PPO)",
}
"""What a model that a recipe of this kind ends with has learnt."""


def model_card(meta: "ModelMeta") -> str:
    """The card in Markdown; a section with nothing to say is left out."""
    notes = meta.notes
    sections = [
        ("", notes.summary or _summary(meta)),
        ("Use", _use(meta)),
        ("Good for", _bullets(notes.good_for)),
        ("Not for", _bullets(notes.not_for)),
        ("Trained on", _bullets(notes.trained_on) or NO_CORPORA),
        (
            "Scores",
            _bullets(f"{name}: {value}" for name, value in notes.scores.items()) or NO_SCORES,
        ),
        ("What it is", _bullets(_facts(meta))),
        ("How it was made", _bullets(_made(meta))),
        ("Licence", notes.license or NO_LICENCE),
    ]
    parts = [_front_matter(meta), f"# {meta.name}"]
    for title, body in sections:
        if body:
            parts.append(f"## {title}\n\n{body}" if title else body)
    return "\n\n".join(parts) + "\n"


def _front_matter(meta: "ModelMeta") -> str:
    """What model hubs read of a card."""
    languages = "".join(f"- {language}\n" for language in meta.languages)
    return f"---\nlanguage:\n{languages}tags:\n- aligncap\n- speech-emotion-captioning\n---"


def _summary(meta: "ModelMeta") -> str:
    learnt = STAGES.get(meta.provenance.get("kind", ""))
    what = "A captioner of how somebody speaks, made with AlignCap"
    return f"{what}. It {learnt}." if learnt else f"{what}."


def _use(meta: "ModelMeta") -> str:
    heard, weights = "", ""
    if meta.tokenizer.name != "builtin":
        weights = " --tokenizer-weights PATH"
        heard = (
            f"PATH is the folder of {meta.tokenizer.name}'s weights; leave it out where they are "
            "in `encoder/` of the model's folder.\n\n"
        )
    return (
        f"Captions of how somebody speaks, in {', '.join(meta.languages)}.\n\n"
        f"    aligncap caption speech.wav --model FOLDER{weights}\n\n{heard}"
        "A caption can be wrong, and can name an emotion that is not there. "
        "Read its evidence beside it."
    )


def _facts(meta: "ModelMeta") -> Iterable[str]:
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
    if meta.connector.name:
        yield f"speech as vectors, by a connector of the kind {meta.connector.name}"
    if meta.base:
        part = "a LoRA adapter" if meta.weights == "adapter" else "a connector"
        yield f"{part} of {meta.base}, which is not in this folder"


def _made(meta: "ModelMeta") -> Iterable[str]:
    """Each of what is known of the making, in words where the recipe's are short for it."""
    words = {"kind": "recipe of kind", "rows": "rows of training data", "steps": "training steps"}
    return (f"{words.get(key, key)}: {value}" for key, value in meta.provenance.items())


def _bullets(lines: Iterable[str]) -> str:
    return "\n".join(f"- {line}" for line in lines)
