"""Errors: one line with the problem and the remedy, a section in docs/errors.md, and they survive pickling."""

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


DOCUMENT = (REPOSITORY / "docs/errors.md").read_text()
ERROR_CLASSES = sorted(
    (e for e in vars(errors).values() if isinstance(e, type) and issubclass(e, TaxiAssetsError)),
    key=lambda e: e.__name__,
)


def test_all_errors_of_the_package_are_in_one_module() -> None:
    for module in pkgutil.walk_packages(taxi_assets.__path__, "taxi_assets."):
        if module.name != "taxi_assets.definitions":  # importing it reads the environment
            importlib.import_module(module.name)
    found = {e for e in subclasses(TaxiAssetsError) if e.__module__.startswith("taxi_assets.")}
    assert found == set(ERROR_CLASSES)


@pytest.mark.parametrize("error_class", ERROR_CLASSES)
def test_the_text_of_an_error_is_its_problem_remedy_and_class_name(error_class: type[TaxiAssetsError]) -> None:
    error, name = error_class("green 2020-10 fell over.", remedy="Pick it up."), error_class.__name__
    assert str(error) == f"green 2020-10 fell over. Pick it up. [{name}]"
    assert (error.problem, error.remedy) == ("green 2020-10 fell over.", "Pick it up.")
    assert str(error_class("Set TAXI_LAKE.", remedy="")) == f"Set TAXI_LAKE. [{name}]"


def test_the_document_has_one_section_for_each_error() -> None:
    headings = re.findall(r"^### (\w+)$", DOCUMENT, re.MULTILINE)
    assert sorted(headings) == [error_class.__name__ for error_class in ERROR_CLASSES]


@pytest.mark.parametrize("error_class", ERROR_CLASSES)
def test_the_section_of_an_error_gives_cause_remedy_and_whether_it_is_transient(
    error_class: type[TaxiAssetsError],
) -> None:
    section = re.split(r"^##+ ", DOCUMENT.split(f"### {error_class.__name__}\n")[1], flags=re.MULTILINE)[0]
    cause, remedy = re.findall(r"\*\*Cause:\*\*\s(.+?)\s\*\*Remedy:\*\*\s(.+)", section, re.DOTALL)[0]
    assert min(len(cause), len(remedy.strip())) > 8
    assert section.strip().startswith("*Permanent.*") == issubclass(error_class, PermanentError)
    assert section.strip().startswith("*Transient.*") == issubclass(error_class, TransientError)


@pytest.mark.parametrize("error_class", ERROR_CLASSES)
def test_an_error_survives_pickle_and_copy(error_class: type[TaxiAssetsError]) -> None:
    error = error_class("100% of {month}: ü\n", remedy="Pick it up.")
    for restored in (pickle.loads(pickle.dumps(error)), copy.copy(error), copy.deepcopy(error)):  # noqa: S301  (the test's own bytes)
        assert type(restored) is error_class
        assert (restored.problem, restored.remedy, str(restored)) == (error.problem, error.remedy, str(error))


@pytest.mark.parametrize("error_class", ERROR_CLASSES)
def test_every_error_is_either_permanent_or_transient(error_class: type[TaxiAssetsError]) -> None:
    if error_class is not TaxiAssetsError:
        assert issubclass(error_class, PermanentError) != issubclass(error_class, TransientError)


@pytest.mark.parametrize("error_class", ERROR_CLASSES)
def test_every_error_has_a_docstring(error_class: type[TaxiAssetsError]) -> None:
    assert error_class.__doc__


def test_the_command_line_shows_a_settings_error_in_one_line() -> None:
    @click.command()
    def command() -> None:
        raise SettingsError("TAXI_LAKE='' is not accepted.", remedy="Set it.")

    result = CliRunner().invoke(command)
    assert result.exit_code == 1
    assert result.stderr == "Error: TAXI_LAKE='' is not accepted. Set it. [SettingsError]\n"
    assert result.stdout == ""


def test_a_settings_error_has_the_attributes_of_a_click_exception() -> None:
    error = SettingsError("TAXI_LAKE='' is not accepted.", remedy="Set it.")
    assert error.format_message() == error.message == str(error)
