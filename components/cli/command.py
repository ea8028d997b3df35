"""Builds commands: from a function that declares its options, or from given parameters."""

import inspect
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import MISSING, Field, fields, is_dataclass
from typing import Any

from components.cli.options import Debug, typer
from yolo_core.errors import UserError, reporting_machine_limits

Declared = Callable[..., None]


def examples_of(*lines: str) -> str:
    """The examples below a command's help."""
    return "\b\nExamples:\n" + "\n".join(f"  {line}" for line in lines)  # \b keeps the lines as they are


def option(name: str, annotation: object, default: object) -> inspect.Parameter:
    """A parameter of a command."""
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)


def add_command(
    app: typer.Typer, name: str, call: Declared, parameters: Sequence[inspect.Parameter], help: str, examples: str
) -> None:
    """Add the command `name` with these parameters and --debug; it calls `call` with their values.

    A UserError is printed in one line and sets the exit code.
    """

    def run(debug: bool, **values: object) -> None:
        with reporting_errors(debug):
            call(**values)

    declared = [*parameters, option("debug", Debug, False)]
    run.__signature__ = inspect.Signature(declared)  # pyright: ignore[reportFunctionMemberAccess]
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in declared}
    app.command(name, help=help, epilog=examples)(run)


def command(app: typer.Typer, name: str, *examples: str) -> Callable[[Declared], Declared]:
    """Make a function a command; a dataclass parameter becomes one option per field."""

    def register(declared: Declared) -> Declared:
        own = inspect.signature(declared, eval_str=True).parameters
        groups: dict[str, Any] = {key: item.annotation for key, item in own.items() if is_dataclass(item.annotation)}

        def call(**values: object) -> None:
            for key, group in groups.items():
                values[key] = group(**{item.name: values.pop(item.name) for item in fields(group)})
            declared(**values)

        single = [item.replace(kind=item.KEYWORD_ONLY) for key, item in own.items() if key not in groups]
        expanded = [_of_field(item) for group in groups.values() for item in fields(group)]
        add_command(app, name, call, [*single, *expanded], declared.__doc__ or "", examples_of(*examples))
        return declared

    return register


def _of_field(item: Field[object]) -> inspect.Parameter:
    default = item.default if item.default_factory is MISSING else item.default_factory()
    return option(item.name, item.type, inspect.Parameter.empty if default is MISSING else default)


@contextmanager
def reporting_errors(debug: bool) -> Iterator[None]:
    """Turn a UserError, or a limit of this machine, into one line and its exit code."""
    try:
        with reporting_machine_limits():
            yield
    except UserError as error:
        if debug:
            raise
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(error.exit_code) from None
