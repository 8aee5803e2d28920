"""Operations and shapes of the Amazon Personalize API, from botocore's service models.

Each input shape is compiled once to a check: a tree of small functions that returns the checked
value without unknown members, or raises `InvalidInput` with AWS's text. No document is walked
deeper than its shape, and the shapes are not recursive.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any, NoReturn

from botocore.loaders import create_loader
from botocore.model import (
    ListShape,
    MapShape,
    OperationModel,
    ServiceModel,
    Shape,
    StringShape,
    StructureShape,
)

from api.personalize.refused_members import refuse_members
from models.errors import InvalidInput

SERVICES = ("personalize-events", "personalize-runtime", "personalize")
"""The three services; that of events first."""

MAX_VALUE_CHARACTERS = 100
"""Length to which a value is cut in an error text."""

MAX_FLOAT = 1e300
"""Largest accepted number; arithmetic on it stays far from infinity."""

LINEAR = {
    r"^[\x20-\x7E]*[\x21-\x7E]+[\x20-\x7E]*$": r" *[\x21-\x7E][\x20-\x7E]*",
    r"arn:([a-z\d-]+):personalize:.*:.*:.+": r"arn:[a-z\d-]+:personalize:[^:\n]*:[^:\n]*:.+",
}
"""Equivalent patterns for those of the models that take a second on hostile text."""

MAX_ROLE_CHARACTERS = 256

ShapeCheck = Callable[[Any], Any]
"""Gives a value in its shape, or raises `InvalidMember`."""


class InvalidMember(Exception):
    """A value does not fit its shape; the path to it is collected innermost first."""

    def __init__(self, value: object, constraint: str) -> None:
        super().__init__(constraint)
        self.value = value
        self.constraint = constraint
        self.path: list[str] = []

    def text(self) -> str:
        """AWS's error text."""
        where = ".".join(reversed(self.path)) or "body"
        return (
            f"1 validation error detected: Value {_quoted(self.value)} at '{where}'"
            f" failed to satisfy constraint: {self.constraint}"
        )


@dataclass(frozen=True)
class ServiceOperation:
    """One operation of the service models.

    Attributes
    ----------
    path
        Path of its requests, such as ``/events``; empty for the control plane, whose operations are
        named by a header.
    statuses
        HTTP status of each modelled error that has another than 400.
    """

    name: str
    service: str
    path: str
    statuses: Mapping[str, int]
    model: OperationModel

    @cached_property
    def validate_input(self) -> Callable[[Any], dict[str, Any]]:
        """The check of an input document, which returns the document in its shape.

        It leaves out members that are unknown or null, and raises `InvalidInput` with the first
        member that breaks a constraint, or is refused by name.
        """
        check = _structure(self.model.input_shape, lenient=True)

        def checked(document: Any) -> dict[str, Any]:  # noqa: ANN401  any JSON
            try:
                found: dict[str, Any] = check(document)
            except InvalidMember as broken:
                raise InvalidInput(broken.text()) from None
            refuse_members(self.name, found)
            return found

        return checked

    @cached_property
    def check_output(self) -> Callable[[Any], None]:
        """The check of an answer; raises `InvalidMember` if it breaks the output shape.

        Strict: every member is known and not null.
        """
        check = _structure(self.model.output_shape, lenient=False)

        def answered(document: Any) -> None:  # noqa: ANN401  any JSON
            check(document)

        return answered


@cache
def service_operations() -> dict[str, ServiceOperation]:
    """All operations of the three services by name; the first call reads the models in 0.1 s.

    >>> service_operations()["PutEvents"].path
    '/events'
    """
    loader = create_loader()  # no session, which would load what a client needs
    found = {}
    for service in SERVICES:
        model = ServiceModel(loader.load_service_model(service, "service-2"), service)
        for name in model.operation_names:
            operation = model.operation_model(name)
            is_rest = model.metadata["protocol"] == "rest-json"
            statuses = {
                error.name: error.metadata["error"]["httpStatusCode"]
                for error in operation.error_shapes
                if is_rest
            }
            path = operation.http["requestUri"] if is_rest else ""
            found[name] = ServiceOperation(name, service, path, statuses, operation)
    return found


