"""Points in time: read as TOML or an operator writes them, written as ISO 8601 has them."""

from __future__ import annotations

from datetime import UTC, date, datetime, time

from llamasup.config.problems import Unfit
from llamasup.config.schema import Moment
from llamasup.config.wording import shown

_NEVER = "never"
_MOMENTS = 'write one such as 2027-01-31 or 2027-01-31T18:00:00Z, or "never"'


def read_moment(value: object) -> Moment:
    """A date (its beginning), a date with a time, either as text, or `"never"`. Without an offset
    it is in UTC. Raises Unfit, which says how moments are written."""
    if value == _NEVER:
        return Moment(0)
    read = _from_text(value) if isinstance(value, str) else value
    if isinstance(read, date) and not isinstance(read, datetime):
        read = datetime.combine(read, time())
    if not isinstance(read, datetime):
        raise Unfit(f"{shown(value)} is not a date", _MOMENTS)
    seconds = (read if read.tzinfo else read.replace(tzinfo=UTC)).timestamp()
    return Moment(max(1.0, seconds))  # what lies before 1970 is over, too


def _from_text(text: str) -> datetime | None:
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        return None


def write_moment(moment: Moment) -> str:
    """`"2027-01-31T18:00:00+00:00"`, or `"never"`."""
    return datetime.fromtimestamp(moment, UTC).isoformat() if moment else _NEVER
