"""Numbers as bytes, whose order is that of the numbers: for indexes that compare bytes.

What these functions return is in files and on servers, so it must not change.

Thread safety: functions of their arguments. No code of the user runs.
"""

from __future__ import annotations

import math
import struct

#: Numbers of 64 bits are below this, and not below its negative.
BEYOND = 2**63


def number_bytes(value: int | float) -> bytes:
    """Return a number of about 64 bits as ten bytes: the greatest float that is not above it, and the rest.

    The longest duration has 67 bits of microseconds, whose rest has at most 14 bits.
    """
    near = float(value)
    if near > value:  # exact between int and float
        near = math.nextafter(near, -math.inf)
    rest = 0 if type(value) is float else value - int(near)
    (bits,) = struct.unpack(">Q", struct.pack(">d", near + 0.0))  # -0.0 is 0.0
    # Floats are in the order of their bits, negative ones in the reverse of it.
    bits = bits ^ 0xFFFF_FFFF_FFFF_FFFF if bits >> 63 else bits | 1 << 63
    return struct.pack(">QH", bits, rest)


def beyond_bytes(value: int | float, length: int) -> bytes:
    """Return a number of more than 64 bits, which is an integer or infinite, as bytes.

    Positive numbers and negative ones are in order each for themselves.

    Parameters
    ----------
    value : int or float
    length : int
        How many bytes have the length of the integer; they come first, and infinity has larger ones.
    """
    if value < 0:
        return bytes([0xFF - byte for byte in beyond_bytes(-value, length)])
    if type(value) is float and math.isinf(value):
        return b"\xff" * (length + 1)
    number = int(value)
    size = (number.bit_length() + 7) // 8
    return size.to_bytes(length, "big") + number.to_bytes(size, "big")
