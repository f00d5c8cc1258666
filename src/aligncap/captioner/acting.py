"""P_act at inference: which clues the student reads beside the speech (decision 5)."""

from aligncap.clues import acoustic_prompt, heard_clues, measured_clues
from aligncap.errors import UnknownNameError
from aligncap.values import Facts, SpeechTokens

ACT_MODES = ("none", "measured", "heard")
"""Where the student's P_act comes from: nowhere (Eq. 4), the signal, or the heads as well."""


def student_act(mode: str, facts: Facts, tokens: SpeechTokens, language: str) -> str:
    """P_act of unseen speech in a language; "" where there is nothing to say, or for "none"."""
    if mode not in ACT_MODES:
        raise UnknownNameError("act mode", mode, ACT_MODES)
    if mode == "none":
        return ""
    heard = heard_clues(tokens.readout, facts) if mode == "heard" else measured_clues(facts)
    return acoustic_prompt(heard, language)
