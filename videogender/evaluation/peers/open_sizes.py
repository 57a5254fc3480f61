"""Lets an ONNX file whose input was fixed to one size take any.

Exporters often write the size of their example image into a file whose operators would take any.
Only the declared shapes are touched here, on the level of the protocol-buffer encoding: the image
input's batch, height and width become names, and so do all sizes of the results. The numbers of
fields are those of ONNX's own schema, `onnx.proto`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5  # wire types

GRAPH = 7  # of a model
INITIALIZER, INPUT, OUTPUT, VALUE_INFO = 5, 11, 12, 13  # of a graph
TENSOR_NAME = 8  # of an initializer
NAME, TYPE = 1, 2  # of an input or output
TENSOR, SHAPE, DIM = 1, 2, 1  # of its type, of that, of that
DIM_NAME = 2

__all__ = ["open_sizes"]


def open_sizes(model: bytes) -> bytes:
    """Return the same model with an image input of any batch, height and width.

    Raises:
        ValueError: if this is no ONNX model.
    """
    return b"".join(
        _field(each.number, _graph(each.content)) if each.number == GRAPH else each.raw
        for each in _fields(model)
    )


@dataclass(frozen=True, slots=True)
class _Field:
    number: int
    content: bytes  # of a BYTES field, else empty
    raw: bytes  # as it stands in the file


def _graph(graph: bytes) -> bytes:
    fields = list(_fields(graph))
    weights = {
        part.content
        for each in fields
        if each.number == INITIALIZER
        for part in _fields(each.content)
        if part.number == TENSOR_NAME
    }
    parts = []
    for each in fields:
        if each.number == VALUE_INFO:
            continue
        if each.number == INPUT and _name(each.content) not in weights:  # old files list weights
            parts.append(_field(INPUT, _within(each.content, (TYPE, TENSOR, SHAPE), _opened)))
        elif each.number == OUTPUT:
            named = partial(_named, prefix=_name(each.content))
            parts.append(_field(OUTPUT, _within(each.content, (TYPE, TENSOR, SHAPE), named)))
        else:
            parts.append(each.raw)
    return b"".join(parts)


def _within(message: bytes, path: tuple[int, ...], change: Callable[[bytes], bytes]) -> bytes:
    """Replace the message at a path of fields by what `change` makes of it."""
    if not path:
        return change(message)
    return b"".join(
        _field(each.number, _within(each.content, path[1:], change))
        if each.number == path[0]
        else each.raw
        for each in _fields(message)
    )


def _opened(shape: bytes) -> bytes:
    """Give the sizes of an image names; the channels stay as they are."""
    dims = [each.raw for each in _fields(shape) if each.number == DIM]
    if len(dims) != 4:
        return shape
    named = [_field(DIM, _field(DIM_NAME, name)) for name in (b"batch", b"height", b"width")]
    return named[0] + dims[1] + named[1] + named[2]


def _named(shape: bytes, prefix: bytes) -> bytes:
    """Give every size of a result a name of its own."""
    count = sum(each.number == DIM for each in _fields(shape))
    return b"".join(_field(DIM, _field(DIM_NAME, b"%s_%d" % (prefix, i))) for i in range(count))


def _name(message: bytes) -> bytes:
    return next((each.content for each in _fields(message) if each.number == NAME), b"")


def _fields(message: bytes) -> Iterator[_Field]:
    """Yield the fields of a message."""
    at = 0
    while at < len(message):
        start = at
        key, at = _varint(message, at)
        kind, content = key & 7, b""
        if kind == VARINT:
            _, at = _varint(message, at)
        elif kind == BYTES:
            size, at = _varint(message, at)
            content, at = message[at : at + size], at + size
        elif kind in (FIXED64, FIXED32):
            at += 8 if kind == FIXED64 else 4
        else:
            raise ValueError("not an ONNX model")
        if at > len(message):
            raise ValueError("not an ONNX model, or only a part of one")
        yield _Field(key >> 3, content, message[start:at])


def _varint(message: bytes, at: int) -> tuple[int, int]:
    """Return the number that begins at a place, and where it ends."""
    value = shift = 0
    while True:
        if at >= len(message) or shift > 63:
            raise ValueError("not an ONNX model, or only a part of one")
        byte = message[at]
        value, at, shift = value | (byte & 127) << shift, at + 1, shift + 7
        if byte < 128:
            return value, at


def _field(number: int, content: bytes) -> bytes:
    """Write a field of bytes."""
    return _number(number << 3 | BYTES) + _number(len(content)) + content


def _number(value: int) -> bytes:
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)
    return bytes(out)
