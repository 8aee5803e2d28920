"""Random documents for any operation, valid and invalid, out of its input shape."""

from __future__ import annotations

import copy
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from botocore.model import ListShape, MapShape, Shape, StringShape, StructureShape

from api.personalize.refused_members import REFUSED
from api.personalize.service_model import service_operations

ALPHABET = "abcXYZ019 _-./|\"\\'{}<>%\n\0é漢😀"
ARN = "arn:aws:personalize:us-east-1:000000000000:"
PATTERNS: Mapping[str, Sequence[str]] = {
    r"^[a-zA-Z0-9][a-zA-Z0-9\-_]*": ("a", "my-name_1", "9" * 63),
    r"arn:([a-z\d-]+):personalize:.*:.*:.+": (
        f"{ARN}campaign/none", f"{ARN}dataset/none/ITEMS", "arn:a:personalize:::recipe/é \" '",
        f"{ARN}filter/{'f' * 63}", "arn:aws:personalize:::x",
    ),
    r"(s3|http|https)://.+": ("s3://bucket/key", "https://x", "s3://é/ "),
    r"arn:aws.*:kms:.*:[0-9]{12}:key/.*": ("arn:aws:kms:us-east-1:012345678901:key/k",),
    r"arn:([a-z\d-]+):iam::\d{12}:role/?[a-zA-Z_0-9+=,.@\-_/]+": (
        "arn:aws:iam::012345678901:role/r",
    ),
    r"^([\p{L}\p{Z}\p{N}_.:/=+\-@]*)$": ("team", "café 1", "a:b/c=d+e-f@g"),
    r"[A-Za-z_][A-Za-z\d_]*": ("GENRES", "_", "a1"),
    r"^[A-Za-z_]+$": ("ITEMS", "Interactions", "_"),
    r"rate\(\d+ days?\)": ("rate(1 day)", "rate(30 days)"),
    r"\p{ASCII}{0,1500}": ("", "a-token", "~" * 1500),
    r"[A-Za-z0-9_]+": ("GENRE", "0", "_"),
    r"[A-Za-z\d_]+": ("DEVICE", "0", "_"),
    r"^[\x20-\x7E]*[\x21-\x7E]+[\x20-\x7E]*$": ("a source", " ! ", "~" * 1024),
}  # fmt: skip
"""Texts that fit each pattern of the service models."""

UNFIT = "\u20ac\n"
"""Fits no pattern, alone or at the end of a text that does."""

Say = Callable[[random.Random], Any]


