"""The group of all commands: settings errors, expected errors, and logging."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module

import click
from pydantic import ValidationError

from models.errors import RecommenderError
from models.secrets import redact_output
from models.settings import Settings
from models.settings.effective import setting_origins
from models.settings.environment import PREFIX, variable

MODULES = {
    "api": "processes",
    "audit": "audit",
    "batch": "personalize",
    "config": "operations",
    "dead-letters": "operations",
    "demo": "processes",
    "drill": "drill",
    "evaluate": "evaluation",
    "experiments": "experiments",
    "forward": "processes",
    "items": "items",
    "jobs": "processes",
    "keys": "keys",
    "prepare": "personalize",
    "provision": "personalize",
    "rebuild": "snapshots",
    "replay": "recordings",
    "report": "report",
    "reshard": "reshard",
    "skip": "operations",
    "snapshot": "snapshots",
    "status": "operations",
    "topics": "processes",
    "up": "processes",
    "whatif": "whatif",
    "worker": "processes",
}
"""The module of each command: a command loads its own, and the others stay out of its process."""


class Commands(click.Group):
    """A group whose commands report expected errors as one line on stderr, with exit code 1."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names of all commands."""
        return sorted({*MODULES, *super().list_commands(ctx)})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command of a name, out of its module; None if there is none."""
        if cmd_name in MODULES:
            import_module(f"cli.{MODULES[cmd_name]}")
        return super().get_command(ctx, cmd_name)

    def invoke(self, ctx: click.Context) -> object:
        """Run the requested command; secrets are removed from its output."""
        redact_output()
        try:
            return super().invoke(ctx)
        except ValidationError as error:
            origins = setting_origins()
            problems = "; ".join(
                ": ".join([_named(e["loc"][0], origins), *map(str, e["loc"][1:]), e["msg"]])
                for e in error.errors()
            )
            raise click.ClickException(problems) from error
        except RecommenderError as error:
            raise click.ClickException(str(error)) from error


def _named(field: object, origins: Mapping[str, str]) -> str:
    """A setting as who set it knows it: its variable, or the file and its name there."""
    name = str(field)
    origin = origins.get(name, "")
    is_variable = not origin or origin.startswith(PREFIX)
    return variable(name) if is_variable else f"{origin}: {name}"


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="streaming-recommender")
@click.pass_context
def main(context: click.Context) -> None:
    """A recommender that learns from every event as it happens.

    Settings are RECOMMENDER_* environment variables, or stand in recommender.toml; see
    docs/settings.md.
    """
    from ops.logs import DEFAULT_FORMAT, DEFAULT_LEVEL, LogFormat, LogLevel, configure_logging

    # What is wrong with the settings is reported by the command itself.
    level: LogLevel = DEFAULT_LEVEL
    form: LogFormat = DEFAULT_FORMAT
    try:
        settings = Settings()
        level, form = settings.log_level, settings.log_format
    except (RecommenderError, ValidationError):
        pass
    configure_logging(context.invoked_subcommand or "recommender", level, form)


def say(line: str) -> None:
    """Print a progress line to stderr, apart from results."""
    click.echo(line, err=True)
