"""A benchmark's results as one table for people."""

from __future__ import annotations

from pathlib import Path

from rich.markup import escape
from rich.table import Table

from videogender.benchmark.results import Peer, Results, Rivals, Spread

AROUND_AIM = 0.5

__all__ = ["heading", "results_table", "rivals_notes", "rivals_table"]


def heading(results: Results | Rivals) -> str:
    """Say in a few lines what was measured, on what."""
    facts, clip = results.facts, results.clip
    versions = ", ".join(f"{name} {number}" for name, number in facts.versions.items())
    what = clip.path or "a synthetic clip without faces (no clip was given, and no samples/ here)"
    return "\n".join(
        [
            f"model: {facts.description}; {facts.parameters / 1e6:.2f} M parameters, "
            f"{facts.multiply_adds / 1e9:.2f} G multiply-adds at 640x480",
            f"here:  {facts.device_name}, {_many(facts.cores, 'core')}; {versions}",
            f"clip:  {what}: {clip.width}x{clip.height}, {_many(clip.frames, 'frame')}, "
            f"{clip.seconds:.1f} s, {clip.faces_per_frame:.1f} faces a frame",
        ]
    )


def results_table(results: Results) -> Table:
    """Lay the figures out: name, median, the middle 80 %, remarks."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("", no_wrap=True)
    table.add_column("median", justify="right", no_wrap=True)
    table.add_column("p10 - p90", justify="right", no_wrap=True)
    table.add_column("")
    _forward(table, results)
    _frame(table, results)
    _clip(table, results)
    _stages(table, results)
    if results.peer is not None:
        _peer(table, results.peer)
    return table


def rivals_table(rivals: Rivals) -> Table:
    """Lay out what each command took, ours first."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("", no_wrap=True)
    for name in ("looks at", "fps", "ours / its fps", "CPU s", "memory", "faces", "sound"):
        table.add_column(name, justify="right", no_wrap=True)
    ours = rivals.rows[0]
    for row in rivals.rows:
        table.add_row(
            escape(row.name),
            row.at,
            _figure(row.fps.median),
            "" if row is ours else _figure(ours.fps.median / row.fps.median),
            "-" if row.cpu_seconds is None else _figure(row.cpu_seconds.median),
            "-" if row.peak_memory_bytes is None else _size(row.peak_memory_bytes),
            "-" if row.faces is None else f"{row.faces:,}",
            "kept" if row.has_sound else "lost",
        )
    return table


def rivals_notes(rivals: Rivals) -> str:
    """Say what the table does not, and what is missing from it."""
    lines = [
        "Whole commands, from start to end. Memory is that of the largest process. How many faces "
        "there are is",
        "no measure of how right they are (videogender eval detect --peer is); deface does not "
        "tell its own.",
    ]
    for row in rivals.rows:
        if row.frames_written != rivals.clip.frames:
            lines.append(
                f"{row.name} at {row.at} wrote {_many(row.frames_written, 'frame')} of "
                f"{rivals.clip.frames:,}."
            )
    lines += [f"not measured: {each.name}: {each.why}" for each in rivals.missing]
    return "\n".join(lines)


def _forward(table: Table, results: Results) -> None:
    table.add_row("[bold]forward pass at 640x480")
    for each in results.forward:
        remark = f"{each.images_per_second:.1f} images/s"
        if each.peak_device_bytes is not None:
            remark += f", {_size(each.peak_device_bytes)} on the device"
        _row(table, f"batch {each.batch}", each.ms, "ms", remark)


def _frame(table: Table, results: Results) -> None:
    cost = results.frame
    size = "x".join(map(str, cost.size_wh))
    table.add_row(f"[bold]a frame at {size}, batch {cost.batch}")
    _row(table, "scaling", cost.scale_ms, "ms", "in the reader's thread")
    _row(table, "into the network", cost.before_ms, "ms")
    _row(table, "network", cost.network_ms, "ms")
    _row(table, "second stage", cost.second_ms, "ms", "faces close up")
    _row(table, "boxes, suppression", cost.after_ms, "ms")
    _row(table, "faces cut out", cost.cut_ms, "ms")
    _row(table, "gender heads", cost.gender_ms, "ms")
    aim = f"all but stages and gender heads; aim: under {AROUND_AIM}"
    _row(table, "around / networks", cost.around_to_network, "", aim)


def _clip(table: Table, results: Results) -> None:
    whole, command = results.end_to_end, results.command
    table.add_row("[bold]the clip, model loaded")
    _row(table, "annotate", whole.annotate_fps, "fps")
    _row(table, "data only", whole.data_fps, "fps", "annotate --no-video --json")
    _row(table, "every frame looked at", whole.stream_fps, "fps", "nothing written")
    _row(table, "transcode", whole.transcode_fps, "fps", "PyAV, same encoder settings")
    ratio = whole.annotate_to_transcode
    _row(table, "annotate / transcode", ratio, "", "ratio of times, in turns")
    table.add_row("[bold]the command annotate")
    _row(table, "start to first frame", command.first_frame_seconds, "s")
    _row(table, "start to end", command.whole_seconds, "s")
    if command.peak_memory_bytes is not None:
        table.add_row("  peak memory", _size(command.peak_memory_bytes))


def _stages(table: Table, results: Results) -> None:
    table.add_row("[bold]a frame of annotate, by stage", "", "", "side by side, in threads")
    for stage in results.stages:
        _row(table, stage.name, stage.ms, "ms", f"at work {100 * stage.busy:.0f} % of the time")


def _peer(table: Table, peer: Peer) -> None:
    size = "x".join(map(str, peer.size_wh))
    threads = _many(peer.threads, "thread")
    table.add_row(f"[bold]beside a peer at {size}", "", "", f"CPU, {threads}, batch 1")
    _row(table, "ours", peer.ours_ms, "ms")
    _row(table, "onnxruntime", peer.peer_ms, "ms", escape(Path(peer.file).name))
    _row(table, "ours / peer", peer.ours_to_peer, "", "ratio of times, in turns")


def _row(table: Table, name: str, spread: Spread, unit: str, remark: str = "") -> None:
    middle = _figure(spread.median) + (f" {unit}" if unit else "")
    ends = f"{_figure(spread.p10)} - {_figure(spread.p90)}"
    table.add_row(f"  {name}", middle, ends, remark)


def _figure(value: float) -> str:
    """Write about three digits."""
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def _size(count: int) -> str:
    return f"{count / 1e6:.0f} MB" if count < 1e9 else f"{count / 1e9:.2f} GB"


def _many(count: int, thing: str) -> str:
    return f"{count:,} {thing}{'' if count == 1 else 's'}"
