"""How problems read, one by one and all together."""

from __future__ import annotations

from llamasup.config.problems import ConfigError, Problem, Unfit

KEYED = Problem("llamasup.toml", "pool.zzz", "this is not a known key", 'known are "preload"')
KEYLESS = Problem("llamasup.toml", "", "this is a folder", "name the file in it")


def test_a_problem_reads_as_place_key_fault_and_cure() -> None:
    assert str(KEYED) == ('llamasup.toml: pool.zzz: this is not a known key; known are "preload"')


def test_a_problem_of_a_whole_file_has_no_key() -> None:
    assert str(KEYLESS) == "llamasup.toml: this is a folder; name the file in it"


def test_an_error_is_a_line_for_each_problem_and_keeps_them_for_programs() -> None:
    error = ConfigError(iter([KEYED, KEYLESS]))
    assert str(error).splitlines() == [str(KEYED), str(KEYLESS)]
    assert error.problems == (KEYED, KEYLESS)


def test_a_refusal_is_a_value_error_that_says_what_to_write_instead() -> None:
    unfit = Unfit("3 is not text", "write it in quotes")
    assert isinstance(unfit, ValueError)
    assert str(unfit) == "3 is not text; write it in quotes"
