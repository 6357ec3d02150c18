"""What is left of a page when code, mathematics and the two number roles are taken away, and the numbers in it."""

from __future__ import annotations

import json
import re
from pathlib import Path

METRICS = (
    r"accurac(?:y|ies)|coherences?|purit(?:y|ies)|elbos?|fid|iwae|log-?likelihoods?|error rates?|f1(?:-scores?)?|"
    r"recall|precision score|speed-?ups?|latenc(?:y|ies)|purity|correlations?|losse?s?"
)
UNITS = (
    r"%|percent(?:age points?)?|per cent|nats?|bits?|ms|milliseconds?|s|secs?|seconds?|min|mins|minutes?|hours?|days|weeks|"
    r"kb|mb|gb|kib|mib|gib|kilobytes|megabytes|gigabytes|fps"
)
COUNTED = (
    r"epochs?|steps?|samples?|items?|classes|labels?|digits?|images?|pixels?|modalit(?:y|ies)|dimensions?|latents?|units?|"
    r"layers?|experts?|runs?|seeds?|papers?|chapters?|cores?|bins|frames"
)
SPELLED = (
    r"two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|fifteen|twenty|thirty|forty|fifty|sixty|seventy|eighty|ninety|hundred"
)
NUMBER = r"(?<![\w.])[-+−]?\d+(?:[.,]\d+)*(?![\w]|[.]\d|-[A-Za-z])"
#: How many words may stand between a metric word and a number that is taken for its value.
REACH = 6

_BESIDE_UNIT = re.compile(rf"(?<![\w.])[-+−]?\d+(?:[.,]\d+)*\s?(?:{UNITS})(?![\w-])|\b(?:{SPELLED})[ -](?:{UNITS})\b", re.I)
#: A duration can hide in words; "a second" is left out, since it is mostly an ordinal.
_LASTING = re.compile(r"\b(?:an?|one|half an) (?:minute|hour)s?\b|\bin (?:(?:a few|some) )?(?:seconds|minutes|hours)\b", re.I)
_METRIC = re.compile(rf"\b(?:{METRICS})\b", re.I)
_NUMBER = re.compile(NUMBER)
_COUNTED = re.compile(rf"^\s*(?:{COUNTED})\b", re.I)
_REFERENCE = re.compile(r"\b(?:tables?|figures?|equations?|sections?|parts?|chapters?|pages?|version|python|step|item)\s+$", re.I)


def markdown_of(path: Path) -> str:
    """The prose of a page: a .md file, or the markdown cells of a notebook."""
    if path.suffix != ".ipynb":
        return path.read_text(encoding="utf-8")
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    return "\n\n".join("".join(c["source"]) for c in cells if c["cell_type"] == "markdown")


def strip(text: str) -> str:
    """Remove both number roles, then everything else that is not prose."""
    text = re.sub(r"\{(?:measured|paper)\}`[^`]*`", " ", text)
    text = re.sub(r"^(`{3,}|~{3,})(?!\{(?:note|tip|warning|admonition|exercise|solution|dropdown|important|prf:)).*?^\1\s*$", " ", text, flags=re.S | re.M)
    text = re.sub(r"^[`:~]{3,}.*$|^:\w[\w-]*:.*$", "", text, flags=re.M)
    text = re.sub(r"<!--.*?-->|<(?:script|style|svg)\b.*?</(?:script|style|svg)>|<[a-z/][^>]*>", " ", text, flags=re.S)
    text = re.sub(r"\$\$.*?\$\$|\\begin\{(\w+\*?)\}.*?\\end\{\1\}", " ", text, flags=re.S)
    text = re.sub(r"(?<!\\)\$([^$\n]+(?:\n[^$\n]+)*)\$", _mathematics, text)
    text = re.sub(r"\{[a-z:]+\}`[^`]*`", " ", text)
    text = re.sub(r"(`+).+?\1", " ", text, flags=re.S)
    text = re.sub(r"\]\([^)]*\)|https?://\S+", "]", text)
    return text


def _mathematics(match: re.Match) -> str:
    """Mathematics goes, except a bare measured-looking number that only hides in dollar signs."""
    bare = re.fullmatch(r"\s*([-+]?\d+\.\d+|\d{2,})\s*(\\?%)?\s*", match[1])
    return f"{bare[1]}{'%' if bare[2] else ''}" if bare else " "


def typed_numbers(text: str) -> list[str]:
    """The phrases of `text` that state a measurement by a typed number."""
    found = []
    for sentence in re.split(r"(?<=[.!?;])\s+|\n\s*\n|\n[-*|] ", strip(text)):
        sentence = " ".join(sentence.split())
        found += [match[0] for pattern in (_BESIDE_UNIT, _LASTING) for match in pattern.finditer(sentence)]
        numbers = [n for n in _NUMBER.finditer(sentence) if _is_a_value(sentence, n)]
        for metric in _METRIC.finditer(sentence):
            for number in numbers:
                low, high = sorted((metric, number), key=lambda m: m.start())
                if len(sentence[low.end() : high.start()].split()) <= REACH:
                    found.append(sentence[low.start() : high.end()])
    return found


def _is_a_value(sentence: str, number: re.Match) -> bool:
    """Neither the bounds 0 and 1, nor a year, nor a count of things, nor the number of a table."""
    if number[0] in ("0", "1") or re.fullmatch(r"(?:19|20)\d\d", number[0]):
        return False
    return not _COUNTED.match(sentence[number.end() :]) and not _REFERENCE.search(sentence[: number.start()])
