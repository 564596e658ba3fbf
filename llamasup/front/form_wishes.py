"""Reads the wishes of a form, such as one with a sound file, in small steps. Pure."""

from __future__ import annotations

import re
from typing import Final

from llamasup.errors import ClientError
from llamasup.front.wishes import LONGEST_NAME, Wishes, checked_name


def is_form(content_type: bytes) -> bool:
    """Is a body of this type a form, and not JSON?"""
    return content_type.lower().startswith(b"multipart/form-data")


_BOUNDARY = re.compile(rb'boundary="?([^";,\s]{1,200})"?', re.IGNORECASE)
_DISPOSITION = re.compile(rb"\r\ncontent-disposition:[^;\r]*+([^\r]*+)\r\n", re.IGNORECASE)
_PARAMETER = re.compile(rb';[ \t]*([^\s;="]++)[ \t]*=[ \t]*("(?:[^"\\]++|\\.)*+"|[^;"]*+)')
_MOST_FIELDS: Final = 100
_LONGEST_FIELD_HEAD: Final = 4096


class FormReader:
    """See `Reader`. The model is the first form field of that name among the first hundred."""

    def __init__(self, content_type: bytes) -> None:
        boundary = _BOUNDARY.search(content_type)
        if boundary is None:
            raise ClientError("the multipart body's Content-Type names no boundary")
        self._delimiter = b"\r\n--" + boundary[1]
        self._unread = bytearray(b"\r\n")  # the first delimiter has no line before it
        self._in_head = False
        self._fields = 0
        self._wanted: bytearray | None = None  # the content of the model's field
        self._model: str | None = None

    def feed(self, data: bytes) -> None:
        """See `Reader.feed`."""
        if self._model is None and self._fields <= _MOST_FIELDS:
            self._unread += data
            while self._read_head() if self._in_head else self._read_content():
                if self._model is not None or self._fields > _MOST_FIELDS:
                    self._unread.clear()
                    return

    def end(self) -> Wishes:
        """See `Reader.end`."""
        if self._wanted is not None:
            self._wanted += self._unread
            self._take_model(self._wanted)
        return Wishes(self._model)

    def _read_head(self) -> bool:
        """Cut off the field's head. False while its end has not come, but still may."""
        end = self._unread.find(b"\r\n\r\n", 0, _LONGEST_FIELD_HEAD)
        if end < 0 and len(self._unread) < _LONGEST_FIELD_HEAD:
            return False
        self._in_head = False
        if end >= 0 and self._unread.find(self._delimiter, 0, end) < 0:
            if _field_name(bytes(self._unread[: end + 2])) == b"model":
                self._wanted = bytearray()
            del self._unread[: end + 2]  # its last line break may belong to a delimiter
        return True

    def _read_content(self) -> bool:
        """Cut off all up to the next delimiter, with the delimiter. False if that has not come."""
        found = self._unread.find(self._delimiter)
        stop = found if found >= 0 else max(0, len(self._unread) - len(self._delimiter))
        if self._wanted is not None:
            self._wanted += self._unread[: min(stop, LONGEST_NAME + 8)]
            if found >= 0 or len(self._wanted) > LONGEST_NAME + 8:
                self._take_model(self._wanted)
        if found < 0:
            del self._unread[:stop]
            return False
        del self._unread[: found + len(self._delimiter)]
        self._in_head = True
        self._fields += 1
        return True

    def _take_model(self, content: bytearray) -> None:
        self._wanted = None
        self._model = checked_name(content.decode("utf-8", "replace").strip())


def _field_name(head: bytes) -> bytes | None:
    """The parameter `name` of a field. The same letters within another parameter's quotes do not
    count."""
    disposition = _DISPOSITION.search(head)
    if disposition is None:
        return None
    at, parameters = 0, disposition[1]
    while parameter := _PARAMETER.match(parameters, at):
        if parameter[1].lower() == b"name":
            return parameter[2].strip(b' \t"')
        at = parameter.end()
    return None
