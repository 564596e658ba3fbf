"""What others could have written, or could swap, is told from what is ours or root's."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from llamasup.ownership import why_not_ours, why_not_private

NOBODY = 65534


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    folder = tmp_path / "mine"
    folder.mkdir(mode=0o700)
    return folder


def as_anothers(monkeypatch: pytest.MonkeyPatch) -> None:
    """From now on we are somebody who owns none of what there is."""
    monkeypatch.setattr(os, "geteuid", lambda: NOBODY - 1)
    owner = os.stat

    def of_another(*args: object, **kwargs: object) -> os.stat_result:
        found = list(owner(*args, **kwargs))  # type: ignore[arg-type]
        found[4] = NOBODY
        return os.stat_result(found)

    monkeypatch.setattr(os, "stat", of_another)
    monkeypatch.setattr(os, "lstat", lambda path: of_another(path, follow_symlinks=False))


@pytest.mark.parametrize("mode", [0o600, 0o644, 0o400, 0o755])
def test_what_only_its_owner_may_write_is_the_owners(mine: Path, mode: int) -> None:
    file = mine / "x"
    file.touch()
    file.chmod(mode)
    assert why_not_ours(file) == ""


@pytest.mark.parametrize("mode", [0o666, 0o602])
def test_a_file_that_all_users_may_write_is_not_ours(mine: Path, mode: int) -> None:
    file = mine / "x"
    file.touch()
    file.chmod(mode)
    assert why_not_ours(file) == "everybody may write it"


def test_a_file_that_belongs_to_another_user_is_not_ours(
    mine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (mine / "x").touch()
    as_anothers(monkeypatch)
    assert "belongs to" in why_not_ours(mine / "x")
    assert "belongs to" in why_not_private(mine)


def test_a_file_that_does_not_exist_cannot_be_examined(mine: Path) -> None:
    with pytest.raises(FileNotFoundError):
        why_not_ours(mine / "x")


def test_a_private_folder_lies_where_no_other_user_can_swap_it(mine: Path) -> None:
    folder = mine / "run"
    folder.mkdir(mode=0o700)
    assert why_not_private(folder) == ""
    mine.chmod(0o777)
    assert str(mine) in why_not_private(folder)
    mine.chmod(0o1777)  # as /tmp
    assert why_not_private(folder) == ""
    folder.chmod(0o777)
    assert why_not_private(folder) == "everybody may write it"


def test_a_link_is_judged_by_where_it_leads(mine: Path) -> None:
    folder = mine / "there"
    folder.mkdir(mode=0o777)
    folder.chmod(0o777)
    (mine / "link").symlink_to(folder)
    assert why_not_private(mine / "link") == "everybody may write it"
