"""What student, teacher and warm-up read of a clip: spans looked up in the ids themselves."""

from dataclasses import replace

import pytest

from aligncap.alignment.examples import Prompter, Sample, StudentSettings
from aligncap.captioner.prompts import PromptBuilder
from aligncap.errors import DataError
from support.captioner import tiny_vocabulary
from support.rows import tiny_rows

VOCABULARY = tiny_vocabulary()
ROWS = tiny_rows(12)
PROMPTER = Prompter(PromptBuilder(VOCABULARY), ROWS)
EN, ZH = Sample(0, "en", (0, 1), None), Sample(0, "zh", (0,), None)


def read(ids: tuple[int, ...]) -> str:
    return VOCABULARY.decode(ids)


def codes(ids: tuple[int, ...]) -> list[int]:
    return [i - VOCABULARY.speech_base for i in ids if i >= VOCABULARY.speech_base]


def test_the_student_hears_the_clip_and_is_to_say_its_captions() -> None:
    row = PROMPTER.student_row(EN, StudentSettings())
    assert codes(row.prompt_ids) == ROWS[0].speech[0].tolist()
    assert "Feeling" not in read(row.prompt_ids)
    assert [read(said) for said in row.responses] == list(ROWS[0].captions["en"])
    assert all(said[-1] == VOCABULARY.eos_id for said in row.responses)


def test_each_language_has_its_instruction() -> None:
    english, chinese = (PROMPTER.student_row(d, StudentSettings()).prompt_ids for d in (EN, ZH))
    assert "Describe" in read(english)
    assert "描述" in read(chinese)


def test_measured_clues_are_given_but_for_the_share_left_out() -> None:
    student = StudentSettings(act_mode="measured", act_dropout=0.25)
    assert ROWS[0].measured["en"] in read(PROMPTER.student_row(EN, student).prompt_ids)
    prompts = [
        PROMPTER.student_row(replace(EN, seed=seed), student).prompt_ids for seed in range(400)
    ]
    given = sum("Feeling" in read(prompt) for prompt in prompts)
    assert given / 400 == pytest.approx(0.75, abs=0.06)
    # Validation leaves nothing out.
    never = StudentSettings(act_mode="measured", act_dropout=0.999)
    assert "Feeling" in read(PROMPTER.student_row(EN, never).prompt_ids)


def test_speech_frames_are_left_out_in_order_and_never_all() -> None:
    student = StudentSettings(speech_dropout=0.5)
    whole = ROWS[0].speech[0].tolist()
    lengths = set()
    for seed in range(50):
        kept = codes(PROMPTER.student_row(replace(EN, seed=seed), student).prompt_ids)
        rest = iter(whole)
        assert all(code in rest for code in kept)  # a subsequence
        lengths.add(len(kept))
    assert len(lengths) > 2
    nearly_all = StudentSettings(speech_dropout=0.99)
    for seed in range(20):
        assert codes(PROMPTER.student_row(replace(EN, seed=seed), nearly_all).prompt_ids)
    assert codes(PROMPTER.student_row(EN, student).prompt_ids) == whole


def test_the_teacher_reads_clues_and_for_p_sem_the_caption_itself() -> None:
    act = PROMPTER.teacher_examples(EN, "act")
    assert len({example.prompt_ids for example in act}) == 1
    assert ROWS[0].act["en"] in read(act[0].prompt_ids)
    assert not any(codes(example.prompt_ids) for example in act)
    for example, caption in zip(
        PROMPTER.teacher_examples(EN, "act+sem"), ROWS[0].captions["en"], strict=True
    ):
        assert caption in read(example.prompt_ids)
        assert read(example.response_ids) == caption
    (spoken, _) = PROMPTER.teacher_examples(EN, "act+transcript")
    assert ROWS[0].transcript in read(spoken.prompt_ids)


def test_student_and_teacher_are_asked_for_the_same_tokens() -> None:
    student = PROMPTER.student_row(EN, StudentSettings())
    teacher = PROMPTER.teacher_examples(EN, "act+sem")
    assert student.responses == tuple(example.response_ids for example in teacher)


def test_views_of_one_clip_ask_the_teacher_once() -> None:
    rows = [ROWS[0], replace(ROWS[0], id="clip0#1", speech=ROWS[1].speech), ROWS[3]]
    examples = Prompter(PromptBuilder(VOCABULARY), rows).all_examples("act")
    # Row 3 has the feeling, clues and captions of row 0, but another transcript.
    assert len(examples) == 3
    assert len(Prompter(PromptBuilder(VOCABULARY), rows).all_examples("act+transcript")) == 6


def test_warm_up_mixes_prompts_and_sometimes_gives_none() -> None:
    def kinds(prompts: dict[str, float], act_dropout: float) -> list[str]:
        found = []
        for seed in range(300):
            rows = PROMPTER.warmup_rows(
                replace(EN, seed=seed), prompts=prompts, act_dropout=act_dropout
            )
            assert {read(said) for row in rows for said in row.responses} == set(
                ROWS[0].captions["en"]
            )
            text = read(rows[0].prompt_ids)
            kind = "act" if "Feeling" in text else "nothing"
            found.append("act+sem" if read(rows[0].responses[0]) in text else kind)
        return found

    only = kinds({"act": 1.0}, 0.5)
    assert only.count("nothing") / 300 == pytest.approx(0.5, abs=0.1)
    mixed = kinds({"act": 1.0, "act+sem": 2.0}, 0.0)
    assert mixed.count("act+sem") / 300 == pytest.approx(2 / 3, abs=0.1)
    assert "nothing" not in mixed


def test_a_row_without_what_is_asked_for_is_named() -> None:
    rows = [replace(ROWS[0], speech=None, transcript="")]
    prompter = Prompter(PromptBuilder(VOCABULARY), rows)
    with pytest.raises(DataError, match="clip0: has no speech"):
        prompter.student_row(EN, StudentSettings())


def test_a_row_without_a_transcript_is_read_by_its_clues() -> None:
    prompter = Prompter(PromptBuilder(VOCABULARY), [replace(ROWS[0], transcript="")])
    clues = prompter.teacher_examples(EN, "act")
    assert prompter.teacher_examples(EN, "act+transcript") == clues
    (row,) = prompter.warmup_rows(EN, prompts={"act+transcript": 1.0}, act_dropout=0.0)
    assert "Feeling" in read(row.prompt_ids)
