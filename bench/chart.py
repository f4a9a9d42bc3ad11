"""A bar chart as SVG, that reads well on light and on dark pages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

_WIDTH = 760
_LABEL = 130  # of the bars' names
_VALUE = 70  # behind the longest bar
_BAR, _GAP, _HEAD, _SPACE = 18, 5, 26, 16
_STYLE = """
text { font: 13px sans-serif; fill: #24292f; }
.head { font-weight: bold; }
.hyper { fill: #0969da; }
.peer { fill: #9aa4ae; }
@media (prefers-color-scheme: dark) {
text { fill: #e6edf3; }
.peer { fill: #6e7781; }
.hyper { fill: #4493f8; }
}
"""


@dataclass(frozen=True, kw_only=True)
class Panel:
    """Bars of one measure; less is better."""

    title: str
    unit: str
    bars: Mapping[str, float]


def chart(panels: Sequence[Panel], *, note: str) -> str:
    """The picture, with ``note`` below: machine and date."""
    parts, top = [], 0
    for panel in panels:
        parts.append(_panel(panel, top))
        top += _HEAD + len(panel.bars) * (_BAR + _GAP) + _SPACE
    parts.append(_text(0, top + 12, note))
    size = f'viewBox="0 0 {_WIDTH} {top + _HEAD}" width="{_WIDTH}"'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img">\n<style>{_STYLE}</style>\n'
    return head + "\n".join(parts) + "\n</svg>\n"


def _panel(panel: Panel, top: int) -> str:
    most = max(panel.bars.values())
    lines = [_text(0, top + 16, panel.title, kind="head")]
    for number, (name, value) in enumerate(panel.bars.items()):
        y = top + _HEAD + number * (_BAR + _GAP)
        length = value / most * (_WIDTH - _LABEL - _VALUE)
        kind = "hyper" if name.startswith("hyper") else "peer"
        lines += [
            _text(0, y + 14, name),
            f'<rect class="{kind}" x="{_LABEL}" y="{y}" width="{length:.1f}" height="{_BAR}" rx="2"/>',
            _text(_LABEL + length + 6, y + 14, f"{value:.3g} {panel.unit}"),
        ]
    return "\n".join(lines)


def _text(x: float, y: float, text: str, *, kind: str = "") -> str:
    of_kind = f' class="{kind}"' if kind else ""
    return f'<text x="{x:.1f}" y="{y}"{of_kind}>{escape(text)}</text>'
