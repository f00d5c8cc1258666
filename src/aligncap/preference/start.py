"""What every preference recipe goes on from: a captioner that was trained before."""

from aligncap.alignment.settings import StageSettings
from aligncap.captioner.meta import read_meta


def require_start(settings: StageSettings) -> None:
    """ValueError where the recipe names no model to go on from."""
    if settings.model.start is None:
        raise ValueError(
            "preferences are learnt by a captioner: give model.start, the folder of one "
            "(after KD, §3.2)"
        )


def has_own_reference(settings: StageSettings) -> bool:
    """Whether π_ref is a frozen copy of the start, not the start under a fresh adapter.

    Of a start that has an adapter itself, switching it off would not give π_ref (decision 12).
    """
    start = settings.model.start
    assert start is not None  # the settings make sure
    return settings.model.lora is None or bool(read_meta(start).base)


def start_act_mode(settings: StageSettings) -> str:
    """Where P_act comes from: as the model was trained before."""
    assert settings.model.start is not None
    return read_meta(settings.model.start).act_mode
