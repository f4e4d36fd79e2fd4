"""Errors: one clear line each, with its remedy, and the same after a trip between processes."""

from __future__ import annotations

import copy
import importlib
import pickle
import pkgutil
import re
from typing import TYPE_CHECKING

import click
import pytest
from click.testing import CliRunner

import taxi_assets
from taxi_assets import errors
from taxi_assets.errors import PermanentError, SettingsError, TaxiAssetsError, TransientError
from taxi_assets_tests.conftest import REPOSITORY

if TYPE_CHECKING:
    from collections.abc import Iterator


def subclasses(error_class: type[TaxiAssetsError]) -> Iterator[type[TaxiAssetsError]]:
    yield error_class
    for subclass in error_class.__subclasses__():
        yield from subclasses(subclass)


ERRORS = (REPOSITORY / "docs/errors.md").read_text()
NAMED = sorted(
    (e for e in vars(errors).values() if isinstance(e, type) and issubclass(e, TaxiAssetsError)),
    key=lambda e: e.__name__,
)


def test_every_named_error_stands_in_one_module() -> None:
    for module in pkgutil.walk_packages(taxi_assets.__path__, "taxi_assets."):
        if module.name != "taxi_assets.definitions":  # it reads the environment
            importlib.import_module(module.name)
    ours = {e for e in subclasses(TaxiAssetsError) if e.__module__.startswith("taxi_assets.")}
    assert ours == set(NAMED)


@pytest.mark.parametrize("error_class", NAMED)
def test_an_error_reads_as_what_happened_what_to_do_and_its_name(error_class: type[TaxiAssetsError]) -> None:
    error, name = error_class("green 2020-10 fell over.", remedy="Pick it up."), error_class.__name__
    assert str(error) == f"green 2020-10 fell over. Pick it up. [{name}]"
    assert (error.problem, error.remedy) == ("green 2020-10 fell over.", "Pick it up.")
    assert str(error_class("Set TAXI_LAKE.", remedy="")) == f"Set TAXI_LAKE. [{name}]"


def test_every_error_has_its_place_in_the_documents_and_nothing_else_has() -> None:
    headings = re.findall(r"^### (\w+)$", ERRORS, re.MULTILINE)
    assert sorted(headings) == [error_class.__name__ for error_class in NAMED]


@pytest.mark.parametrize("error_class", NAMED)
def test_its_place_says_cause_remedy_and_whether_it_may_pass(error_class: type[TaxiAssetsError]) -> None:
    place = re.split(r"^##+ ", ERRORS.split(f"### {error_class.__name__}\n")[1], flags=re.MULTILINE)[0]
    cause, remedy = re.findall(r"\*\*Cause:\*\*\s(.+?)\s\*\*Remedy:\*\*\s(.+)", place, re.DOTALL)[0]
    assert min(len(cause), len(remedy.strip())) > 8
    assert place.strip().startswith("*Permanent.*") == issubclass(error_class, PermanentError)
    assert place.strip().startswith("*Transient.*") == issubclass(error_class, TransientError)


@pytest.mark.parametrize("error_class", NAMED)
def test_an_error_comes_back_equal_from_pickle_and_copy(error_class: type[TaxiAssetsError]) -> None:
    error = error_class("100 % of {month}: ü\n", remedy="Pick it up.")
    for back in (pickle.loads(pickle.dumps(error)), copy.copy(error), copy.deepcopy(error)):  # noqa: S301  (our own)
        assert type(back) is error_class
        assert (back.problem, back.remedy, str(back)) == (error.problem, error.remedy, str(error))


@pytest.mark.parametrize("error_class", NAMED)
def test_every_error_says_whether_a_retry_may_help(error_class: type[TaxiAssetsError]) -> None:
    if error_class is not TaxiAssetsError:
        assert issubclass(error_class, PermanentError) != issubclass(error_class, TransientError)


@pytest.mark.parametrize("error_class", NAMED)
def test_every_error_says_what_it_means(error_class: type[TaxiAssetsError]) -> None:
    assert error_class.__doc__


def test_a_wrong_setting_is_one_line_at_the_command_line() -> None:
    @click.command()
    def command() -> None:
        raise SettingsError("TAXI_LAKE='' is not accepted.", remedy="Set it.")

    result = CliRunner().invoke(command)
    assert result.exit_code == 1
    assert result.stderr == "Error: TAXI_LAKE='' is not accepted. Set it. [SettingsError]\n"
    assert result.stdout == ""


def test_click_finds_in_a_wrong_setting_what_it_expects_of_its_exceptions() -> None:
    error = SettingsError("TAXI_LAKE='' is not accepted.", remedy="Set it.")
    assert error.format_message() == error.message == str(error)
