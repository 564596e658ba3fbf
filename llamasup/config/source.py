"""Where the configuration is written, so that it can be loaded again when it has changed.

The configuration decides which programs run with the rights of llamasup. So a file that was only
found in the folder where llamasup is started is used only if no other user could have written it.
That is checked at each load, because the file may be replaced.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from llamasup.config.load import current_folder, files_of_keys, keys_file, load
from llamasup.config.problems import ConfigError, Problem
from llamasup.config.schema import Config
from llamasup.files import digest_of
from llamasup.ownership import why_not_ours


class Source:
    """A file, or none, and the layers over it: the environment and the flags."""

    def __init__(
        self,
        file: Path | None,
        environ: Mapping[str, str],
        flags: Mapping[str, object],
        named: bool = True,
    ) -> None:
        self.file = file
        self._named = named
        self.seen: bytes | None = None
        """The file's digest when it was loaded last."""

        self._had_content = False
        self._other_files: tuple[Path, ...] = ()
        """Files of keys that the configuration named when it was loaded last."""

        self._environ = environ
        self._flags = flags
        self._here = current_folder()

    def load(self) -> Config:
        """The configuration as it is written now. Raises ConfigError, which says what is wrong."""
        # The digest is made before the load: a write in between must look like a change.
        self._other_files = self._files_of_keys()
        self.seen = self.digest()
        content = self._content()
        if content == _OF_NOTHING and self._had_content:
            raise ConfigError([Problem(str(self.file), "", *_EMPTIED)])
        self._had_content = content not in (None, _OF_NOTHING)
        if self.file is not None and not self._named:
            _refuse_what_others_wrote(self.file)
        return load(self.file, self._environ, self._flags, self._here)

    @property
    def can_change(self) -> bool:
        """Is there any file in which something may change?"""
        return self.file is not None or bool(self._other_files)

    def keys_file(self) -> Path | None:
        """The file of keys that the configuration names, if any, even if it is not there yet.
        Raises ConfigError if the configuration cannot be read."""
        return keys_file(self.file, self._environ, self._flags, self._here)

    def digest(self) -> bytes | None:
        """A value that changes with the content of the file, and of the files of keys, but not with
        their times; None if the file cannot be read."""
        digest = self._content()
        if not self._other_files or (digest is None and self.file is not None):
            return digest
        digests = (digest, *map(digest_of, self._other_files))
        return hashlib.sha256(repr(digests).encode()).digest()

    def _content(self) -> bytes | None:
        """The digest of the file alone."""
        return None if self.file is None else digest_of(self.file)

    def _files_of_keys(self) -> tuple[Path, ...]:
        try:
            return files_of_keys(self.file, self._environ, self._flags, self._here)
        except ConfigError:
            return self._other_files


_OF_NOTHING: Final = hashlib.sha256(b"").digest()
_EMPTIED: Final = (
    "it was emptied, as a full disk does it",
    "write it again; if nothing is to be configured, write a comment",
)


def _refuse_what_others_wrote(file: Path) -> None:
    try:
        why = why_not_ours(file)
    except OSError:
        return  # reading the file will fail, too, and say why
    if why:
        fix = (
            f'take their right away ("chmod go-w {file}"), or if it is to be trusted, name it'
            f' ("llamasup serve {file}")'
        )
        raise ConfigError([Problem(str(file), "", f"{why}, and it decides what is run", fix)])
