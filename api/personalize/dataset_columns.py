"""Columns of a dataset group's datasets: what filters and configurations may name."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from api.personalize.context import PersonalizeContext
from models.errors import InvalidInput
from models.metadata_records import normalized
from models.personalize.datasets.dataset_schemas import NUMBERS, Schema, contextual, parse_schema
from models.personalize.resources.resource_types import ResourcePath


async def schema_of(context: PersonalizeContext, group: str, dataset_type: str) -> Schema | None:
    """The schema of a group's dataset, by the group's path; None without such a dataset."""
    dataset = await context.registry.find(f"dataset/{ResourcePath.of(group).name}/{dataset_type}")
    if dataset is None:
        return None
    return parse_schema((await context.registry.get(dataset.links[1])).data["schema"])


async def check_named_columns(
    context: PersonalizeContext,
    group: str,
    dataset_type: str,
    columns: Iterable[str],
    where: str,
    *,
    is_numeric: bool = False,
) -> None:
    """Check that a dataset has columns, in any case and with underscores or without.

    The group of the settings has datasets without a schema, which may have any column.

    Raises
    ------
    InvalidInput
        The group has no such dataset, or a column is not in it, or is not numeric and must be.
    """
    named = list(columns)
    schema = await schema_of(context, group, dataset_type)
    if schema is None:
        if not named or ResourcePath.of(group).name == context.registry.settings.group:
            return
        raise InvalidInput(f"{where}: the dataset group has no dataset {dataset_type}")
    known = {normalized(column.name): column for column in schema.columns}
    for name in named:
        column = known.get(normalized(name))
        if column is None:
            listed = ", ".join(one.name for one in schema.columns)
            raise InvalidInput(f"{where}: {dataset_type} has no column {name!r}; it has {listed}")
        if is_numeric and not column.types & NUMBERS:
            raise InvalidInput(f"{where}: the column {name} of {dataset_type} is not numeric")


async def check_context_columns(
    context: PersonalizeContext, group: str, columns: Sequence[str]
) -> None:
    """Check that columns are contextual: of the group's dataset INTERACTIONS, and no measures.

    Raises
    ------
    InvalidInput
        As `check_named_columns` does, or a column is Amazon's own or holds fractions.
    """
    await check_named_columns(context, group, "INTERACTIONS", columns, "context")
    schema = await schema_of(context, group, "INTERACTIONS")
    if schema is None:
        return
    known = [normalized(name) for name in contextual(schema)]
    for name in columns:
        if normalized(name) not in known:
            raise InvalidInput(
                f"context: {name} is no contextual column, but Amazon's own or a number with"
                " fractions"
            )
