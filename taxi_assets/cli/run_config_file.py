"""Read a file with run config, and validate it before the first run starts.

Dagster validates the config against the job. This module states where in the file a mistake is, and which names are
known. It also rejects entries that Dagster would accept and then ignore.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import dagster as dg
import yaml

from taxi_assets.errors import RunConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from taxi_assets.dagster_compat import EvaluationError

    _Location = tuple[str | int, ...]

_KEY_TAGS = {"tag:yaml.org,2002:str", "tag:yaml.org,2002:merge"}


@dataclass(frozen=True)
class RunConfigFile:
    """The run config in a YAML file. JSON is YAML too.

    Attributes:
        path: The file, as the user named it.
        config: The run config, as Dagster takes it.
        root: The content as YAML nodes, which have line numbers.
    """

    path: Path
    config: Mapping[str, Any]
    root: yaml.Node

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read the file; `validate` checks its entries.

        Raises:
            RunConfigError: The file cannot be read, is not YAML or not a mapping, or has a key twice.
        """
        try:
            content = path.read_text(encoding="utf-8")
            root = yaml.compose(content, yaml.SafeLoader)
            if not isinstance(root, yaml.MappingNode):
                raise RunConfigError(
                    f"The run config {path} is {'not a mapping' if root else 'empty'}.",
                    remedy="Begin it with `ops:`, and write the options of an op below it (docs/how-to/run-config.md).",
                )
            for key, problem in _invalid_keys(root, set()):
                raise RunConfigError(
                    f"The run config {path}, line {_line(key, ())}: the name {key.value} {problem}.",
                    remedy="Write each name once, with everything that belongs to it below.",
                )
            return cls(path, dg.config_from_yaml_strings([content]), root)
        except OSError as error:
            raise RunConfigError(
                f"The run config {path} cannot be read: {error.strerror}.", remedy="Name a YAML file with run config."
            ) from None
        except (yaml.YAMLError, UnicodeDecodeError, dg.DagsterInvariantViolationError) as error:
            raise _yaml_error(path, error) from None

    def validate(self, job: dg.JobDefinition) -> list[RunConfigError]:
        """Return every mistake in the config for a job, in the order of the file; nothing if it is valid."""
        try:
            dg.validate_run_config(job, self.config)
        except dg.DagsterInvalidConfigError as invalid:
            mistakes = [mistake for error in invalid.errors for mistake in _describe(error, job)]
        else:
            mistakes = list(_ignored_entries(self.config, job))
        return [error for _, error in sorted((self._error(*mistake) for mistake in mistakes), key=lambda pair: pair[0])]

    def _error(self, location: _Location, problem: str, remedy: str) -> tuple[int, RunConfigError]:
        line = _line(self.root, location)
        place = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in location).lstrip(".")
        return line, RunConfigError(f"The run config {self.path}, line {line}: {place} {problem}.", remedy=remedy)


def _yaml_error(path: Path, error: Exception) -> RunConfigError:
    cause: Any = error.__cause__ if isinstance(error, dg.DagsterInvariantViolationError) else error
    mark = getattr(cause, "problem_mark", None)
    line = f", line {mark.line + 1}," if mark else ""
    problem = getattr(cause, "problem", None) or getattr(cause, "reason", cause)
    return RunConfigError(f"The run config {path}{line} is not valid YAML: {problem}.", remedy="Correct the file.")


def _describe(error: EvaluationError, job: dg.JobDefinition) -> Iterator[tuple[_Location, str, str]]:
    """Yield where each mistake is, what it is, and how to fix it."""
    steps = (getattr(entry, "field_name", getattr(entry, "list_index", None)) for entry in error.stack.entries)
    location = tuple(step for step in steps if step is not None)
    data: Any = error.error_data
    if error.reason.name in {"FIELD_NOT_DEFINED", "FIELDS_NOT_DEFINED"}:
        for name in getattr(data, "field_names", None) or [data.field_name]:
            yield (*location, name), "is unknown", _use_one_of(_names(job, location))
    elif getattr(data, "config_type_snap", None) and data.config_type_snap.enum_values:
        known = [value.value for value in data.config_type_snap.enum_values]
        yield location, f"is {data.value_rep}, which is unknown", _use_one_of(known)
    elif error.reason.name == "RUNTIME_TYPE_MISMATCH" and _names(job, location):
        yield location, f"is {data.value_rep}, not a mapping", _use_one_of(_names(job, location))
    else:
        message = getattr(data, "message", error.message).strip().splitlines()[0].rstrip(".")
        yield location, f"has a value that is not accepted: {message}", "Correct the value."


def _ignored_entries(config: Mapping[str, Any], job: dg.JobDefinition) -> Iterator[tuple[_Location, str, str]]:
    """Yield the entries that Dagster accepts, but that have no effect."""
    if config.get("execution"):
        yield ("execution",), "has no effect: the backfill's own processes run the steps", "Delete it."
    for name, entries in config.get("ops", {}).items():
        location = ("ops", name, "config")
        # An op that declares no config accepts any.
        if entries and entries.get("config") and _config_type(job, location).kind.name == "ANY":
            yield location, "has no effect: the op has no options", "Delete it."


def _use_one_of(names: Sequence[str]) -> str:
    return f"Use one of these names: {', '.join(names)}." if names else "Delete it: there are no options here."


def _names(job: dg.JobDefinition, location: _Location) -> list[str]:
    """Return the names that have an effect at a place; nothing if its value is not a mapping of names."""
    names = sorted(getattr(_config_type(job, location), "fields", {}))
    if location == ("ops",):
        return [name for name in names if _names(job, ("ops", name, "config"))]
    return [name for name in names if (*location, name) != ("execution",)]


def _config_type(job: dg.JobDefinition, location: _Location) -> Any:
    """Return Dagster's config type of a place in the run config of a job."""
    config_type: Any = job.run_config_schema.run_config_schema_type
    for step in location:
        fields = getattr(_not_null(config_type), "fields", {})
        config_type = fields[step].config_type if step in fields else _not_null(config_type).inner_type
    return _not_null(config_type)


def _not_null(config_type: Any) -> Any:
    return config_type.inner_type if config_type.kind.name == "NONEABLE" else config_type


def _children(node: yaml.Node) -> list[tuple[str | int, yaml.Node, yaml.Node]]:
    """Return the entries below a node: key or list position, the node that marks it in the file, and its value."""
    if isinstance(node, yaml.MappingNode):
        return [(str(key.value), key, value) for key, value in node.value]
    if isinstance(node, yaml.SequenceNode):
        return [(index, value, value) for index, value in enumerate(node.value)]
    return []


def _invalid_keys(node: yaml.Node, visited: set[int]) -> Iterator[tuple[yaml.Node, str]]:
    """Yield the keys that are not texts, and those that appear twice in a mapping: only the last one would count."""
    if id(node) in visited:  # an alias
        return
    visited.add(id(node))
    names = set()
    for name, marker, value in _children(node):
        if isinstance(name, str) and marker.tag not in _KEY_TAGS:
            yield marker, "is not a text"
        if name in names:
            yield marker, "appears twice"
        names.add(name)
        yield from _invalid_keys(value, visited)


def _line(node: yaml.Node, location: _Location) -> int:
    """Return the line of an entry, counted from 1. For an entry from an alias, return that of an entry above it."""
    marker = node
    for step in location:
        found = {name: (child_marker, child) for name, child_marker, child in _children(node)}.get(step)
        if found is None:
            break
        marker, node = found
    return int(marker.start_mark.line) + 1
