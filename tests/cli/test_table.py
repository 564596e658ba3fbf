"""Tables for the terminal."""

from __future__ import annotations

from llamasup.cli.table import lines_of


def test_each_column_is_as_wide_as_its_widest_cell() -> None:
    rows = [("MODEL", "SIZE", "REMARK"), ("qwen3-coder", "1 GiB", "")]
    assert lines_of(rows) == ["MODEL        SIZE   REMARK", "qwen3-coder  1 GiB"]
