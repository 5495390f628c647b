"""How Python objects become the bytes that a store holds, and come back."""

from __future__ import annotations

import functools
import json
import pickle
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from latchstore.contract.arguments import as_bytes, describe
from latchstore.contract.errors import CodecError

if TYPE_CHECKING:
    # Type checkers have the module always, and its TypeVars have a default, as typing's have from 3.13 on.
    from typing_extensions import TypeVar

    V = TypeVar("V", default=Any)
else:
    from typing import TypeVar

    #: The type of the values of a codec, a mapping or a cache; Any where none is given.
    V = TypeVar("V")


@runtime_checkable
class Codec(Protocol[V]):
    """What makes bytes of an object, and the object again. Any number of threads may use it."""

    def encode(self, value: V) -> bytes:
        """Return the object as bytes."""

    def decode(self, data: bytes) -> V:
        """Return a new object that is equal to the one that was encoded."""


class PickleCodec:
    """Any object that can be pickled. Decoding can run any code: load no files that others wrote."""

    def encode(self, value: Any) -> bytes:
        """Return the object, pickled with the newest protocol."""
        return pickle.dumps(value, pickle.HIGHEST_PROTOCOL)

    def decode(self, data: bytes) -> Any:
        """Return the object."""
        return pickle.loads(data)  # noqa: S301 (the data is what this process has put there)


class JSONCodec:
    """What JSON has: str, int, float, bool, None, lists, dicts with str keys; tuples come back as lists."""

    def encode(self, value: Any) -> bytes:
        """Return the object as UTF-8 text."""
        return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "surrogatepass")

    def decode(self, data: bytes) -> Any:
        """Return the object."""
        return json.loads(data.decode("utf-8", "surrogatepass"))


class MsgpackCodec:
    """What JSON has, and bytes; the keys of dicts may be numbers, bytes, bools and None as well.

    An int has 64 bits. It takes less room than JSON, and less time. Needs ``latchstore[redis]``, or msgpack.
    """

    def __init__(self) -> None:
        # Not loaded for other codecs.
        try:
            import msgpack
        except ImportError as error:
            raise ImportError(
                "codec 'msgpack' needs msgpack, which is not installed: pip install 'latchstore[redis]'"
            ) from error
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
    """Bytes as they are."""

    def encode(self, value: Any) -> bytes:
        """Return the bytes of any bytes-like object."""
        return as_bytes(value, "value")

    def decode(self, data: bytes) -> bytes:
        """Return the data itself."""
        return data


class ReferenceCodec:
    """No codec: a `Cache` keeps the object itself, which is shared, and nothing is encoded or decoded."""

    def encode(self, value: Any) -> bytes:
        """Raise TypeError, unless it is bytes."""
        if type(value) is not bytes:
            raise TypeError("codec='reference' makes no bytes of objects")
        return value

    def decode(self, data: bytes) -> bytes:
        """Return the data itself."""
        return data


class UnnamedCodec(RawCodec):
    """Bytes as they are, as no codec was named for what may have been written by anybody."""

    def encode(self, value: Any) -> bytes:
        """Return the bytes of a bytes-like object; TypeError for all else."""
        try:
            return super().encode(value)
        except TypeError:
            raise TypeError(
                "no codec was named, so bytes alone are taken: a cache that was given its store, and a "
                "mapping of a store that was loaded from a file, have none of their own; name one, as "
                "codec='pickle' or 'json', or for a cache codec='reference', which keeps objects as they are"
            ) from None


#: The codecs that go by a name. "msgpack" is another one, if it is installed.
CODECS: dict[str, Codec] = {"pickle": PickleCodec(), "json": JSONCodec(), "raw": RawCodec()}


def checked_codec(codec: str | Codec[V]) -> Codec[V]:
    """Return the codec, which may be named; ValueError or TypeError if it is none.

    ImportError, which names what is to be installed, if it is "msgpack" and that is not there.
    """
    if isinstance(codec, str):
        if codec == "reference":
            raise ValueError(
                "codec 'reference' keeps objects as they are, which a Cache can, and what reads bytes cannot"
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


def encoded(codec: Codec[V], key: str, value: V) -> bytes:
    """Return the value as bytes; CodecError, which names the key, if that fails."""
    try:
        data = codec.encode(value)
        return data if type(data) is bytes else as_bytes(data, "what encode returns")
    except MemoryError:
        raise  # it is not about the value
    except Exception as error:
        raise CodecError(key, f"cannot be encoded: {describe(value)}: {error}") from error


def decoded(codec: Codec[V], key: str, data: bytes) -> V:
    """Return the value; CodecError, which names the key, if that fails."""
    try:
        return codec.decode(data)
    except MemoryError:
        raise
    except Exception as error:
        raise CodecError(key, f"cannot be decoded: {len(data)} bytes, {describe(data)}: {error}") from error
