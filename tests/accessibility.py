"""What a page must have for everyone to read it, checked without a browser."""

import re

from bs4 import BeautifulSoup
from matplotlib.colors import to_rgb

READABLE = 4.5  # contrast of text, WCAG 2 level AA


def problems(page):
    """What is wrong with an HTML page, one line each; none is good."""
    soup = BeautifulSoup(page, "html.parser")
    found = []
    if not soup.html.get("lang"):
        found.append("the page does not say its language")
    if not (soup.title and soup.title.text.strip()):
        found.append("the page has no title")
    if len(soup.find_all("main")) != 1:
        found.append("not one main part")
    levels = [int(heading.name[1]) for heading in soup.find_all(re.compile(r"^h[1-6]$"))]
    if levels.count(1) != 1 or levels[0] != 1:
        found.append("not one first heading")
    found += [
        f"heading {b} below heading {a}"
        for a, b in zip(levels, levels[1:], strict=False)
        if b > a + 1
    ]
    found += [f"empty {tag.name}" for tag in soup.find_all(["h2", "h3", "h4", "a"]) if not tag.text]
    found += [f"no alt: {i.get('src', '')[:40]}" for i in soup.find_all("img") if not i.get("alt")]
    found += [f"no scope: {th.text}" for th in soup.find_all("th") if not th.get("scope")]
    found += [f"no header: {t.text[:40]}" for t in soup.find_all("table") if not t.find("th")]
    ids = [tag["id"] for tag in soup.find_all(id=True)]
    found += [f"id {name} twice" for name in {name for name in ids if ids.count(name) > 1}]
    found += [
        f"{tag.name} leads nowhere: {tag['href']}"
        for tag in soup.find_all("a", href=re.compile("^#"))
        if tag["href"][1:] not in ids
    ]
    return found + faint(soup.style.text)


def faint(css):
    """Rules whose text stands out too little from its background, white where a rule has none."""
    found = []
    for selector, rules in re.findall(r"([^{}]+)\{([^{}]*)\}", css):
        colour = re.search(r"(?<![\w-])color: *(#\w+)", rules)
        background = re.search(r"background: *(#\w+)", rules)
        if colour:
            on = background[1] if background else "#fff"
            ratio = contrast(colour[1], on)
            if ratio < READABLE:
                found.append(f"{selector.strip()}: contrast {ratio:.1f} of {colour[1]} on {on}")
    return found


def contrast(a, b):
    """WCAG 2's ratio of two colours, 1 to 21."""
    lighter, darker = sorted((luminance(a), luminance(b)), reverse=True)
    return (lighter + 0.05) / (darker + 0.05)


def luminance(colour):
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in to_rgb(colour)]
    return sum(weight * c for weight, c in zip((0.2126, 0.7152, 0.0722), linear, strict=True))
