"""Chinese words for who speaks."""

from collections.abc import Mapping

Words = Mapping[str, tuple[str, ...]]

PEOPLE: Mapping[str | None, Words] = {
    "female": {
        "a_person": ("一位女士", "一个女人", "一名女子", "一位女性", "一名女性"),
        "the_person": ("这位女士", "这个女人", "这名女子", "这位女性", "女说话人", "她"),
        "person": ("女士", "女子", "女性", "女人"),
        "identified": ("一位女士", "一个女人", "一名女子", "一位女性"),
        "ta": ("她",),
        "voice_of": ("女声", "女人的声音", "女性的声音"),
    },
    "male": {
        "a_person": ("一位男士", "一个男人", "一名男子", "一位男性", "一名男性"),
        "the_person": ("这位男士", "这个男人", "这名男子", "这位男性", "男说话人", "他"),
        "person": ("男士", "男子", "男性", "男人"),
        "identified": ("一位男士", "一个男人", "一名男子", "一位男性"),
        "ta": ("他",),
        "voice_of": ("男声", "男人的声音", "男性的声音"),
    },
    None: {
        "a_person": ("一个人", "有人", "有个人"),
        "identified": ("一个人",),
        "the_person": ("说话人", "说话者", "这个人", "这位说话人"),
        "person": ("人", "说话人"),
        "ta": ("说话人", "说话者"),
        "voice_of": ("说话声", "嗓音"),
    },
}
