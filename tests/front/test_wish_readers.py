"""A body is read by the type of its content."""

from __future__ import annotations

import pytest

from llamasup.errors import ClientError
from llamasup.front.form_wishes import FormReader
from llamasup.front.json_wishes import JsonReader
from llamasup.front.wish_readers import reader_for


def test_a_reader_goes_by_the_type_of_the_content() -> None:
    assert isinstance(reader_for(b"application/json"), JsonReader)
    assert isinstance(reader_for(b""), JsonReader)
    assert isinstance(reader_for(b"Multipart/Form-Data; boundary=x"), FormReader)
    with pytest.raises(ClientError, match="boundary"):
        reader_for(b"multipart/form-data")
