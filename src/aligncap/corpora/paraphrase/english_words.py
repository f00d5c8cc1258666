"""English words of the paraphrase grammar: aspects of the voice, emotions, persons.

Every entry is a template (see `template`). Roles say where in a sentence a phrase can stand:
`voice` before the noun voice, `manner` after a verb of speaking, `tail` after a comma, `mark` as
a noun phrase of its own, `fact` as noun=adjective for "the pitch is high, the pace slow".
"""

from collections.abc import Mapping

Phrases = Mapping[str, tuple[str, ...]]

_NORMAL = "(normal|moderate|medium|average|ordinary)"
_FAST = "(fast|quick|rapid|brisk|swift|hurried)"
_SLOW = "(slow|unhurried|leisurely|measured)"
_PACE = "(pace|tempo|speed)"

LEVEL_PHRASES: Mapping[tuple[str, str], Phrases] = {
    ("pitch", "high"): {
        "voice": ("{rather}high", "high-pitched"),
        "manner": ("at a {rather}high pitch", "in a high register", "at a raised pitch"),
        "tail": ("with a (high|raised|elevated) pitch", "{the_her} pitch {rather}high"),
        "mark": ("a {rather}high pitch", "a (raised|elevated) pitch", "a high register"),
        "fact": ("pitch={rather}high", "pitch=(raised|elevated)", "register=high"),
    },
    ("pitch", "normal"): {
        "voice": ("medium-pitched", "mid-range"),
        "manner": (f"at a {_NORMAL} pitch", "in a (middle|medium) register"),
        "tail": (f"with a {_NORMAL} pitch", f"{{the_her}} pitch {_NORMAL}"),
        "mark": (f"a {_NORMAL} pitch", "a (middle|medium) register"),
        "fact": (f"pitch={_NORMAL}", "register=medium"),
    },
    ("pitch", "low"): {
        "voice": ("{rather}deep", "low-pitched", "deep"),
        "manner": ("at a {rather}low pitch", "in a (low|deep) register"),
        "tail": ("with a (low|deep|lowered) pitch", "{the_her} pitch {rather}low"),
        "mark": ("a {rather}low pitch", "a (deep|lowered) pitch", "a low register"),
        "fact": ("pitch={rather}low", "pitch=(lowered|deep)", "register=low"),
    },
    ("volume", "loud"): {
        "voice": ("{rather}loud", "(powerful|booming|loud|forceful)", "raised"),
        "manner": ("{rather}loudly", "loudly", "at (high|full) volume", "at a high volume"),
        "tail": ("with (great|high|full) volume", "{the_her} volume {rather}high"),
        "mark": ("a {rather}(loud|high) volume", "(high|full|great) volume"),
        "fact": ("volume={rather}high", "loudness={rather}high"),
    },
    ("volume", "normal"): {
        "manner": (f"at a {_NORMAL} volume", f"with {_NORMAL} loudness"),
        "tail": (f"with a {_NORMAL} volume", f"{{the_her}} volume {_NORMAL}"),
        "mark": (f"a {_NORMAL} volume", f"{_NORMAL} loudness"),
        "fact": (f"volume={_NORMAL}", f"loudness={_NORMAL}"),
    },
    ("volume", "quiet"): {
        "voice": ("{rather}quiet", "(hushed|quiet|faint|soft|muted|subdued)"),
        "manner": ("{rather}(quietly|softly)", "quietly", "softly", "at a {rather}low volume"),
        "tail": ("with (little|low) volume", "{the_her} volume {rather}low", "the volume subdued"),
        "mark": ("a {rather}low volume", "a (soft|quiet|subdued) volume", "low volume"),
        "fact": ("volume={rather}low", "volume=(low|subdued)", "loudness={rather}low"),
    },
    ("pace", "fast"): {
        "manner": (
            "{rather}(quickly|rapidly|fast)",
            "(quickly|rapidly|fast|briskly|swiftly|hurriedly)",
            f"at a {{rather}}{_FAST} {_PACE}",
        ),
        "tail": (f"with a {_FAST} {_PACE}", f"the {_PACE} {{rather}}(fast|quick|rapid)"),
        "mark": (f"a {{rather}}{_FAST} {_PACE}", "(rapid|hurried|quick|fast) speech"),
        "fact": (f"{_PACE}={{rather}}(fast|quick|rapid)", f"pace={_FAST}"),
    },
    ("pace", "normal"): {
        "manner": (f"at a {_NORMAL} {_PACE}",),
        "tail": (f"with a {_NORMAL} {_PACE}", f"the {_PACE} {_NORMAL}"),
        "mark": (f"a {_NORMAL} {_PACE}",),
        "fact": (f"{_PACE}={_NORMAL}",),
    },
    ("pace", "slow"): {
        "manner": (
            "{rather}slowly",
            "(slowly|unhurriedly|slowly|leisurely)",
            f"at a {{rather}}{_SLOW} {_PACE}",
        ),
        "tail": (f"with a {_SLOW} {_PACE}", f"the {_PACE} {{rather}}slow", "the words drawn out"),
        "mark": (f"a {{rather}}{_SLOW} {_PACE}", "(slow|unhurried|drawn-out|measured) speech"),
        "fact": (f"{_PACE}={{rather}}slow", f"pace={_SLOW}"),
    },
    ("intonation", "rising"): {
        "tail": (
            "with a rising (intonation|inflection|melody)",
            "{the_her} intonation (rising|climbing) toward the end",
        ),
        "mark": ("a rising (intonation|inflection)", "an upward (intonation|inflection)"),
        "fact": ("(intonation|inflection|melody)=rising",),
    },
    ("intonation", "falling"): {
        "tail": (
            "with a falling (intonation|inflection|melody)",
            "{the_her} intonation (falling|sinking|dropping) toward the end",
        ),
        "mark": ("a falling (intonation|inflection)", "a downward (intonation|inflection)"),
        "fact": ("(intonation|inflection|melody)=falling",),
    },
    ("intonation", "flat"): {
        "voice": ("(flat|monotonous|monotone)",),
        "manner": ("in a monotone", "monotonously", "in a flat monotone"),
        "tail": ("with a (flat|level|monotonous) (intonation|melody)", "the intonation flat"),
        "mark": ("a (flat|level|monotonous) (intonation|inflection)",),
        "fact": ("(intonation|inflection|melody)=(flat|monotonous)",),
    },
    ("intonation", "varied"): {
        "voice": ("melodic", "lilting", "singsong"),
        "tail": (
            "with a (lively|varied|expressive|melodic) (intonation|inflection)",
            "{the_her} intonation (varied|lively|fluctuating)",
        ),
        "mark": ("a (lively|varied|expressive|melodic) (intonation|inflection)",),
        "fact": ("(intonation|inflection|melody)=(lively|varied|expressive)",),
    },
    ("volume movement", "swelling"): {
        "tail": (
            "(growing|getting|becoming) louder[ toward the end]",
            "(growing|getting) louder and louder",
            "the volume (growing|swelling|rising)",
        ),
        "mark": ("a (growing|swelling|rising) volume", "a volume that (grows|swells|rises)"),
        "fact": ("volume=(growing|swelling|rising)",),
    },
    ("volume movement", "fading"): {
        "tail": (
            "(growing|getting) quieter[ toward the end]",
            "(trailing off|fading away|fading|dying away) toward the end",
            "the volume (fading|falling|dropping)",
        ),
        "mark": ("a (fading|falling) volume", "a volume that (fades|drops|falls)"),
        "fact": ("volume=(fading|falling|dropping)",),
    },
    ("volume movement", "dynamic"): {
        "tail": (
            "with a (changing|varied|fluctuating) volume",
            "the volume (varying|fluctuating|changing)[ from word to word]",
        ),
        "mark": ("a (changing|varied|fluctuating|varying) volume",),
        "fact": ("volume=(varied|changing|variable)",),
    },
    ("volume movement", "steady"): {
        "manner": ("at a (steady|constant|stable|even) volume",),
        "tail": ("with a (steady|constant|stable) volume", "the volume (steady|constant|stable)"),
        "mark": ("a (steady|constant|stable|even) volume",),
        "fact": ("volume=(steady|constant|stable)",),
    },
    ("pauses", "halting"): {
        "manner": ("haltingly", "in fits and starts", "with (many|frequent) pauses"),
        "tail": ("with (many|frequent|long) pauses", "pausing often", "often pausing"),
        "mark": ("(many|frequent) pauses", "(halting|broken) speech"),
        "fact": ("speech=(halting|broken)",),
    },
    ("pauses", "fluent"): {
        "manner": ("fluently", "without pauses", "without a pause"),
        "tail": ("without (pauses|a pause)", "with few pauses", "{the_her} speech flowing"),
        "mark": ("(fluent|flowing) speech", "few pauses"),
        "fact": ("speech=(fluent|flowing)",),
    },
}

_QUALITIES = {
    "trembling": ("trembling", "shaky", "quivering", "unsteady", "tremulous"),
    "breathy": ("breathy", "airy", "breathless"),
    "hoarse": ("hoarse", "rough", "raspy", "husky"),
    "clear": ("clear", "crisp", "distinct"),
    "tense": ("tense", "strained", "tight"),
    "soft": ("mellow", "velvety", "silky"),
    "bright": ("bright", "ringing", "silvery"),
    "dull": ("dull", "dark", "hollow"),
}


def phrases() -> dict[tuple[str, str], Phrases]:
    """(aspect, level) → role → templates, the qualities of a voice among them."""
    table = dict(LEVEL_PHRASES)
    for quality, words in _QUALITIES.items():
        choice = f"({'|'.join(words)})"
        table["voice quality", quality] = {
            "voice": (choice,),
            "tail": (f"{{her}} voice {choice}",),
            "mark": (f"a {choice} (voice|timbre)",),
            "fact": (f"(voice|timbre)={choice}",),
        }
    return table
