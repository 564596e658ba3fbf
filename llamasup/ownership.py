"""Which files and folders can be trusted: those that no other user could have written or replaced.

As in git and ssh, a file must belong to this user or to root, and others must not be able to write
it. A group counts as others, unless it is the private group that many systems give each user.
"""

from __future__ import annotations

import grp
import os
import pwd
import stat
from pathlib import Path


def why_not_ours(path: Path) -> str:
    """Why another user could have written it; "" if none could. Raises OSError if that cannot be
    examined.

    A link must be trusted as well as the file that it leads to.
    """
    link = path.lstat()
    if not _trusted(link):
        return f"it belongs to {_user(link.st_uid)}"
    return _why_not(path.stat())


def why_not_private(folder: Path) -> str:
    """Why another user could write into this folder, or replace it; "" if none could.

    Links are followed, but others must not be able to replace any folder above it either. Raises
    OSError if that cannot be examined.
    """
    folder = folder.resolve()
    found = folder.stat()
    if found.st_uid != os.geteuid():
        return f"it belongs to {_user(found.st_uid)}"
    if why := _why_not(found):
        return why
    for above in folder.parents:
        found = above.stat()
        # In a sticky folder such as /tmp, no user can remove or rename the files of another.
        if (why := _why_not(found)) and not (found.st_mode & stat.S_ISVTX and _trusted(found)):
            return f"{above}, where it lies, is not safe: {why}"
    return ""


def _why_not(found: os.stat_result) -> str:
    if not _trusted(found):
        return f"it belongs to {_user(found.st_uid)}"
    if found.st_mode & stat.S_IWOTH:
        return "everybody may write it"
    if found.st_mode & stat.S_IWGRP and not _is_private_group(found):
        return f"the group {_group(found.st_gid)} may write it"
    return ""


def _trusted(found: os.stat_result) -> bool:
    return found.st_uid in (0, os.geteuid())


def _is_private_group(found: os.stat_result) -> bool:
    """Is it root's group, or the owner's own group without other members?"""
    if found.st_gid == 0:
        return True
    try:
        owner = pwd.getpwuid(found.st_uid)
        group = grp.getgrgid(found.st_gid)
    except KeyError:
        return False
    return owner.pw_gid == found.st_gid and set(group.gr_mem) <= {owner.pw_name}


def _user(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"user {uid}"


def _group(gid: int) -> str:
    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return str(gid)
