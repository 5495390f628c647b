"""Makes text safe for any file and terminal: text of the code under test may be any string.

Thread safety: the function has no state.
"""

from __future__ import annotations

import re

#: Characters that XML 1.0 excludes (section 2.2): most control characters, surrogates, U+FFFE and U+FFFF.
_NO_CHARACTER = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def visible(text: str) -> str:
    r"""Return a text with unprintable and invisible characters replaced by their escapes, as ``\x00``."""
    return _NO_CHARACTER.sub(lambda found: ascii(found[0])[1:-1], text)
