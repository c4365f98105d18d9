"""Reads what a GGUF file says about itself, without loading the model."""

import os
import struct

MAGIC = b"GGUF"
NUMBERS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
STRING, ARRAY = 8, 9


class NotGguf(ValueError):
    """The file is not GGUF, or ends too early."""


def read_metadata(path):
    """Yields the key-value pairs of a file's header one by one; arrays (vocabularies, mostly) are left out."""
    with open(path, "rb") as file:
        reader = _Reader(file)
        if reader.bytes(4) != MAGIC or reader.number("I") not in (2, 3):
            raise NotGguf("it does not start as GGUF version 2 or 3 does")
        reader.number("Q")  # the number of tensors
        for _ in range(reader.number("Q")):
            key, kind = reader.string(), reader.number("I")
            value = reader.value(kind)
            if kind != ARRAY:
                yield key, value


class _Reader:
    def __init__(self, file):
        self._file = file
        self._size = os.fstat(file.fileno()).st_size

    def bytes(self, length):
        data = self._file.read(length) if length <= self._size else b""  # a damaged length can be astronomical
        if len(data) < length:
            raise NotGguf("it ends in the middle of its header")
        return data

    def number(self, code):
        return struct.unpack("<" + code, self.bytes(struct.calcsize("<" + code)))[0]

    def string(self):
        return self.bytes(self.number("Q")).decode("utf-8", "replace")

    def value(self, kind):
        if kind in NUMBERS:
            return self.number(NUMBERS[kind])
        if kind == STRING:
            return self.string()
        if kind == ARRAY:
            return self._skip_array()
        raise NotGguf(f"it has a value of the unknown kind {kind}")

    def _skip_array(self):
        kind, length = self.number("I"), self.number("Q")
        if kind in NUMBERS:
            self.bytes(struct.calcsize(NUMBERS[kind]) * length)
            return
        for _ in range(length):
            self.value(kind)
