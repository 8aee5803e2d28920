"""The group of all commands: settings errors, expected errors, and logging."""

from __future__ import annotations

import os

import click
from pydantic import ValidationError

from models.environment import variable
from models.errors import RecommenderError
from models.secrets import redact_output


class Commands(click.Group):
    """A group whose commands report expected errors as one line on stderr, with exit code 1."""

    def invoke(self, ctx: click.Context) -> object:
        """Run the requested command; secrets are removed from its output."""
        redact_output()
        try:
            return super().invoke(ctx)
        except ValidationError as error:
            problems = "; ".join(
                ": ".join([variable(str(e["loc"][0])), *map(str, e["loc"][1:]), e["msg"]])
                for e in error.errors()
            )
            raise click.ClickException(problems) from error
        except RecommenderError as error:
            raise click.ClickException(str(error)) from error


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="streaming-recommender")
@click.pass_context
def main(context: click.Context) -> None:
    """A recommender that learns from every event as it happens.

    Settings are RECOMMENDER_* environment variables; see docs/settings.md.
    """
    from ops.logs import DEFAULT_LEVEL, LEVELS, configure_logging

    # An unknown level is reported with the errors of other settings, by the command itself.
    asked = os.environ.get("RECOMMENDER_LOG_LEVEL", "").lower()
    level = next((one for one in LEVELS if one == asked), DEFAULT_LEVEL)
    configure_logging(context.invoked_subcommand or "recommender", level)


def say(line: str) -> None:
    """Print a progress line to stderr, apart from results."""
    click.echo(line, err=True)
