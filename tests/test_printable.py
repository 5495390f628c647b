"""Text for a terminal: nothing in it can do harm there."""

from __future__ import annotations

import io

from latchstore.printable import printable


def test_names_that_the_output_cannot_show() -> None:
    ascii_only = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    assert printable("grün → \udcff", ascii_only) == "gr\\xfcn \\u2192 \\xff"
    assert printable("grün", io.TextIOWrapper(io.BytesIO(), encoding="utf-8")) == "grün"
