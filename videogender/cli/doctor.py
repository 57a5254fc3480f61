"""`videogender doctor`: say what is installed, and whether it works."""

from __future__ import annotations

from typing import Annotated

import typer

__all__ = ["doctor"]


def doctor(
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead.")] = False,
) -> int:
    """Show versions, devices, codecs, cameras and weights, and run a short self-test.

    Nothing private is shown and nothing is sent; paste the output into a report
    of a problem. The exit code is 1 if something does not work.
    """
    from rich.console import Console
    from rich.text import Text

    from videogender.doctor import examine

    findings = []
    console = Console(highlight=False, emoji=False)
    for finding in examine():
        findings.append(finding)
        if not json:
            mark = Text("  ok  " if finding.ok else " FAIL ", "green" if finding.ok else "bold red")
            console.print(mark, Text(f"{finding.topic:20} {finding.text}"), soft_wrap=True)
    if json:
        from json import dumps

        print(dumps([{"topic": f.topic, "text": f.text, "ok": f.ok} for f in findings], indent=2))
    return 0 if all(finding.ok for finding in findings) else 1
