"""Chinese words of the paraphrase grammar for aspects of the voice.

Roles: `voice` before 的声音, `manner` before 地说, `clause` as a clause of its own (语速较快),
`mark` as a noun phrase (较快的语速).
"""

from collections.abc import Mapping

Phrases = Mapping[str, tuple[str, ...]]

_NORMAL = "(适中|正常|中等|一般)"
_NOUN = {
    "pitch": "(音调|声调|音高)",
    "loudness": "音量",
    "pace": "语速",
    "tune": "(语调|尾音)",
}

_LEVELS: Mapping[tuple[str, str], Phrases] = {
    ("pitch", "high"): {
        "voice": ("高亢", "尖细", "音调{rather}高"),
        "clause": (f"{_NOUN['pitch']}{{rather}}高", "声音(高亢|尖细)", "嗓音高亢"),
        "mark": (f"{{rather}}高的{_NOUN['pitch']}", "高亢的嗓音"),
    },
    ("pitch", "normal"): {
        "clause": (f"{_NOUN['pitch']}{_NORMAL}", f"{_NOUN['pitch']}不高不低"),
        "mark": (f"{_NORMAL}的{_NOUN['pitch']}", "不高不低的(音调|声调)"),
    },
    ("pitch", "low"): {
        "voice": ("低沉", "低沉", "音调{rather}低"),
        "clause": (f"{_NOUN['pitch']}{{rather}}低", "(声音|嗓音){somewhat}低沉", "声线低沉"),
        "mark": (f"{{rather}}低的{_NOUN['pitch']}", "{somewhat}低沉的(嗓音|声线)"),
    },
    ("loudness", "loud"): {
        "voice": ("洪亮", "响亮"),
        "manner": ("大声", "高声"),
        "clause": (
            f"{_NOUN['loudness']}{{rather}}大",
            "(声音|嗓音){somewhat}(洪亮|响亮)",
            "嗓门{rather}大",
        ),
        "mark": (f"(偏大|很大|比较大|相当大)的{_NOUN['loudness']}", "(洪亮|响亮)的嗓音"),
    },
    ("loudness", "normal"): {
        "clause": (f"{_NOUN['loudness']}{_NORMAL}", "声音不大不小"),
        "mark": (f"{_NORMAL}的{_NOUN['loudness']}",),
    },
    ("loudness", "quiet"): {
        "voice": ("微弱",),
        "manner": ("小声", "轻声", "低声"),
        "clause": (f"{_NOUN['loudness']}{{rather}}(小|低)", "声音{rather}(小|轻)", "说得很小声"),
        "mark": (f"{{rather}}(小|低)的{_NOUN['loudness']}", "微弱的声音"),
    },
    ("pace", "fast"): {
        "manner": ("快速", "飞快", "迅速", "急促"),
        "clause": (
            "(语速|说话速度|说话的节奏){rather}快",
            "语速{somewhat}急促",
            "话说得{rather}快",
        ),
        "mark": (f"{{rather}}快的{_NOUN['pace']}", "(飞快|急促)的语速"),
    },
    ("pace", "normal"): {
        "manner": ("不快不慢", "不疾不徐"),
        "clause": (f"{_NOUN['pace']}{_NORMAL}", "语速(不快不慢|不疾不徐|平稳|均匀)"),
        "mark": (f"{_NORMAL}的{_NOUN['pace']}", "(不快不慢|平稳)的语速"),
    },
    ("pace", "slow"): {
        "manner": ("缓慢", "慢慢", "缓缓", "慢悠悠"),
        "clause": (
            "(语速|说话速度|说话的节奏){rather}慢",
            "语速{somewhat}缓慢",
            "话说得{rather}慢",
        ),
        "mark": (f"{{rather}}慢的{_NOUN['pace']}", "缓慢的语速"),
    },
    ("pitch_movement", "rising"): {
        "clause": (f"{_NOUN['tune']}(上扬|上升|上挑)", "语调(渐高|升高)", "(句尾|话尾)上扬"),
        "mark": (f"(上扬|上升|上挑)的{_NOUN['tune']}",),
    },
    ("pitch_movement", "falling"): {
        "clause": (f"{_NOUN['tune']}(下沉|下降|下落)", "语调渐低", "句尾(下沉|下降)"),
        "mark": (f"(下沉|下降|下落)的{_NOUN['tune']}",),
    },
    ("pitch_range", "flat"): {
        "clause": ("语调(平淡|单调|平直|平平)", "语调(没有起伏|起伏不大)", "声音单调"),
        "mark": ("(平淡|单调|平直)的语调",),
    },
    ("pitch_range", "varied"): {
        "voice": ("抑扬顿挫", "婉转"),
        "manner": ("抑扬顿挫",),
        "clause": ("语调(起伏较大|起伏明显|富有变化|多变|抑扬顿挫)", "语调{somewhat}丰富"),
        "mark": ("(起伏|多变|抑扬顿挫)的语调",),
    },
    ("loudness_movement", "swelling"): {
        "clause": ("声音(越来越大|渐大|逐渐变大)", "音量(渐强|逐渐增大|逐渐增强)"),
        "mark": ("(逐渐增大|渐强)的音量",),
    },
    ("loudness_movement", "fading"): {
        "clause": ("声音(越来越小|渐小|逐渐变小)", "音量(渐弱|逐渐减小|逐渐减弱)"),
        "mark": ("(逐渐减小|渐弱)的音量",),
    },
    ("loudness_range", "dynamic"): {
        "clause": ("(声音|音量)(忽大忽小|时大时小)", "音量(起伏大|多变)"),
        "mark": ("(忽大忽小|时大时小)的音量",),
    },
    ("loudness_range", "steady"): {
        "clause": ("音量(平稳|稳定|均匀)", "音量(没有变化|不变)"),
    },
    ("pauses", "halting"): {
        "manner": ("断断续续", "磕磕绊绊", "结结巴巴"),
        "clause": ("(说话|话语)(断断续续|磕磕绊绊|结结巴巴)", "(说话|句中)停顿{rather}多"),
        "mark": ("{rather}多的停顿",),
    },
    ("pauses", "fluent"): {
        "manner": ("流畅", "流利", "连贯"),
        "clause": ("(说话|话语){somewhat}(流畅|流利|连贯)", "说话没有停顿", "说得一气呵成"),
    },
}

_QUALITIES = {
    ("clearness", "clear"): ("清晰", "清脆", "清亮"),
    ("clearness", "hoarse"): ("沙哑", "嘶哑", "粗哑"),
    ("brightness", "bright"): ("明亮", "甜美", "透亮"),
    ("brightness", "dull"): ("沉闷", "暗淡", "发闷"),
    ("steadiness", "trembling"): ("颤抖", "发抖", "发颤"),
    ("steadiness", "steady"): ("沉稳", "平稳", "稳健"),
    ("texture", "breathy"): ("带着气声", "带着喘息", "夹杂着气音"),
    ("texture", "tense"): ("紧绷", "发紧", "僵硬"),
    ("texture", "soft"): ("圆润", "细腻", "柔润"),
}


def phrases() -> dict[tuple[str, str], Phrases]:
    """(aspect, level) → role → templates, the qualities of a voice among them."""
    table = dict(_LEVELS)
    for item, words in _QUALITIES.items():
        choice = f"({'|'.join(words)})"
        table[item] = {
            "voice": (choice,),
            "clause": (f"(声音|嗓音|音色){choice}",),
            "mark": (f"{choice}的(嗓音|音色|声音)",),
        }
    return table
