"""What a form asks for is found as it comes, however it is cut."""

from __future__ import annotations

import pytest

from llamasup.errors import ClientError
from llamasup.front.form_wishes import FormReader
from llamasup.front.wish_readers import wishes_of
from llamasup.front.wishes import LONGEST_NAME, Wishes
from tests.front.wishing import FORM, MOMENT, M, fastest, fed, steps


def form(*parts: tuple[str, bytes]) -> bytes:
    sections = (
        b"--edge\r\nContent-Disposition: form-data; %b\r\n\r\n%b\r\n" % (name.encode(), content)
        for name, content in parts
    )
    return b"".join(sections) + b"--edge--\r\n"


AUDIO = ('name="file"; filename="x.wav"', b"RIFF\r\n\r\n\x00\xff\r\n--edg")


@pytest.mark.parametrize(
    ("body", "model"),
    [
        (form(('name="model"', b"whisper"), AUDIO), "whisper"),
        (form(AUDIO, ('name="model"', b"whisper")), "whisper"),
        (form(AUDIO, ("name=model", b" whisper ")), "whisper"),
        (form(('name="file"; filename="a; name=model"', b"no")), None),
        (form(('filename="a; name=model"; name=file', b"no")), None),
        (form(('filename="\\"; name=model; x=\\""; name=file', b"no")), None),
        (form(('filename="a; name=file"; name=model', b"yes")), "yes"),
        (form(('filename=a"; name="model', b"no")), None),
        (form(('name="model"', b"first"), ('name="model"', b"second")), "first"),
        (form(*[("name=x", b"")] * 99, ("name=model", b"yes")), "yes"),
        (form(*[("name=x", b"")] * 100, ("name=model", b"no")), None),
        (form((f"name=x; y={'y' * 5000}", b""), ("name=model", b"yes")), "yes"),
        (form(('name="file"', form(("name=model", b"no")).replace(b"edge", b"other"))), None),
        (form(('name="model"', b""), AUDIO), ""),
        (form(AUDIO, ('name="model"; x=y', "modèle".encode())), "modèle"),
        (form(AUDIO, ('name="language"', b"model")), None),
        (form(('name="file"', b'name="model"\r\n\r\nno')), None),
        (form(("filename=model; name=file", b"x")), None),
        (form(), None),
        (b"--edge\r\nX: 1\r\n--edge\r\nContent-Disposition: form-data; name=model\r\n\r\nm", "m"),
        (b"--edge--", None),
        (b"", None),
    ],
)
def test_a_form_field_names_the_model_however_it_is_cut(body: bytes, model: str | None) -> None:
    assert wishes_of(body, FORM) == Wishes(model)
    for cuts in ([], list(range(len(body))), list(range(0, len(body), 7))):
        assert fed(FormReader(FORM), body, cuts) == Wishes(model)


def test_a_name_in_a_form_is_no_longer_than_elsewhere() -> None:
    fits, over = (form(("name=model", b"x" * size)) for size in (LONGEST_NAME, LONGEST_NAME + 1))
    assert fed(FormReader(FORM), fits, steps(fits)).model == "x" * LONGEST_NAME
    for cuts in ([], [100], list(range(len(over)))):
        with pytest.raises(ClientError, match="1024 bytes"):
            fed(FormReader(FORM), over, cuts)


@pytest.mark.parametrize(
    "body",
    [
        b"--edge" * (M // 6),
        b"\r\n--edge" * (M // 8),
        b"--edge\r\n" + b"X: 1\r\n" * (M // 6),
        b"--edge\r\nContent-Disposition: form-data" + b"; a=b" * (M // 5),
        b'--edge\r\nContent-Disposition: form-data; x="' + b"\\" * M,
        b"\r\n--edg" * (M // 7),
        b"--x" * M + b'\r\nContent-Disposition: form-data; name="model"\r\n\r\nm\r\n--x--',
    ],
    ids=range(7),
)
def test_no_form_costs_more_than_a_moment(body: bytes) -> None:
    assert wishes_of(body, FORM) == Wishes()
    assert fastest(lambda: wishes_of(body, FORM)) < MOMENT
