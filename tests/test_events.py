"""Whoever listens to the journal gets every event of the kinds it asked for, in order."""

from __future__ import annotations

from llamasup.events import ChildGone, Evicted, Journal, Reason


def test_a_listener_gets_what_it_asked_for_in_order_and_nothing_else() -> None:
    journal, heard = Journal(), list[object]()
    with journal.heard_by(heard.append, ChildGone, Evicted):
        journal.tell(ChildGone("a", "a#1"))
        journal.tell(Evicted("b", Reason.IDLE))
    with journal.heard_by(heard.append, Evicted):
        journal.tell(ChildGone("c", "c#1"))
    journal.tell(Evicted("d", Reason.IDLE))
    assert heard == [ChildGone("a", "a#1"), Evicted("b", Reason.IDLE)]


def test_every_listener_hears_each_event_once() -> None:
    journal, heard = Journal(), list[tuple[str, object]]()
    with (
        journal.heard_by(lambda event: heard.append(("one", event)), ChildGone),
        journal.heard_by(lambda event: heard.append(("other", event)), ChildGone),
    ):
        journal.tell(ChildGone("a", "a#1"))
    assert heard == [("one", ChildGone("a", "a#1")), ("other", ChildGone("a", "a#1"))]


def test_the_journal_knows_what_is_heard() -> None:
    journal = Journal()
    heard = journal.heard
    assert not heard
    with journal.heard_by(lambda _: None, Evicted):
        assert Evicted in heard
        assert ChildGone not in heard
    assert not heard
