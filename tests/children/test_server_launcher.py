"""Children by the operator's command lines: what is put into them, and what they inherit."""

from __future__ import annotations

from pathlib import Path

import pytest

from llamasup.children.ports import Ports
from llamasup.children.server_launcher import ServerLauncher
from llamasup.config.addresses import TcpAddress, UnixAddress
from llamasup.config.in_effect import InEffect
from llamasup.config.schema import Config, ServerSettings
from llamasup.processes.run_folder import RunFolder

PORT = ServerSettings(command=("speak", "--port=${PORT}", "--as", "${MODEL}", "${HOME}"), slots=3)


@pytest.fixture
def launcher(run_folder: RunFolder) -> ServerLauncher:
    environ = {"PATH": "/bin", "CUDA_VISIBLE_DEVICES": "1", "HF_TOKEN": "secret", "SHIP": "1"}
    return ServerLauncher(InEffect(Config()), environ, run_folder, Ports())


def test_the_port_and_the_name_are_put_into_the_command_line(launcher: ServerLauncher) -> None:
    launch = launcher.child("voice", PORT).launch
    assert isinstance(launch.address, TcpAddress)
    port = launch.address.port
    assert launch.argv == ["speak", f"--port={port}", "--as", "voice", "${HOME}"]
    assert (launch.model, launch.slots) == ("voice", 3)


def test_two_children_have_two_ports(launcher: ServerLauncher) -> None:
    one, other = launcher.child("a", PORT), launcher.child("b", PORT)
    assert one.address != other.address


def test_a_socket_lies_in_the_run_folder(launcher: ServerLauncher, run_folder: RunFolder) -> None:
    child = launcher.child("voice", ServerSettings(command=("speak", "unix:${SOCKET}")))
    assert isinstance(child.address, UnixAddress)
    assert Path(child.address.path).parent == run_folder.path
    assert child.launch.argv == ["speak", f"unix:{child.address.path}"]


def test_only_what_servers_of_models_need_is_inherited(launcher: ServerLauncher) -> None:
    environment = launcher.child("voice", PORT).launch.environment
    assert environment == {"PATH": "/bin", "CUDA_VISIBLE_DEVICES": "1"}


def test_the_port_can_be_told_by_a_variable(launcher: ServerLauncher) -> None:
    settings = ServerSettings(command=("speak",), env={"LISTEN": "${MODEL}@127.0.0.1:${PORT}"})
    launch = launcher.child("voice", settings).launch
    assert launch.environment["LISTEN"] == f"voice@{launch.address}"


async def test_circumstances_change_with_the_program_and_with_files_that_it_is_given(
    launcher: ServerLauncher, tmp_path: Path
) -> None:
    program, weights = tmp_path / "speak", tmp_path / "weights.bin"
    settings = ServerSettings(command=(str(program), "-m", str(weights), "${PORT}"))
    seen = [await launcher.circumstances(settings)]
    for file in (program, weights):
        file.write_text("something")
        seen.append(await launcher.circumstances(settings))
    assert len(set(seen)) == 3
    assert await launcher.circumstances(settings) == seen[-1]
