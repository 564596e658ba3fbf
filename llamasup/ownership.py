"""Whose a file or folder is: what others could have written, or could swap, is not ours to believe.

As git and ssh see it: ours or root's, and not writable by others. A group counts as others, unless
it is the owner's private one, as many systems give each user.
"""

from __future__ import annotations

import grp
import os
import pwd
import stat
from pathlib import Path


def why_not_ours(path: Path) -> str:
    """Who else could have written it; "" if nobody. Raises OSError if it cannot be looked at.

    A link is as much somebody's word as what it leads to.
    """
    link = path.lstat()
    if not _trusted(link):
        return f"it belongs to {_user(link.st_uid)}"
    return _why_not(path.stat())


def why_not_private(folder: Path) -> str:
    """Who else could put something into this folder, or another one in its place; "" if nobody.

    Links are seen through, but no folder on the way may be one that others could swap. Raises
    OSError if it cannot be looked at.
    """
    folder = folder.resolve()
    found = folder.stat()
    if found.st_uid != os.geteuid():
        return f"it belongs to {_user(found.st_uid)}"
    if why := _why_not(found):
        return why
    for above in folder.parents:
        found = above.stat()
        # Where it is sticky, as /tmp is, nobody removes or renames what is another's.
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
    """Is the group root's own, or the owner's, with nobody else in it?"""
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
