"""Text that any file and terminal takes: what comes from the code under test may be any string.

Thread safety: the function keeps nothing.
"""

from __future__ import annotations

import re

#: What is no character of XML 1.0 (section 2.2): most control characters, lone surrogates, U+FFFE and U+FFFF.
_NO_CHARACTER = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def visible(text: str) -> str:
    r"""Return a text with what cannot be written or would not be seen replaced by its escape, as ``\x00``."""
    return _NO_CHARACTER.sub(lambda found: ascii(found[0])[1:-1], text)
