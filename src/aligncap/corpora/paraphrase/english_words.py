"""English words of the paraphrase grammar: aspects of the voice, emotions, persons.

Every entry is a template (see `template`). Roles say where in a sentence a phrase can stand:
`voice` before the noun voice, `manner` after a verb of speaking, `tail` after a comma, `mark` as
a noun phrase of its own, `fact` as noun=adjective for "the pitch is high, the pace slow".
"""

from collections.abc import Mapping

Phrases = Mapping[str, tuple[str, ...]]

_NORMAL = "(normal|moderate|medium|average|ordinary)"
_FAST = "(fast|quick|rapid|brisk|swift|hurried)"
_SLOW = "(slow|unhurried|leisurely|measured|sedate)"
_PACE = "(pace|tempo|speed)"

LEVEL_PHRASES: Mapping[tuple[str, str], Phrases] = {
    ("pitch", "high"): {
        "voice": ("{rather}high", "high-pitched"),
        "manner": ("at a {rather}high pitch", "in a high register", "at a raised pitch"),
        "tail": ("with a (high|raised|elevated) pitch", "while {the_her} pitch {is} {rather}high"),
        "mark": ("a {rather}high pitch", "a (raised|elevated) pitch", "a high register"),
        "fact": ("pitch={rather}high", "pitch=(raised|elevated)", "register=high"),
    },
    ("pitch", "normal"): {
        "voice": ("medium-pitched", "mid-range"),
        "manner": (f"at a {_NORMAL} pitch", "in a (middle|medium) register"),
        "tail": (f"with a {_NORMAL} pitch", f"while {{the_her}} pitch {{is}} {_NORMAL}"),
        "mark": (f"a {_NORMAL} pitch", "a (middle|medium) register"),
        "fact": (f"pitch={_NORMAL}", "register=medium"),
    },
    ("pitch", "low"): {
        "voice": ("{rather}deep", "low-pitched", "deep"),
        "manner": ("at a {rather}low pitch", "in a (low|deep) register"),
        "tail": ("with a (low|deep|lowered) pitch", "while {the_her} pitch {is} {rather}low"),
        "mark": ("a {rather}low pitch", "a (deep|lowered) pitch", "a low register"),
        "fact": ("pitch={rather}low", "pitch=(lowered|deep)", "register=low"),
    },
    ("loudness", "loud"): {
        "voice": ("{rather}loud", "(powerful|booming|loud|forceful|resounding)"),
        "manner": ("{rather}loudly", "loudly", "at (high|full) volume", "at a high volume"),
        "tail": ("with (great|high|full) volume", "while {the_her} volume {is} {rather}high"),
        "mark": ("a {rather}(loud|high) volume", "(high|full|great) volume"),
        "fact": ("volume={rather}high",),
    },
    ("loudness", "normal"): {
        "manner": (f"at a {_NORMAL} volume", "with (normal|ordinary|average) volume"),
        "tail": (f"with a {_NORMAL} volume", f"while {{the_her}} volume {{is}} {_NORMAL}"),
        "mark": (f"a {_NORMAL} volume", f"{_NORMAL} volume"),
        "fact": (f"volume={_NORMAL}",),
    },
    ("loudness", "quiet"): {
        "voice": ("{rather}quiet", "(hushed|quiet|faint|soft|muted|subdued)"),
        "manner": ("{rather}(quietly|softly)", "quietly", "softly", "at a {rather}low volume"),
        "tail": (
            "with (little|low) volume",
            "while {the_her} volume {is} {rather}low",
            "while the volume {is} subdued",
        ),
        "mark": ("a {rather}low volume", "a (soft|quiet|subdued) volume", "low volume"),
        "fact": ("volume={rather}low", "volume=(low|subdued)"),
    },
    ("pace", "fast"): {
        "manner": (
            "{rather}(quickly|rapidly|fast)",
            "(quickly|rapidly|fast|briskly|swiftly|hurriedly|speedily)",
            f"at a {{rather}}{_FAST} {_PACE}",
        ),
        "tail": (
            f"with a {_FAST} {_PACE}",
            f"while the {_PACE} {{is}} {{rather}}(fast|quick|rapid)",
        ),
        "mark": (f"a {{rather}}{_FAST} {_PACE}", "(rapid|hurried|quick|fast) speech"),
        "fact": (f"{_PACE}={{rather}}(fast|quick|rapid)", f"pace={_FAST}"),
    },
    ("pace", "normal"): {
        "manner": (f"at a {_NORMAL} {_PACE}",),
        "tail": (f"with a {_NORMAL} {_PACE}", f"while the {_PACE} {{is}} {_NORMAL}"),
        "mark": (f"a {_NORMAL} {_PACE}",),
        "fact": (f"{_PACE}={_NORMAL}",),
    },
    ("pace", "slow"): {
        "manner": (
            "{rather}slowly",
            "(slowly|unhurriedly|slowly|leisurely)",
            f"at a {{rather}}{_SLOW} {_PACE}",
        ),
        "tail": (
            f"with a {_SLOW} {_PACE}",
            f"while the {_PACE} {{is}} {{rather}}slow",
            "the words drawn out",
        ),
        "mark": (f"a {{rather}}{_SLOW} {_PACE}", "(slow|unhurried|drawn-out|measured) speech"),
        "fact": (f"{_PACE}={{rather}}slow", f"pace={_SLOW}"),
    },
    ("pitch_movement", "rising"): {
        "tail": (
            "with a rising (intonation|inflection|melody)",
            "while {the_her} intonation (rises|climbs|is rising)[ toward the end]",
        ),
        "mark": ("a rising (intonation|inflection)", "an upward (intonation|inflection)"),
        "fact": ("(intonation|inflection|melody)=rising",),
    },
    ("pitch_movement", "falling"): {
        "tail": (
            "with a falling (intonation|inflection|melody)",
            "while {the_her} intonation (falls|drops|is falling)[ toward the end]",
        ),
        "mark": ("a falling (intonation|inflection)", "a downward (intonation|inflection)"),
        "fact": ("(intonation|inflection|melody)=falling",),
    },
    ("pitch_range", "flat"): {
        "voice": ("(flat|monotonous|monotone)",),
        "manner": ("in a monotone", "monotonously", "in a flat monotone"),
        "tail": (
            "with a (flat|level|monotonous) (intonation|melody)",
            "while the intonation {is} (flat|level)",
        ),
        "mark": ("a (flat|level|monotonous) (intonation|inflection)",),
        "fact": ("(intonation|inflection|melody)=(flat|monotonous)",),
    },
    ("pitch_range", "varied"): {
        "voice": ("melodic", "lilting", "singsong"),
        "tail": (
            "with a (lively|varied|expressive|melodic) (intonation|inflection)",
            "while {the_her} intonation {is} (varied|lively|expressive)",
        ),
        "mark": ("a (lively|varied|expressive|melodic|modulated) (intonation|inflection)",),
        "fact": ("(intonation|inflection|melody)=(lively|varied|expressive)",),
    },
    ("loudness_movement", "swelling"): {
        "tail": (
            "(growing|getting|becoming) louder[ toward the end]",
            "(growing|getting) louder and louder",
            "while the volume (is|keeps) (growing|swelling)",
        ),
        "mark": ("a (growing|swelling) volume",),
        "fact": ("volume=(growing|swelling)",),
    },
    ("loudness_movement", "fading"): {
        "tail": (
            "(growing|getting) quieter[ toward the end]",
            "(trailing off|fading away|fading|dying away) toward the end",
            "while the volume is (fading|dwindling)",
        ),
        "mark": ("a (fading|dwindling) volume",),
        "fact": ("volume=(fading|dwindling)",),
    },
    ("loudness_range", "dynamic"): {
        "tail": (
            "with a (changing|varied|fluctuating) volume",
            "while the volume keeps (changing|varying)[ from word to word]",
        ),
        "mark": ("a (changing|varied|fluctuating|variable) volume",),
        "fact": ("volume=(varied|changing|variable)",),
    },
    ("loudness_range", "steady"): {
        "manner": ("at a (steady|constant|stable|even) volume",),
        "tail": (
            "with a (steady|constant|stable) volume",
            "while the volume {is} (constant|stable|unchanging)",
        ),
        "mark": ("a (steady|constant|stable|even) volume",),
        "fact": ("volume=(constant|stable)",),
    },
    ("pauses", "halting"): {
        "manner": ("haltingly", "falteringly", "in fits and starts", "with (many|frequent) pauses"),
        "tail": ("with (many|frequent|long) pauses", "pausing often", "often pausing"),
        "mark": ("(many|frequent) pauses", "(halting|broken) speech"),
        "fact": ("speech=(halting|broken)",),
    },
    ("pauses", "fluent"): {
        "manner": ("fluently", "seamlessly", "without pauses", "without a pause"),
        "tail": ("without (pauses|a pause)", "with few pauses", "while the speech {is} flowing"),
        "mark": ("(fluent|flowing) speech", "few pauses"),
        "fact": ("speech=(fluent|flowing)",),
    },
}

