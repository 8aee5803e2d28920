"""`python -m models.state`: the atomic step with line numbers, as Redis' errors count them."""

from __future__ import annotations

from models.state.store import STEP

if __name__ == "__main__":
    for number, line in enumerate(STEP.text.split("\n"), 1):
        print(f"{number:5} {line}")  # noqa: T201  the program's output