def _check_of(shape: Shape, *, lenient: bool) -> ShapeCheck:
    if isinstance(shape, StructureShape):
        return _structure(shape, lenient=lenient)
    if isinstance(shape, ListShape):
        return _list(shape, lenient=lenient)
    if isinstance(shape, MapShape):
        return _map(shape, lenient=lenient)
    if isinstance(shape, StringShape):
        return _string(shape)
    return _boolean if shape.type_name == "boolean" else _number(shape)


def _check_member(name: str, shape: Shape, *, lenient: bool) -> ShapeCheck:
    """The check of a structure's member."""
    # Two output shapes describe a role by this service's ARN pattern, which no role ARN matches.
    is_role = (name, shape.name) == ("roleArn", "Arn")
    return _sized_text if is_role and not lenient else _check_of(shape, lenient=lenient)


def _sized_text(value: Any) -> str:  # noqa: ANN401  any JSON
    if type(value) is not str or len(value) > MAX_ROLE_CHARACTERS:
        raise InvalidMember(value, f"Member must be a string of at most {MAX_ROLE_CHARACTERS}")
    return value


def _structure(shape: StructureShape | None, *, lenient: bool) -> ShapeCheck:
    """The check of a structure; None is an operation without input or output."""
    known = shape.members if shape is not None else {}
    required = frozenset(shape.required_members if shape is not None else ())
    members = [
        (name, _check_member(name, member, lenient=lenient), name in required)
        for name, member in known.items()
    ]
    names = frozenset(known)

    def structure(value: Any) -> dict[str, Any]:  # noqa: ANN401  any JSON
        if type(value) is not dict:
            raise InvalidMember(value, "Member must be a structure")
        if not lenient and not names.issuperset(value):
            raise InvalidMember(sorted(value.keys() - names), "Member must be known")
        found: dict[str, Any] = {}
        name = ""
        try:
            for name, check, is_required in members:
                member = value.get(name)
                if member is not None:
                    found[name] = check(member)
                elif is_required or (not lenient and name in value):
                    _missing()
        except InvalidMember as broken:
            broken.path.append(name)
            raise
        return found

    return structure


def _missing() -> NoReturn:
    raise InvalidMember(None, "Member must not be null")


def _list(shape: ListShape, *, lenient: bool) -> ShapeCheck:
    check = _check_of(shape.member, lenient=lenient)
    sized = _sized(shape)

    def checked_list(value: Any) -> list[Any]:  # noqa: ANN401  any JSON
        if type(value) is not list:
            raise InvalidMember(value, "Member must be a list")
        sized(value)
        found: list[Any] = []
        try:
            for member in value:
                found.append(check(member))  # noqa: PERF401  its length is the path of an invalid member
        except InvalidMember as broken:
            broken.path.append(f"{len(found) + 1}.member")
            raise
        return found

    return checked_list


def _map(shape: MapShape, *, lenient: bool) -> ShapeCheck:
    check_key = _check_of(shape.key, lenient=lenient)
    check_value = _check_of(shape.value, lenient=lenient)
    sized = _sized(shape)

    def checked_map(value: Any) -> dict[str, Any]:  # noqa: ANN401  any JSON
        if type(value) is not dict:
            raise InvalidMember(value, "Member must be a map")
        sized(value)
        found, key = {}, ""
        try:
            for key, member in value.items():
                found[check_key(key)] = check_value(member)
        except InvalidMember as broken:
            broken.path.append(_bounded(key))
            raise
        return found

    return checked_map


def _sized(shape: Shape) -> Callable[[Any], None]:
    """The check of the length of a list or map."""
    least, most = shape.metadata.get("min", 0), shape.metadata.get("max", math.inf)

    def sized(value: Any) -> None:  # noqa: ANN401  anything with a length
        if not least <= len(value) <= most:
            raise InvalidMember(value, _length(len(value), least, most))

    return sized


