"""What the captioner hands on: every name is there, and asking for a light one stays light."""

import subprocess
import sys

import aligncap.captioner as captioner


def test_every_public_name_is_there():
    for name in captioner.__all__:
        assert getattr(captioner, name).__name__ == name


def test_the_light_half_brings_no_torch():
    code = (
        "import sys\n"
        "from aligncap.captioner import PromptBuilder, Vocabulary, collate, load_vocabulary\n"
        "print({'torch', 'transformers', 'peft'} & set(sys.modules))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "set()"