@dataclass
class Documents:
    """Random documents of one operation.

    Parameters
    ----------
    known
        Values that mean something to the service, by the name of the member; they stand in most
        of the documents, in their members' places.
    """

    operation: str
    seed: int
    known: Mapping[str, Sequence[Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._random = random.Random(f"{self.operation}/{self.seed}")
        self._shape = service_operations()[self.operation].model.input_shape

    def valid(self) -> Any:
        """A document that fits the shape, without members that are refused by name."""
        found = {} if self._shape is None else self._of(self._shape, "")
        for member in REFUSED:
            operation, *path = member.split(".")
            if operation == self.operation:
                _remove(found, path)
        return found

    def invalid(self) -> Any:
        """A document that breaks the shape in one place."""
        while True:
            document = self.valid()
            breaks = list(self._breaks(document))
            if breaks:
                self._random.choice(breaks)()
                return document

    def can_break(self) -> bool:
        """True if some document that is an object breaks the shape."""
        return self._shape is not None and bool(self._shape.members)

    def _of(self, shape: Shape, name: str) -> Any:
        if name in self.known and self._random.random() < 0.8:
            return copy.deepcopy(self._random.choice(self.known[name]))
        if isinstance(shape, StructureShape):
            required = shape.required_members
            return {
                member: self._of(inner, member)
                for member, inner in shape.members.items()
                if member in required or self._random.random() < 0.5
            }
        if isinstance(shape, ListShape):
            return [self._of(shape.member, "") for _ in range(self._length(shape, 4))]
        if isinstance(shape, MapShape):
            pairs = range(self._length(shape, 3))
            return {self._of(shape.key, ""): self._of(shape.value, "") for _ in pairs}
        return self._simple(shape)

    def _length(self, shape: Shape, usual: int) -> int:
        least, most = shape.metadata.get("min", 0), shape.metadata.get("max", 1000)
        edges = (least, most if self._random.random() < 0.1 else least)
        between = self._random.randint(least, max(least, min(most, usual)))
        return int(self._random.choice((*edges, between, between)))

    def _simple(self, shape: Shape) -> Any:
        chosen, metadata = self._random, shape.metadata
        if isinstance(shape, StringShape):
            return self._text(shape)
        if shape.type_name == "boolean":
            return chosen.random() < 0.5
        if shape.type_name == "timestamp":
            return chosen.choice((1.7e9, 1_700_000_000, "1700000000.5", 0, -1.5, 1e12, 1e20))
        least, most = metadata.get("min", -1000), metadata.get("max", 1000)
        within = chosen.randint if shape.type_name == "integer" else chosen.uniform
        return chosen.choice((least, most, within(least, most)))

    def _text(self, shape: StringShape) -> str:
        if "enum" in shape.metadata:
            return str(self._random.choice(shape.metadata["enum"]))
        if "pattern" in shape.metadata:
            return self._random.choice(PATTERNS[shape.metadata["pattern"]])
        return "".join(self._random.choices(ALPHABET, k=self._length(shape, 12)))

    def _breaks(self, document: Any) -> Any:
        """Mutations of the document, each breaking it in one place."""
        assert self._shape is not None
        yield from self._breaks_of(self._shape, document)

    def _breaks_of(self, shape: Shape, value: Any) -> Any:
        if isinstance(shape, StructureShape):
            for name, inner in shape.members.items():
                if name in shape.required_members:
                    yield lambda name=name: value.pop(name)
                    yield lambda name=name: value.update({name: None})
                if name in value:
                    yield from self._breaks_at(inner, value, name)
        elif isinstance(shape, ListShape) and value:
            place = self._random.randrange(len(value))
            yield lambda: value.__setitem__(place, None)
            yield from self._breaks_at(shape.member, value, place)
        elif isinstance(shape, MapShape) and value:
            key = self._random.choice(list(value))
            yield from self._breaks_at(shape.value, value, key)
            for wrong in self._wrong(shape.key):
                if isinstance(wrong, str):
                    yield lambda wrong=wrong: value.update({wrong: value[key]})

    def _breaks_at(self, shape: Shape, holder: Any, place: Any) -> Any:
        """Mutations of the value at one place, or within it."""
        yield from self._breaks_of(shape, holder[place])
        for wrong in self._wrong(shape):
            yield lambda wrong=wrong: holder.__setitem__(place, wrong)

    def _wrong(self, shape: Shape) -> list[Any]:
        """Values that a shape does not allow."""
        metadata = shape.metadata
        wrong: list[Any] = [] if isinstance(shape, MapShape | StructureShape) else [{}]
        wrong += [] if isinstance(shape, ListShape) else [[]]
        if isinstance(shape, StringShape):
            return [*wrong, 5, False, *self._wrong_texts(shape)]
        wrong.append("text")
        if shape.type_name == "boolean":
            return [*wrong, 1]
        wrong.append(True)
        if isinstance(shape, ListShape):
            sizes = [metadata["min"] - 1] if metadata.get("min") else []
            sizes += [metadata["max"] + 1] if "max" in metadata else []
            return [*wrong, *([self._of(shape.member, "")] * size for size in sizes)]
        if isinstance(shape, MapShape) and "max" in metadata:
            filler = self._of(shape.value, "")
            return [*wrong, {f"k{n}": filler for n in range(metadata["max"] + 1)}]
        wrong += [1.5, 2**31] if shape.type_name == "integer" else []
        wrong += [metadata["min"] - 1] if "min" in metadata else []
        return [*wrong, *([metadata["max"] + 1] if "max" in metadata else [])]

    def _wrong_texts(self, shape: StringShape) -> list[str]:
        metadata = shape.metadata
        wrong = [""] if metadata.get("min") else []
        wrong += ["x" * (metadata["max"] + 1)] if "max" in metadata else []
        wrong += ["no such value"] if "enum" in metadata else []
        pattern = metadata.get("pattern", r"\p")
        return wrong if r"\p" in pattern else [*wrong, UNFIT, PATTERNS[pattern][0] + UNFIT]


def _remove(document: Any, path: Sequence[str]) -> None:
    """Remove the member at a path, if there is one."""
    name = path[0].removesuffix("[]")
    if len(path) == 1:
        document.pop(name, None)
    elif name in document:
        for inner in document[name] if path[0].endswith("[]") else [document[name]]:
            _remove(inner, path[1:])
