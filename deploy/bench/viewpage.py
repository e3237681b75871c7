"""The tables of the benchmark of the live view, and its section of the page of benchmarks."""

from __future__ import annotations

from .view import Table, ViewBenchmark


def view_tables(found: ViewBenchmark) -> list[Table]:
    """Return title, columns and rows of the tables of a run."""
    tables: list[Table] = []
    columns: tuple[str, ...]
    shown, exact, slow = found.shown, found.exact, found.slow
    if shown is not None:
        columns = ("Events/s", "Shown frames/s", "p50 in ms", "p95 in ms", "Server, cores", "Browser, cores")
        row = (shown.rate_hz, shown.fps, shown.p50_ms, shown.p95_ms, shown.server_cores, shown.browser_cores)
        tables.append((f"A headless browser for {shown.wall_s:.0f} s", columns, [row]))
    if exact is not None:
        columns = ("Events/s", "Time of the events in s", "On the page", "From the source", "Shown frames/s")
        tables.append(
            (
                "Counters after a pause",
                columns,
                [(exact.rate_hz, exact.t_us / 1e6, exact.n_events, exact.n_source, exact.fps)],
            )
        )
    columns = ("ms for a frame", "Frames", "p50 in ms", "Largest in ms", "Server in MiB", "Later in MiB")
    sizes = (None if n is None else n / 2**20 for n in (slow.before_bytes, slow.after_bytes))
    tables.append(("A slow page", columns, [(slow.frame_s * 1e3, slow.n_frames, slow.p50_ms, slow.largest_ms, *sizes)]))
    return tables


def view_markdown(found: ViewBenchmark) -> str:
    """Return the section of the page of benchmarks."""
    setting = found.setting
    versions = ", ".join(f"{name} {number}" for name, number in setting["versions"].items() if number)
    lines = [
        "# Live view",
        "",
        f"Written by `{setting['command']}` on {setting['date']}: {setting['machine']}; {versions}. Events are drawn",
        "evenly over 128x128 pixels, the gesture program runs on the emulator; server, browser and benchmark share the",
        "machine. The browser is the system's Chromium, headless, without a GPU. A frame is shown when the page has",
        "drawn it; its latency is the time since the newest data in it was there.",
        "",
        *(f"- {check}" for check in found.checks),
        *(f"- not part of this run: {reason}" for reason in found.absent),
        "",
    ]
    for title, columns, rows in view_tables(found):
        lines += [f"## {title}", "", f"| {' | '.join(columns)} |", f"|{' ---: |' * len(columns)}"]
        lines += [f"| {' | '.join(map(_cell, row))} |" for row in rows]
        lines.append("")
    return "\n".join(lines)


def _cell(value: object) -> str:
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
    return "" if value is None else f"{value:,}" if isinstance(value, int) else str(value)
