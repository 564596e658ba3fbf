"""Every path starts at the folder of where it was written."""

from __future__ import annotations

from pathlib import Path

import attrs

from llamasup.config.load import load
from llamasup.config.schema import Folders

WRITTEN = """
server = { keys_file = "k", tls_certificate = "c", tls_key = "t", listen = "https://:1" }
folders = { cache = "a", run = "r" }
discover = { folders = ["m", "/n"] }
keys.x = { key_file = "f" }
models.m = { path = "p", mmproj = "q" }
models.s = { command = ["s", "${PORT}"] }
endpoints = [{ name = "e", url = "http://h", key_file = "e", ca_file = "/b" }]
"""


def paths_in(value: object) -> list[Path]:
    """All paths, however deep they lie."""
    if isinstance(value, dict):
        return [path for inner in value.values() for path in paths_in(inner)]
    if isinstance(value, list | tuple):
        return [path for inner in value for path in paths_in(inner)]
    return [value] if isinstance(value, Path) else []


def test_no_path_is_left_relative_wherever_it_stands(tmp_path: Path) -> None:
    (tmp_path / "k").write_text('[keys.y]\nkey = "a-key-that-is-long"\n')
    (tmp_path / "f").write_text("another-key-that-is-long")
    file = tmp_path / "llamasup.toml"
    file.write_text(WRITTEN)
    config = load(file, {}, {"models.m.mmproj": "q"}, Path("/here"))
    assert config.models["m"].path == tmp_path / "p"  # type: ignore[union-attr]
    assert config.models["m"].mmproj == Path("/here/q")  # type: ignore[union-attr]
    assert config.discover.folders == (tmp_path / "m", Path("/n"))
    found = paths_in(attrs.asdict(config))
    assert len(found) == 12
    assert all(path.is_absolute() for path in found)


def test_relative_paths_of_a_file_start_at_its_folder(folder: Path) -> None:
    (folder / "etc").mkdir()
    file = Path("etc/llamasup.toml")
    file.write_text('[models.x]\npath = "m/x.gguf"\n[folders]\ncache = "c"\nrun = "auto"')
    config = load(file)
    assert config.models["x"].path == folder / "etc/m/x.gguf"
    assert config.folders == Folders(cache=folder / "etc/c", run="auto")


def test_relative_paths_of_flags_and_environment_start_at_the_current_folder(folder: Path) -> None:
    (folder / "etc").mkdir()
    file = Path("etc/llamasup.toml")
    file.write_text('[models.x]\npath = "x"\n')
    config = load(file, {"LLAMASUP_FOLDERS_RUN": "r"}, {"models.x.path": "m.gguf"})
    assert config.models["x"].path == folder / "m.gguf"
    assert config.folders.run == folder / "r"


def test_folders_of_models_and_projectors_start_there_too(folder: Path) -> None:
    (folder / "etc").mkdir()
    file = Path("etc/llamasup.toml")
    file.write_text(
        '[discover]\nfolders = ["m", "/n"]\n[models.x]\npath = "x"\nmmproj = "p.gguf"\n'
    )
    config = load(file)
    assert config.discover.folders == (folder / "etc/m", Path("/n"))
    assert config.models["x"].mmproj == folder / "etc/p.gguf"
    assert load(file, flags={"discover.folders": ["o"]}).discover.folders == (folder / "o",)


def test_certificates_start_there_too(folder: Path) -> None:
    (folder / "etc").mkdir()
    file = Path("etc/llamasup.toml")
    file.write_text('[server]\nlisten = "https://:1"\ntls_certificate = "c"\ntls_key = "/k"\n')
    server = load(file).server
    assert (server.tls_certificate, server.tls_key) == (folder / "etc/c", Path("/k"))
