"""A language model of this machine as judge."""

from pathlib import Path

import pytest
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from aligncap.captioner.vocabulary import train_text_tokenizer
from aligncap.endpoints import NoReplyError
from aligncap.errors import JudgeError, MissingModelError
from aligncap.metrics.judge import JudgeSettings
from aligncap.metrics.judge_clients import open_judge, open_local
from aligncap.metrics.table import MetricOptions, open_metric
from metrics.judge.fakes import clip

TEMPLATE = "{% for m in messages %}<s>{{ m.role }}: {{ m.content }}{% endfor %} ->"


def write_model(folder: Path, *, template: str | None = None, seed: int = 0) -> Path:
    """A tiny random LLaMA with its tokenizer, as one would fetch them."""
    import torch

    tokenizer = train_text_tokenizer(["She sounds calm.", "他说话很快。"] * 4, 300)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", pad_token="<pad>"
    )
    fast.chat_template = template
    fast.save_pretrained(folder)
    torch.manual_seed(seed)
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1}
    config = LlamaConfig(
        vocab_size=tokenizer.get_vocab_size(),
        num_attention_heads=2,
        max_position_embeddings=4096,
        **sizes,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder


def test_a_model_that_cannot_write_json_fails_clip_by_clip(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "tiny")
    settings = JudgeSettings(model=str(folder), max_tokens=8, cache=tmp_path / "replies.sqlite")
    with open_judge(settings) as judge:
        metric = open_metric("aes-c", MetricOptions(judge=judge))
        assert metric.variant.startswith("aes-c|judge:tiny@")
        with pytest.raises(JudgeError, match=r"tiny@.* could rate none of 2 clips"):
            metric.measure([clip(0), clip(1)])
        report = judge.report
        assert [failure.id for failure in report.failures] == ["clip0", "clip1"]
        assert (report.asked, report.malformed) == (4, 4)
        # The whole prompt got there: bytes are tokens, and few of them are merged.
        assert report.prompt_tokens > 4 * 900
    with open_judge(settings) as judge:
        with pytest.raises(JudgeError):
            open_metric("aes-c", MetricOptions(judge=judge)).measure([clip(0), clip(1)])
        assert (judge.report.asked, judge.report.kept) == (0, 4)


def test_replies_are_greedy_and_follow_the_prompt(tmp_path: Path) -> None:
    import torch

    model = open_local(str(write_model(tmp_path / "tiny")), max_tokens=6)
    reply = model.ask("She sounds calm.")
    tokenizer = PreTrainedTokenizerFast.from_pretrained(tmp_path / "tiny")
    causal_lm = LlamaForCausalLM.from_pretrained(tmp_path / "tiny").eval()
    ids = tokenizer("She sounds calm.\n", return_tensors="pt").input_ids
    assert reply.prompt_tokens == ids.shape[1]
    for _ in range(reply.completion_tokens):
        with torch.no_grad():
            best = causal_lm(ids).logits[0, -1].argmax()
        ids = torch.cat([ids, best[None, None]], dim=1)
    expected = tokenizer.decode(ids[0, reply.prompt_tokens :], skip_special_tokens=True)
    assert reply.text == expected
    assert reply.finish == ("length" if reply.completion_tokens == 6 else "stop")


def test_the_chat_template_is_used_once(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "tiny", template=TEMPLATE)
    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
    reply = open_local(str(folder), max_tokens=2).ask("calm?")
    assert reply.prompt_tokens == len(tokenizer.tokenize("<s>user: calm? ->"))


def test_a_prompt_without_room_gets_no_reply(tmp_path: Path) -> None:
    model = open_local(str(write_model(tmp_path / "tiny")), max_tokens=8)
    with pytest.raises(NoReplyError, match="has room for 4096"):
        model.ask("calm " * 4096)


def test_other_weights_are_another_judge(tmp_path: Path) -> None:
    one, same, other = (
        open_local(str(write_model(tmp_path / place / "tiny", seed=seed)), max_tokens=2).name
        for place, seed in (("a", 0), ("b", 0), ("c", 1))
    )
    assert one == same != other


def test_a_model_that_is_not_here_says_what_it_needs(tmp_path: Path) -> None:
    settings = JudgeSettings(model=str(tmp_path), cache=tmp_path / "replies.sqlite")
    with pytest.raises(MissingModelError, match=r"needs config\.json"):
        open_judge(settings)
