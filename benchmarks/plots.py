"""The plots: one HTML page with inline SVG, which needs nothing but a browser. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

from benchmarks.intervals import Interval, interval
from benchmarks.watch import Measurement

WIDTH, LABEL, BAR, GAP = 980, 300, 18, 8
COLOURS = ("#3b6ea5", "#d98032", "#4f9d69", "#a5527d", "#7d7d7d", "#b8a13a")
STYLE = "body{font:14px sans-serif;margin:2em;max-width:60em}svg text{font:12px sans-serif}"


@dataclass(frozen=True, slots=True)
class Bar:
    """One bar: parts that stand after one another, and the interval of their sum."""

    label: str
    parts: Mapping[str, float]
    spread: Interval | None = None

    @property
    def total(self) -> float:
        """How long it is."""
        return sum(self.parts.values())


def page(title: str, charts: Sequence[str]) -> str:
    """Put charts on one page."""
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{escape(title)}</title><style>{STYLE}</style>'
        f"<h1>{escape(title)}</h1>{''.join(charts)}</html>\n"
    )


def chart(title: str, bars: Sequence[Bar]) -> str:
    """Draw horizontal bars to one scale, with a legend where they have several parts."""
    if not bars:
        return f"<h2>{escape(title)}</h2><p>not measured</p>"
    scale = (WIDTH - LABEL - 90) / (max(max(bar.total, bar.spread.high if bar.spread else 0.0) for bar in bars) or 1.0)
    names = list(dict.fromkeys(name for bar in bars for name in bar.parts))
    colours = {name: COLOURS[number % len(COLOURS)] for number, name in enumerate(names)}
    drawn = [_bar(bar, number * (BAR + GAP), scale, colours) for number, bar in enumerate(bars)]
    legend = ""
    if len(names) > 1:
        keys = (f'<span style="color:{colours[name]}">■</span> {escape(name)}' for name in names)
        legend = f"<p>{' &nbsp; '.join(keys)}</p>"
    height = len(bars) * (BAR + GAP)
    return f'<h2>{escape(title)}</h2>{legend}<svg width="{WIDTH}" height="{height}" role="img">{"".join(drawn)}</svg>'


def _bar(bar: Bar, y: float, scale: float, colours: Mapping[str, str]) -> str:
    x, drawn = float(LABEL), []
    middle = y + BAR / 2
    drawn.append(f'<text x="{LABEL - 6}" y="{middle + 4:.1f}" text-anchor="end">{escape(bar.label)}</text>')
    for name, value in bar.parts.items():
        drawn.append(
            f'<rect x="{x:.1f}" y="{y:.1f}" width="{value * scale:.1f}" height="{BAR}" fill="{colours[name]}">'
            f"<title>{escape(name)}: {value:,.4g}</title></rect>"
        )
        x += value * scale
    if bar.spread is not None:
        low, high = LABEL + bar.spread.low * scale, LABEL + bar.spread.high * scale
        drawn.append(f'<path d="M{low:.1f} {middle:.1f}H{high:.1f}" stroke="#222" stroke-width="2"/>')
        x = max(x, high)
    drawn.append(f'<text x="{x + 6:.1f}" y="{middle + 4:.1f}">{bar.total:,.4g}</text>')
    return "".join(drawn)


def throughput(runs: Mapping[str, Sequence[Measurement]]) -> str:
    """Draw each subject's records a second."""
    spreads = {name: interval([each.records_per_s for each in measured]) for name, measured in runs.items()}
    bars = [Bar(name, {"records/s": each.median}, each) for name, each in spreads.items()]
    return chart("Throughput, records a second (median, 95 % interval)", bars)


def cpu_split(runs: Mapping[str, Sequence[Measurement]]) -> str:
    """Draw each subject's CPU time per record by process."""
    bars = []
    for name, measured in runs.items():
        roles = dict.fromkeys(role for each in measured for role in each.cpu_us)
        bars.append(
            Bar(name, {role: interval([each.cpu_us.get(role, 0.0) for each in measured]).median for role in roles})
        )
    return chart("CPU microseconds a record, by process", bars)


def latency(latencies: Mapping[str, Mapping[str, float]]) -> str:
    """Draw the percentiles of each trial as steps on one bar."""
    bars = []
    for name, percentiles in latencies.items():
        steps, below = {}, 0.0
        for percentile in ("p50 ms", "p99 ms", "p99.9 ms"):
            if percentile in percentiles:
                steps[percentile] = percentiles[percentile] - below
                below = percentiles[percentile]
        bars.append(Bar(name, steps))
    return chart("Latency from the scheduled send time, up to each percentile, ms", bars)


def resident(sizes: Mapping[str, Sequence[float]]) -> str:
    """Draw what each role has resident, lap by lap."""
    laps = zip(*sizes.values(), strict=True)
    bars = [Bar(f"lap {number}", dict(zip(sizes, lap, strict=True))) for number, lap in enumerate(laps, 1)]
    return chart("Resident MB without shared memory, by lap of the records", bars)


def profiles(found: Mapping[str, Mapping[str, float]]) -> list[str]:
    """Draw where the CPU time of one record goes, for each workload."""
    return [
        chart(
            f"{name}: CPU microseconds of one record, by process, thread and function",
            [Bar(place.strip(), {"us": used}) for place, used in profile.items()],
        )
        for name, profile in found.items()
    ]


def batch_sizes(counts: Mapping[str, Mapping[int, int]]) -> list[str]:
    """Draw the share of results by the size of their batch, in powers of two, for each subject."""
    charts = []
    for name, rows in counts.items():
        binned: dict[int, int] = {}
        for size, count in rows.items():
            upper = 1 << max(size - 1, 0).bit_length()
            binned[upper] = binned.get(upper, 0) + count
        total = sum(binned.values())
        bars = [Bar(f"up to {upper}", {"% of results": 100.0 * binned[upper] / total}) for upper in sorted(binned)]
        charts.append(chart(f"Batch sizes of {name}, % of results", bars))
    return charts
