"""Write the tables of docs/quality.md: recorded sets on the production path, beside all rivals.

`python -m benchmarks.quality DATA` with the folder of the recorded sets; MovieLens 100K is in the
wheel of `recbole`, its file `ml-100k.inter` goes into `DATA/ml-100k`. A set that is not there keeps
its table, and is named. `--only SET` writes one table, `--quick` asks fewer and writes nothing.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import click

PAGE = Path("docs/quality.md")

OWN = "user-personalization,ranker,blend,similar-items"
PLAIN = "popularity,popularity-day,popularity-week,most-recent,co-visitation"
SESSIONS = "session-neighbours,vmis-knn,stan"
BATCH = "item-neighbours,als,bpr,ease"
"""Rivals by kind; EASE on the most popular 4,000 items."""

MOVIELENS = (
    "--as", "users", "--min-value", "4", "--max-queries", "3000",
    "--map", "USER_ID=user_id:token", "--map", "ITEM_ID=item_id:token",
    "--map", "EVENT_VALUE=rating:float", "--map", "TIMESTAMP=timestamp:float",
    "--event-type", "click",
)  # fmt: skip


class Table(NamedTuple):
    """A table of the page: its marks, the file asked, options, and the rivals beside `OWN`."""

    name: str
    file: str
    options: tuple[str, ...]
    rivals: str


TABLES = (
    Table(
        "serenade-toy",
        "serenade-toy/events.csv.gz",
        ("--as", "sessions", "--max-queries", "6000"),
        f"{PLAIN},{SESSIONS},{BATCH},biased-mf",
    ),
    Table(
        "serenade-split",
        "serenade-toy/train.txt.gz",
        ("--test", "{folder}/test.txt.gz"),
        f"most-recent,co-visitation,{SESSIONS}",
    ),
    Table(
        "serenade-frozen",
        "serenade-toy/train.txt.gz",
        ("--test", "{folder}/test.txt.gz", "--frozen"),
        f"most-recent,co-visitation,{SESSIONS}",
    ),
    Table("ml-100k", "ml-100k/ml-100k.inter", MOVIELENS, f"{PLAIN},{SESSIONS},{BATCH},biased-mf"),
    Table(
        "online-retail",
        "online-retail/events.csv.gz",
        ("--as", "baskets", "--learn-every", "20", "--max-queries", "1000"),
        f"{PLAIN},own-frequency,tifu-knn,session-neighbours,{BATCH}",
    ),
)

_MEASURES = (("HR@10", "hr_10"), ("HR@20", "hr_20"))


@click.command()
@click.argument("data", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--only", type=click.Choice([table.name for table in TABLES]), multiple=True)
@click.option("--quick", is_flag=True, help="Of each set 3,000 events and 200 queries; only shown.")
def main(data: Path, only: Sequence[str], *, quick: bool) -> None:
    """Evaluate the sets in DATA and write their tables."""
    for table in TABLES:
        if only and table.name not in only:
            continue
        if not (data / table.file).exists():
            print(f"{table.name}: {data / table.file} is not there, its table stays", flush=True)
            continue
        more = ("--limit", "3000", "--max-queries", "200") if quick else ()
        rows = lines(evaluated(data, table, more), table)
        if quick:
            print("\n".join(rows), flush=True)
        else:
            PAGE.write_text(with_table(PAGE.read_text(), table.name, rows))


def arguments(folder: Path, table: Table) -> list[str]:
    """Options of `recommender evaluate`, with the folder of the file in their place.

    >>> arguments(Path("sets"), Table("a", "a.csv", ("--test", "{folder}/b.csv"), "popularity"))[:2]
    ['--test', 'sets/b.csv']
    """
    recipes = f"{OWN},{table.rivals}"
    return [*(one.format(folder=folder) for one in table.options), "--recipes", recipes]


def evaluated(data: Path, table: Table, more: Sequence[str] = ()) -> dict[str, Any]:
    """The report of `recommender evaluate --json`."""
    file = data / table.file
    command = [sys.executable, "-m", "cli", "evaluate", str(file), "--json"]
    ended = subprocess.run(
        [*command, *arguments(file.parent, table), *more], stdout=subprocess.PIPE, check=True
    )
    found: dict[str, Any] = json.loads(ended.stdout)
    return found


def lines(found: Mapping[str, Any], table: Table) -> list[str]:
    """Lines of a table: what was asked, and a row for each rival."""
    counted = ", ".join(f"{found[kind]:,} {kind}" for kind in ("events", "items", "queries"))
    asked = " ".join(one.format(folder="…") for one in table.options)
    rivals: Mapping[str, Mapping[str, Any]] = found["rivals"]
    apart: Mapping[str, Mapping[str, Any]] = found["queries_apart"]
    has_baskets = any("next_basket_recall_20" in one for one in rivals.values())
    names = [name for name, _ in _MEASURES]
    head = ["rival", *names, "MRR@20", "difference", "NDCG@20", "HR@100", "coverage", "novelty"]
    if has_baskets:
        head += ["next basket", "difference", "repeat", "explore"]
    elif len(apart) > 1:
        head += ["HR@20, MRR@20 of repeated", "of new"]
    rows = [
        f"{counted}: `recommender evaluate {Path(table.file).name} {asked}`",
        "",
        f"| {' | '.join(head)} |",
        "|" + "---|" * len(head),
    ]
    for name, one in rivals.items():
        mrr = one["mrr_20"]
        cells = [name, *(f"{one[key]['mean']:.3f}" for _, key in _MEASURES)]
        cells += [f"{mrr['mean']:.4f} ± {mrr['ci95']:.4f}", _difference(mrr)]
        cells += [f"{one['ndcg_20']['mean']:.4f}", f"{one['hr_100']['mean']:.3f}"]
        cells += [f"{one['coverage']:.2f}", f"{one['novelty_bits']:.1f}"]
        if has_baskets:
            recall = one["next_basket_recall_20"]
            cells += [f"{recall['mean']:.3f} ± {recall['ci95']:.3f}", _difference(recall)]
            cells += [f"{one[f'next_basket_{kind}_20']['mean']:.3f}" for kind in _KINDS]
        elif len(apart) > 1:
            cells += [_pair(kind[name]) for kind in apart.values()]
        rows.append(f"| {' | '.join(cells)} |")
    return rows


_KINDS = ("repeat", "explore")


def _difference(measure: Mapping[str, float]) -> str:
    return f"{measure['difference']:+.4f} ± {measure['difference_ci95']:.4f}"


def _pair(of_kind: Mapping[str, Mapping[str, float]]) -> str:
    return f"{of_kind['hr_20']['mean']:.3f}, {of_kind['mrr_20']['mean']:.4f}"


def with_table(text: str, name: str, rows: Sequence[str]) -> str:
    r"""The page with these rows between the marks of a table.

    >>> with_table("<!-- a -->\nold\n<!-- /a -->", "a", ["new"])
    '<!-- a -->\nnew\n<!-- /a -->'
    """
    marks = re.compile(rf"(<!-- {name} -->\n).*?(<!-- /{name} -->)", re.DOTALL)
    body = "\n".join(rows)
    replaced, n_tables = marks.subn(lambda found: f"{found[1]}{body}\n{found[2]}", text)
    if n_tables != 1:
        raise ValueError(f"{PAGE} has no marks <!-- {name} --> and <!-- /{name} -->")
    return replaced


if __name__ == "__main__":
    main()
