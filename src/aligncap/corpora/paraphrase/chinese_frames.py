"""Chinese sentence plans, by style.

`clause` sentences string clauses together, `split` sentences have a verb of speaking with manner
and voice, `list` sentences name the marks of the voice.
"""

FRAMES = {
    "clause": (
        "{the_person}说话时{clauses}，{tone_is}{somewhat}{tone}",
        "{the_person}(说话时|讲话时|){clauses}，{sounds}{feeling}",
        "{the_person}{sounds}{feeling}，{clauses}",
        "{clauses}，{the_person}{sounds}{feeling}",
        "{clauses}，{the_person}{tone_of}{full_of}{noun}",
        "{the_person}{tone_is}{somewhat}{tone}，{clauses}",
        "{the_person}{clauses}，{tone_is}{somewhat}{tone}",
        "{the_person}{clauses}，{tone_of}{full_of}{noun}",
        "{tone_of}{full_of}{noun}，{the_person}{clauses}",
        "{tone_is}{somewhat}{tone}，{clauses}，说话的是{identified}",
        "{a_person}{adv}地(说着话|说着|诉说着|讲着话)，{clauses}",
        "(这是|听得出这是|说话的是){identified}，{clauses}，{sounds}{feeling}",
        "{a_person}正说着话，{clauses}，{sounds}{feeling}",
        "{voice_of}里{full_of}{noun}，{clauses}",
        "{clauses}，(可以听出|听得出|能感觉到){the_person}{feeling}",
        "{clauses}，{tone_of}{full_of}{ta}的{noun}",
        "{the_person}{sounds}{feeling}，说话时{clauses}",
    ),
    "split": (
        "{a_person}用{voice}的声音[{manner}地]说着话[，{clauses}]，{sounds}{feeling}",
        "{a_person}用{voice}的声音[{manner}地]说着话[，{clauses}]，{tone_is}{somewhat}{tone}",
        "{a_person}[{manner}地]说着话[，声音{voice}][，{clauses}]，{sounds}{feeling}",
        "{a_person}{manner}地说着[，声音{voice}][，{clauses}]，{tone_of}{full_of}{noun}",
        "{the_person}{manner}地说着话[，{clauses}]，{voice}的声音里{full_of}{noun}",
        "{the_person}{adv}地用{voice}的声音[{manner}地]说着话[，{clauses}]",
        "{the_person}{voice}的声音里{full_of}{noun}[，{clauses}]",
        "{the_person}{sounds}{feeling}，{manner}地说着话[，声音{voice}][，{clauses}]",
        "{tone_is}{somewhat}{tone}，{a_person}[{manner}地]说着话[，声音{voice}][，{clauses}]",
        "{a_person}语气{tone}地说着话[，声音{voice}][，{clauses}]",
        "{voice}的{voice_of}{sounds}{feeling}[，{clauses}]",
        "{a_person}{manner}地说着话，{tone_is}{somewhat}{tone}[，声音{voice}][，{clauses}]",
        "(这是|说话的是)一位{adj}的{person}[，声音{voice}][，{clauses}]",
        "(从声音可以听出|听得出来|可以听出)，{the_person}(此刻|这时|){feeling}",
        "{the_person}的(话语|语气|话)(里|中){full_of}{noun}",
        "{the_person}(说话时|说这句话时){sounds}{feeling}",
        "{a_person}正说着话，{sounds}{feeling}[，声音{voice}][，{clauses}]",
        "(每个字|每句话|字字句句)(里|中)都{full_of}{the_person}的{noun}",
    ),
    "list": (
        "{the_person}(以|用){marks}说着话，{sounds}{feeling}",
        "{the_person}带有{marks}，{sounds}{feeling}",
        "{marks}，{full_of}{the_person}的{noun}",
        "{a_person}(以|用){marks}{adv}地说着话",
        "{marks}，让{the_person}{sounds}{feeling}",
        "凭{marks}(可以听出|能听出|听得出)，{the_person}{feeling}",
        "{the_person}{sounds}{feeling}，话里带着{marks}",
    ),
}

WORDS = {
    "sounds": ("听起来", "听上去", "听起来", "听上去", "显得", "听来", "听着"),
    "feeling": ("{adj}", "{adj}", "{idiom}"),
    "tone_is": ("语气", "语气", "口吻", "语气听起来"),
    "tone_of": ("语气中", "话语中", "言语间", "语气里", "话里", "声音里", "语气"),
    "full_of": ("充满", "透着", "流露出", "带着", "透露出", "满是", "充满了", "透出"),
    "rather": ("较", "较", "偏", "偏", "比较", "很", "很", "相当", "挺", "颇"),
    "somewhat": ("", "", "较为", "比较", "很", "十分", "有些"),
    "some": ("", "很", "很", "有些", "挺", "十分", "比较", "颇为", "有点"),
    "very": ("非常", "十分", "极其", "极为", "特别", "异常", "无比"),
    "much": ("强烈的", "深深的", "浓浓的", "无比的"),
}
"""Words to pick that depend neither on the meaning nor on who speaks."""
