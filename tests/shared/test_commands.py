"""What commands print can be copied: nothing is cut off, in a narrow terminal or in a file."""

from __future__ import annotations

import subprocess
import sys

from rich.console import Console

from genba_shared.commands import folding_table

ID = "job_01m8ehr69m8hd8fs9srk30yrer"


def test_a_narrow_terminal_folds_what_does_not_fit() -> None:
    console = Console(width=40)
    table = folding_table("id", "recipe", "made")
    table.add_row(ID, "recommend.two_tower", "2026-11-27 13:10:55")
    with console.capture() as captured:
        console.print(table)
    assert "…" not in captured.get()
    columns = list(
        zip(*(line.strip("│").split("│") for line in captured.get().splitlines() if "│" in line), strict=True)
    )
    assert "".join(cell.strip() for cell in columns[0]) == ID


def test_what_goes_into_a_file_is_not_cut_to_eighty_columns() -> None:
    script = (
        "from genba_shared.commands import folding_table, out\n"
        "table = folding_table(*'abcdef')\n"
        f"table.add_row(*['{ID}'] * 6)\n"
        "out.print(table)\n"
    )
    printed = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, env={})
    assert printed.stdout.count(ID) == 6
