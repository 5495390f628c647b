"""Codecs: they encode Python objects as the bytes that a store holds, and decode them."""

from __future__ import annotations

import functools
import json
import pickle
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from latchstore.contract.arguments import as_bytes, describe
from latchstore.contract.errors import CodecError
from latchstore.contract.extras import missing_extra

if TYPE_CHECKING:
    # Type checkers always find typing_extensions, whose TypeVars have a default, as typing's do from 3.13.
    from typing_extensions import TypeVar

    V = TypeVar("V", default=Any)
else:
    from typing import TypeVar

    #: The type of the values of a codec, a mapping or a cache; Any if none is given.
    V = TypeVar("V")


@runtime_checkable
class Codec(Protocol[V]):
    """Encodes objects as bytes and decodes them. Threads call it at the same time, without a lock.

    Thread safety
    -------------
    Several threads call a codec at the same time, with no lock held, so it should keep no state.
    """

    def encode(self, value: V) -> bytes:
        """Return the bytes of an object."""

    def decode(self, data: bytes) -> V:
        """Return a new object that is equal to the one that was encoded."""


class PickleCodec:
    """Encodes objects with pickle. Decoding can run any code: never load a file that you do not trust."""

    def encode(self, value: Any) -> bytes:
        """Return the object, pickled with the newest protocol."""
        return pickle.dumps(value, pickle.HIGHEST_PROTOCOL)

    def decode(self, data: bytes) -> Any:
        """Return the object."""
        return pickle.loads(data)  # noqa: S301 (the documentation of the class has the warning)


class JSONCodec:
    """Encodes str, int, float, bool, None, lists and dicts with str keys; tuples are decoded as lists."""

    def encode(self, value: Any) -> bytes:
        """Return the object as UTF-8 text."""
        return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "surrogatepass")

    def decode(self, data: bytes) -> Any:
        """Return the object."""
        return json.loads(data.decode("utf-8", "surrogatepass"))


class MsgpackCodec:
    """Encodes what JSON has and bytes; dict keys may also be numbers, bytes, bools and None.

    Integers have at most 64 bits. The result is smaller than JSON and faster to encode and decode. Needs the
    package msgpack, which ``latchstore[redis]`` installs.
    """

    def __init__(self) -> None:
        # Imported here, so that other codecs do not need it.
        try:
            import msgpack
        except ImportError as error:
            raise missing_extra("codec 'msgpack'", "msgpack", "redis", error) from error
        self._pack: Any = functools.partial(msgpack.packb, unicode_errors="surrogatepass")
        self._unpack: Any = functools.partial(
            msgpack.unpackb, unicode_errors="surrogatepass", strict_map_key=False
        )

    def encode(self, value: Any) -> bytes:
        """Return the object in MessagePack."""
        data: bytes = self._pack(value)
        return data

    def decode(self, data: bytes) -> Any:
        """Return the object."""
        return self._unpack(data)


class RawCodec:
    """Stores bytes unchanged."""

    def encode(self, value: Any) -> bytes:
        """Return the bytes of any bytes-like object."""
        return as_bytes(value, "value")

    def decode(self, data: bytes) -> bytes:
        """Return the data itself."""
        return data


class ReferenceCodec:
    """The codec of a `Cache` that keeps the objects themselves, shared and not encoded."""

    def encode(self, value: Any) -> bytes:
        """Return bytes unchanged; raise TypeError for any other object."""
        if type(value) is not bytes:
            raise TypeError(
                f"codec='reference' does not encode objects, got {describe(value)}: pass bytes or choose "
                "codec='pickle' or 'json'"
            )
        return value

    def decode(self, data: bytes) -> bytes:
        """Return the data itself."""
        return data


class UnnamedCodec(RawCodec):
    """Stores bytes unchanged and refuses objects: the codec of data from elsewhere if none was named."""

    def encode(self, value: Any) -> bytes:
        """Return the bytes of a bytes-like object; raise TypeError for any other object."""
        try:
            return super().encode(value)
        except TypeError:
            raise TypeError(
                f"no codec was named, so values must be bytes, got {describe(value)}: a cache with store= "
                "and a mapping of a loaded store have no default codec; name one, such as codec='pickle' or "
                "'json', or for a cache codec='reference', which keeps the objects themselves"
            ) from None


#: The codecs that have a name; "msgpack" has one too and is made when it is asked for.
CODECS: dict[str, Codec] = {"pickle": PickleCodec(), "json": JSONCodec(), "raw": RawCodec()}


def checked_codec(codec: str | Codec[V]) -> Codec[V]:
    """Return a codec, given itself or its name.

    Raises
    ------
    ValueError
        If no codec has the name, or it is ``"reference"``.
    TypeError
        If `codec` has no ``encode`` or ``decode``.
    ImportError
        If it is ``"msgpack"`` and that is not installed; names what to install.
    """
    if isinstance(codec, str):
        if codec == "reference":
            raise ValueError(
                "codec 'reference' is for a Cache, which keeps the objects: choose 'pickle' or 'json'"
            )
        if codec == "msgpack":
            return MsgpackCodec()
        if codec not in CODECS:
            names = ", ".join(map(repr, (*CODECS, "msgpack")))
            raise ValueError(f"codec must be one of {names} or an object, got {codec!r}")
        return CODECS[codec]
    if not isinstance(codec, Codec) or isinstance(codec, type):
        raise TypeError(f"codec must have the methods encode and decode, got {describe(codec)}")
    return codec


def encoded(codec: Codec[V], key: str, value: V, queue: str | None = None) -> bytes:
    """Return the bytes of a value; raise CodecError, which names key and queue, if encoding fails."""
    try:
        data = codec.encode(value)
        return data if type(data) is bytes else as_bytes(data, "the result of encode")
    except MemoryError:
        raise  # not the value's fault
    except Exception as error:
        raise CodecError(key, f"cannot be encoded: {describe(value)}: {error}", queue) from error


def decoded(codec: Codec[V], key: str, data: bytes, queue: str | None = None) -> V:
    """Return the decoded value; raise CodecError, which names key and queue, if decoding fails."""
    try:
        return codec.decode(data)
    except MemoryError:
        raise
    except Exception as error:
        reason = f"cannot be decoded: {len(data)} bytes, {describe(data)}: {error}"
        raise CodecError(key, reason, queue) from error
