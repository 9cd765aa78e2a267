"""Numbers as sentences, figures and tables show them."""

import re

import numpy as np

SMALL = 1e-4  # p-values below it are said to be below it
NONE = "–"  # where there is no number


def fixed(value: float, precision: int = 2) -> str:
    """`value` with `precision` decimals and a proper minus, which what rounds to nothing lacks;
    "–" for NaN."""
    return NONE if np.isnan(value) else f"{value:z.{precision}f}".replace("-", "−")


def signed(value: float, precision: int = 2) -> str:
    """`value` with its sign: "+0.04", "−0.12"; "−0.00" where it is below zero by less, which is
    what an interval's bound is read for; "+0.00" where it is a zero, but for float32's rounding."""
    value = 0.0 if abs(value) < 1e-6 else value
    return NONE if np.isnan(value) else f"{value:+.{precision}f}".replace("-", "−")


def with_interval(mean: float, low: float, high: float) -> str:
    """ "+0.04 [−0.12, +0.20]"."""
    return f"{signed(mean)} [{signed(low)}, {signed(high)}]"


def in_markdown(plain: str) -> str:
    """Text that Markdown shows as it is, such as the name of a folder."""
    return re.sub(r"[\\`*\[\]<>&]", r"\\\g<0>", plain)


def p_text(p: float) -> str:
    """A p-value for a table: "0.032", or "< 0.0001" where it is smaller than can be meant."""
    if np.isnan(p):
        return NONE
    return f"{p:.2g}" if p >= SMALL else f"< {SMALL:.4f}"


def p_said(p: float) -> str:
    """A p-value for a sentence: "p = 0.032", "p < 0.0001"."""
    text = p_text(p)
    return f"p {text}" if text.startswith("<") else f"p = {text}"
