"""Matplotlib figures as SVG that sits in a page: themed, responsive, the same bytes for the same figures."""

import io
import re
from collections.abc import Iterator
from contextlib import contextmanager

import matplotlib
from markupsafe import Markup, escape
from matplotlib.figure import Figure

INK, MUTED, GRID, ACCENT, BAD, BAND = "#010203", "#020304", "#030405", "#040506", "#050607", "#060708"
"""Stand-ins that become CSS variables, so that a chart follows the reader's light or dark theme."""

_VARIABLES = {INK: "ink", MUTED: "muted", GRID: "line", ACCENT: "accent", BAD: "bad", BAND: "band"}
_STYLE = {
    "svg.fonttype": "none",
    "font.size": 10,
    "text.parse_math": False,  # names come from users; a $ is a $
    "text.color": INK,
    "axes.edgecolor": GRID,
    "axes.labelcolor": MUTED,
    "xtick.color": GRID,
    "ytick.color": GRID,
    "xtick.labelcolor": MUTED,
    "ytick.labelcolor": MUTED,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "grid.color": GRID,
    "axes.grid": True,
    "axes.axisbelow": True,
    "legend.frameon": False,
}
_NO_METADATA = {"Date": None, "Creator": None, "Format": None, "Type": None}


@contextmanager
def chart_style(name: str) -> Iterator[None]:
    """Matplotlib settings for one chart; `name` keeps the ids of two charts in one page apart."""
    with matplotlib.rc_context({**_STYLE, "svg.hashsalt": name}):
        yield


def to_svg(figure: Figure, name: str, label: str) -> Markup:
    """Inline SVG of `figure`, read to screen readers as `label`; call it inside of `chart_style(name)`."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", transparent=True, metadata=_NO_METADATA)
    text = buffer.getvalue()
    text = re.sub(r"<metadata>.*?</metadata>", "", text[text.index("<svg") :], flags=re.DOTALL)
    text = re.sub(r'\bid="([^"]+)"', rf'id="{name}-\1"', text)
    text = re.sub(r'(href="#|url\(#)', rf"\g<1>{name}-", text)
    for color, variable in _VARIABLES.items():
        text = text.replace(color, f"var(--{variable})")
    attributes = f'<svg role="img" aria-label="{escape(label)}" '
    # matplotlib escapes the texts of a chart, we escape the label: nothing of a user's is left raw
    return Markup(attributes + text.removeprefix("<svg "))  # noqa: S704
