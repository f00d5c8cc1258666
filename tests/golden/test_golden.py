"""What the package says and computes has not changed: each part of `make_golden` gives what is
stored. A change that is meant is written down by `make golden`, and its reason in the commit."""

import pytest

from golden.make_golden import PARTS, SLOW, read_golden
from golden.surface import TRAINED, assert_same


@pytest.mark.timeout(1800)  # seconds on an idle machine, minutes on a busy one
@pytest.mark.filterwarnings("ignore")  # of libraries: other tests see to them
@pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=pytest.mark.slow if part in SLOW else ()) for n, part in PARTS.items()],
)
def test_nothing_has_changed(name: str) -> None:
    within = TRAINED if name in ("stages", "pipeline") else 1e-4
    assert_same(PARTS[name](), read_golden(name), within=within)