def _string(shape: StringShape) -> ShapeCheck:
    least, most = shape.metadata.get("min", 0), shape.metadata.get("max", math.inf)
    values = frozenset(shape.metadata.get("enum", ()))
    pattern = shape.metadata.get("pattern")
    matches = _matcher(pattern)
    is_sensitive = shape.metadata.get("sensitive", False)

    def string(value: Any) -> str:  # noqa: ANN401  any JSON
        constraint = ""
        if type(value) is not str:
            constraint = "Member must be a string"
        elif not least <= len(value) <= most:
            constraint = _length(len(value), least, most)
        elif values and value not in values:
            constraint = f"Member must satisfy enum value set: [{', '.join(sorted(values))}]"
        elif matches is not None and not matches(value):
            constraint = f"Member must satisfy regular expression pattern: {pattern}"
        if constraint:
            raise InvalidMember("***" if is_sensitive else value, constraint)
        found: str = value
        return found

    return string


def _length(length: int, least: int, most: float) -> str:
    """The constraint that a length breaks."""
    if length > most:
        return f"Member must have length less than or equal to {most}"
    return f"Member must have length greater than or equal to {least}"


def _matcher(pattern: str | None) -> Callable[[str], Any] | None:
    r"""The full match of a pattern; None without a pattern, or for Java's character classes.

    >>> _matcher(r"rate\(\d+ days?\)")("rate(7 days)") is not None
    True
    >>> _matcher(r"\p{ASCII}{0,1500}") is None
    True
    """
    if pattern is None or r"\p{" in pattern:
        return None
    return re.compile(LINEAR.get(pattern, pattern), re.ASCII).fullmatch


def _boolean(value: Any) -> bool:  # noqa: ANN401  any JSON
    if type(value) is not bool:
        raise InvalidMember(value, "Member must be a boolean")
    return value


def _number(shape: Shape) -> ShapeCheck:
    convert = _NUMBERS[shape.type_name]
    least, most = shape.metadata.get("min", -math.inf), shape.metadata.get("max", math.inf)

    def number(value: Any) -> float:  # noqa: ANN401  any JSON
        found: float = convert(value)
        if found > most:
            raise InvalidMember(value, f"Member must have value less than or equal to {most}")
        if found < least:
            raise InvalidMember(value, f"Member must have value greater than or equal to {least}")
        return found

    return number


def _integer(end: int) -> ShapeCheck:
    def integer(value: Any) -> int:  # noqa: ANN401  any JSON
        # Languages without integers send 25.0.
        is_whole = type(value) is int or (type(value) is float and value.is_integer())
        if not is_whole or not -end <= value < end:
            raise InvalidMember(value, "Member must be a whole number")
        return int(value)

    return integer


def _plain_float(value: Any) -> float:  # noqa: ANN401  any JSON
    if type(value) not in {int, float} or not -MAX_FLOAT < value < MAX_FLOAT:
        raise InvalidMember(value, "Member must be a number")
    return value  # type: ignore[no-any-return]  # whole seconds stay whole


def _timestamp(value: Any) -> float:  # noqa: ANN401  any JSON
    if type(value) is str:
        try:
            value = float(value)
        except ValueError:
            raise InvalidMember(value, "Member must be a timestamp in seconds") from None
    return _plain_float(value)


_NUMBERS: Mapping[str, ShapeCheck] = {
    "integer": _integer(2**31),
    "long": _integer(2**63),
    "float": _plain_float,
    "double": _plain_float,
    "timestamp": _timestamp,
}


def _quoted(value: object) -> str:
    if value is None:
        return "null"
    return f"'{_bounded(value)}'"


def _bounded(value: object) -> str:
    """The value as text, cut to a bounded length."""
    if isinstance(value, int) and not -(2**63) <= value < 2**63:
        return "a number out of range"
    if isinstance(value, list | dict):
        return f"a {'list' if isinstance(value, list) else 'map'} of {len(value)}"
    text = str(value)
    return text if len(text) <= MAX_VALUE_CHARACTERS else text[:MAX_VALUE_CHARACTERS] + "…"
