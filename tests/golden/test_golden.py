"""What the package says and computes has not changed: each part of `make_golden` gives what is
stored. A change that is meant is written down by `make golden`, and its reason in the commit."""

import pytest

from golden.make_golden import PARTS, read_golden
from golden.surface import differences


@pytest.mark.parametrize("name", PARTS)
def test_nothing_has_changed(name: str) -> None:
    found = differences(PARTS[name](), read_golden(name))
    assert not found, "\n".join(found[:20])
