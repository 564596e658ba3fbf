"""The keys and headers for instances elsewhere, put in where the configuration only names them."""

from __future__ import annotations

import re
from collections.abc import Mapping

from attrs import evolve

from llamasup.config.schema import Config, EndpointSettings
from llamasup.errors import OperatorError
from llamasup.files import open_regular

_VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")


def with_credentials(config: Config, environ: Mapping[str, str]) -> Config:
    """`config` with every endpoint's key, and with its headers as they are sent.

    Reads files, so it runs in a thread. Raises OperatorError for what is not there.
    """
    if not config.endpoints:
        return config
    return evolve(
        config, endpoints=tuple(_completed(settings, environ) for settings in config.endpoints)
    )


def _completed(settings: EndpointSettings, environ: Mapping[str, str]) -> EndpointSettings:
    where = f'endpoint "{settings.name}"'

    def variable(name: str) -> str:
        if not (value := environ.get(name, "")):
            raise OperatorError(f"{where}: the environment variable {name} is not set; set it")
        return value

    key = settings.key
    if settings.key_env:
        key = variable(settings.key_env)
    elif settings.key_file != "none":
        try:
            with open_regular(settings.key_file) as file:
                key = file.read(1 << 16).decode().strip()
        except (OSError, UnicodeDecodeError) as error:
            raise OperatorError(f"{where}: {settings.key_file} cannot be read: {error}") from error
    headers = {
        name: _VARIABLE.sub(lambda found: variable(found[1]), value)
        for name, value in settings.headers.items()
    }
    for what, text in (("its key", key), *headers.items()):
        if not (text.isascii() and text.isprintable()):
            raise OperatorError(f"{where}: {what} holds what no header can hold")
    return evolve(settings, key=key, headers=headers)