_QUALITIES = {
    ("clearness", "clear"): ("clear", "crisp", "distinct"),
    ("clearness", "hoarse"): ("hoarse", "rough", "raspy", "husky", "gravelly", "scratchy"),
    ("brightness", "bright"): ("bright", "brilliant", "silvery"),
    ("brightness", "dull"): ("dull", "dark", "hollow"),
    ("steadiness", "trembling"): (
        "trembling",
        "shaky",
        "quivering",
        "unsteady",
        "tremulous",
        "quavering",
    ),
    ("steadiness", "steady"): ("steady", "smooth", "controlled"),
    ("texture", "breathy"): ("breathy", "airy", "breathless"),
    ("texture", "tense"): ("tense", "strained", "tight", "constricted", "taut"),
    ("texture", "soft"): ("mellow", "velvety", "silky"),
}


def phrases() -> dict[tuple[str, str], Phrases]:
    """(aspect, level) → role → templates, the qualities of a voice among them."""
    table = dict(LEVEL_PHRASES)
    for item, words in _QUALITIES.items():
        choice = f"({'|'.join(words)})"
        table[item] = {
            "voice": (choice,),
            "tail": (f"with a {choice} voice", f"while {{the_her}} voice {{is}} {choice}"),
            "mark": (f"a {choice} (voice|timbre)",),
            "fact": (f"(voice|timbre)={choice}",),
        }
    return table
