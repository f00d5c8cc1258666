"""trl's DPOTrainer on tokens of our own choice: an oracle for tests, and what we are timed against.

trl reads texts; here its trainer is made with one made-up text, and then given batches of ids
through its own collator, with the reference's log-probabilities precomputed.
"""

import tempfile
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any


def open_trainer(causal_lm: Any, *, beta: float = 0.1, loss: str = "sigmoid") -> Any:
    """A DPOTrainer over a transformers model, which it trains in place."""
    from datasets import Dataset, disable_progress_bars
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast
    from trl import DPOConfig, DPOTrainer

    disable_progress_bars()
    words = {"<pad>": 0, "</s>": 1, "a": 2, "b": 3, "c": 4}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="a"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    text = Dataset.from_dict({"prompt": ["a"], "chosen": ["b"], "rejected": ["c"]})
    with warnings.catch_warnings(), tempfile.TemporaryDirectory() as folder:
        warnings.simplefilter("ignore")  # trl's own, about its next version
        config = DPOConfig(
            output_dir=str(Path(folder) / "run"),
            beta=beta,
            loss_type=[loss],
            precompute_ref_log_probs=True,
            per_device_train_batch_size=1,
            max_length=None,
            report_to=[],
            use_cpu=True,
            bf16=False,
            gradient_checkpointing=False,
            disable_tqdm=True,
            disable_dropout=False,
        )
        return DPOTrainer(
            model=causal_lm,
            args=config,
            train_dataset=text,
            processing_class=PreTrainedTokenizerFast(
                tokenizer_object=tokenizer, pad_token="<pad>", eos_token="</s>"
            ),
        )


def inputs_of(
    trainer: Any,
    prompts: Sequence[Sequence[int]],
    pairs: Sequence[tuple[int, Sequence[int], Sequence[int]]],
    references: Sequence[tuple[float, float]],
) -> dict[str, Any]:
    """A batch as trl's collator makes it: (place of the prompt, chosen, rejected) of each pair,
    and the reference's log-probabilities of both."""
    examples = [
        {
            "prompt_ids": list(prompts[place]),
            "chosen_ids": list(chosen),
            "rejected_ids": list(rejected),
            "ref_chosen_logps": of_chosen,
            "ref_rejected_logps": of_rejected,
        }
        for (place, chosen, rejected), (of_chosen, of_rejected) in zip(
            pairs, references, strict=True
        )
    ]
    batch: dict[str, Any] = trainer.data_collator(examples)
    return batch
