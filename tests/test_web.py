"""The built files of the pages: their size, and what they load."""

from __future__ import annotations

import csv
import gzip
import json
import re

import pytest

from api.web_pages import CONSOLE, SHOP
from tests.servers import ROOT

pytestmark = pytest.mark.unit

BUILT = ROOT / "api" / "static"
MAX_BYTES = 300 * 1024
MAX_SDK_BYTES = 4 * 1024


def compressed(name: str) -> int:
    """Size of a built file, compressed."""
    return len(gzip.compress((BUILT / name).read_bytes(), mtime=0))


def test_pages_are_small() -> None:
    """All files together, and the SDK alone, stay within their budgets."""
    sizes = {path.name: compressed(path.name) for path in BUILT.iterdir()}

    assert {"recommender.js", "shop.js", "shop.html", "console.js", "console.html"} <= set(sizes)
    assert sum(sizes.values()) <= MAX_BYTES
    assert sizes["recommender.js"] <= MAX_SDK_BYTES


def test_pages_load_only_their_own_files() -> None:
    """Nothing is inline in the page, and every file that it names is built."""
    for page in (SHOP.decode(), CONSOLE.decode()):
        assert not re.findall(r"<script(?![^>]*src=)|<style|\son\w+=|\sstyle=", page)
        for target in re.findall(r'(?:src|href)="([^"]*)"', page):
            assert target in {"data:,", "docs"} or (ROOT / "api" / target).is_file(), target
    for path in BUILT.iterdir():
        addresses = set(re.findall(r"https?://[^\s\"'`)]+", path.read_text()))
        assert addresses <= {
            "http://www.w3.org/2000/svg",
            "http://www.w3.org/1999/xhtml",
            "http://www.w3.org/1998/Math/MathML",
        }, path.name


def test_the_lock_names_the_public_registry_only() -> None:
    """Every package is fetched from there, by its checksum."""
    lock = json.loads((ROOT / "web" / "package-lock.json").read_text())
    packages = [package for path, package in lock["packages"].items() if path]

    assert packages
    for package in packages:
        assert package["resolved"].startswith("https://registry.npmjs.org/")
        assert package["integrity"].startswith("sha512-")


def test_every_item_of_the_demo_has_a_picture() -> None:
    """Its shape is drawn, and its colour known."""
    pictures = ROOT / "web" / "src" / "pictures"
    glyphs, picture = ((pictures / name).read_text() for name in ("glyphs.ts", "picture.tsx"))
    shapes = set(re.findall(r'^  "?([\w-]+)"?: "', glyphs, re.MULTILINE))
    colours = set(re.findall(r"^  (\w+): \[", picture, re.MULTILINE))
    with (ROOT / "ops" / "shop_catalogue.csv").open() as file:
        named = [row["PICTURE"].split() for row in csv.DictReader(file)]

    assert {shape for shape, _ in named} == shapes
    assert {colour for _, colour in named} <= colours
