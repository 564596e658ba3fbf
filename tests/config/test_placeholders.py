"""What is put into a command line stands where it was wanted, and nothing else is touched."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from llamasup.config.placeholders import MODEL, PORT, SOCKET, filled, holds

VALUES = {PORT: "8123", SOCKET: "", MODEL: "whisper"}


def test_placeholders_are_filled_wherever_they_stand() -> None:
    assert filled(f"--url=http://127.0.0.1:{PORT}/{MODEL}", VALUES) == (
        "--url=http://127.0.0.1:8123/whisper"
    )
    assert filled(f"{PORT}{PORT}", VALUES) == "81238123"


def test_what_a_shell_may_be_meant_to_read_stays() -> None:
    assert filled("echo ${HOME} $PORT ${port} $${X}", VALUES) == "echo ${HOME} $PORT ${port} $${X}"


def test_what_is_put_in_is_not_read_again() -> None:
    assert filled(MODEL, {**VALUES, MODEL: PORT}) == PORT


@given(st.text(alphabet="${}PORTx", max_size=30))
def test_a_word_without_a_placeholder_stays_as_it_is(word: str) -> None:
    if PORT not in word:
        assert filled(word, VALUES) == word
    else:
        assert PORT.replace("PORT", "8123") not in filled(word, VALUES)


def test_any_word_may_hold_it() -> None:
    assert holds(["sh", "-c", f"x --port {PORT}"], PORT)
    assert not holds(["sh", "PORT"], PORT)
