"""Names of other formats, in the characters that ours may have."""

import doctest

from connectors.formats import escape


def test_the_examples_are_true() -> None:
    failures, tried = doctest.testmod(escape)
    assert (failures, tried) == (0, 3)
