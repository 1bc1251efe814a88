"""Every number of the README stands in a ``metrics.json``, in the precision in which it is printed.

The convention: a section (heading to heading) links to the records that its numbers come from, either
the ``metrics.json`` or the ``report.md`` beside it. Code, names (UR5e, v2.1, SO-100, 14B) and link
targets are not looked at. What is a setting, a size or a promise that a test keeps, and not a result, is
listed below with the reason; a number that is neither fails.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from dreamzero.report.record import FILE_NAME, Metric, load

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
# Phrase of the README -> why no metrics.json has its number.
NOT_RESULTS = {
    "64 x 64 pixels": "the size of the shipped model's camera",
    "95 % Wilson intervals": "the level of all intervals",
    "1200 recordings": "dreamzero/shipped.py: what it records for tiny_ur5e",
    "50 episodes of a Franka": "the recording, ../shared/real_data/franka_usb",
    "Python 3.11 or later": "pyproject.toml",
    "2 CPU cores": "the machine that the profile is made for",
    "10-30 M parameters": "sizes of the profile",
    "16 steps and guidance 5 on the video": "the release's own settings",
    "(or 1e-4: its files name both)": "the release's own settings",
    "all 2146 names of the release": "tests/model/test_names.py counts them",
    "20 steps: losses equal to 1e-5": "tests/train/test_distributed.py holds them to it",
    "within 20 % with what": "tests/train/test_plan.py holds the plan to it",
    "Dynamixel 2.0": "a protocol",
    "ViperX 300 S": "an arm",
    "at 500 Hz over RTDE": "the rate that the controller sets",
}
_INTERVAL = re.compile(r"(-?\d+(?:\.\d+)?)( %)? \[(-?\d+(?:\.\d+)?), (-?\d+(?:\.\d+)?)\]")
_NUMBER = re.compile(r"(?<![\w.\-/])([-+]?\d+(?:\.\d+)?(?:e-?\d+)?)( ?[%M]| ?x|(?= ))?(?![\w\-/])")


@dataclass(frozen=True)
class Section:
    """Heading, text without code and link targets, and the records that it links to."""

    title: str
    text: str
    records: list[Path]


def sections(document: str) -> Iterator[Section]:
    """The document heading by heading."""
    document = re.sub(r"```.*?```", "", document, flags=re.DOTALL)
    for part in re.split(r"^(?=#+ )", document, flags=re.MULTILINE):
        links = re.findall(r"\]\(([^)#\s]+)", part)
        files = [ROOT / link for link in links if link.endswith((FILE_NAME, "report.md"))]
        text = re.sub(r"!?\[([^\]]*)\]\([^)]*\)", r"\1", re.sub(r"`[^`]*`", "", part))
        text = re.sub(r"^#+ .*$", "", text, flags=re.MULTILINE)
        title = part.partition("\n")[0].lstrip("# ").strip()
        yield Section(title, " ".join(text.split()), [f.with_name(FILE_NAME) for f in files])


def says(text: str, number: float | None, scale: str, metric: Metric) -> bool:
    """Whether ``text`` is the number, rounded to the digits that the text has."""
    if number is None:
        return False
    if scale == "%" and metric.unit != "%":
        number *= 100
    if scale == "M":
        number /= 1e6
    mantissa, _, exponent = text.partition("e")
    unit = 10.0 ** (int(exponent or 0) - len(mantissa.partition(".")[2]))
    return abs(number - float(text)) <= 0.5 * unit * (1 + 1e-9)


def unfounded(section: Section) -> list[str]:
    """Numbers and intervals of the section that none of its records has."""
    metrics = [m for path in section.records for m in load(path).metrics.values()]
    text, missing = section.text, []
    for phrase in NOT_RESULTS:
        text = text.replace(phrase, "")
    for value, percent, low, high in _INTERVAL.findall(text):
        scale = percent.strip()
        whole = zip((value, low, high), ("value", "low", "high"), strict=True)
        parts = [(shown, name) for shown, name in whole]
        if not any(all(says(t, getattr(m, n), scale, m) for t, n in parts) for m in metrics):
            missing.append(f"{value}{percent} [{low}, {high}]")
    for shown, scale in _NUMBER.findall(_INTERVAL.sub("", text)):
        if re.fullmatch(r"0\d", shown):  # the number of a notebook
            continue
        found = any(
            says(shown, number, scale.strip(), m)
            for m in metrics
            for number in (m.value, m.low, m.high, None if m.n is None else float(m.n))
        )
        if not found:
            missing.append(f"{shown}{scale}")
    return missing


SECTIONS = list(sections(README))


@pytest.mark.parametrize("section", SECTIONS, ids=[s.title or "top" for s in SECTIONS])
def test_every_number_is_in_a_record(section: Section) -> None:
    for path in section.records:
        assert path.is_file(), f"the README cites {path.relative_to(ROOT)}, which is not there"
    missing = unfounded(section)
    assert not missing, (
        f"README, {section.title!r}: {', '.join(missing)} in none of the records that the section "
        "links to. Link the metrics.json that has it, correct it, or say in NOT_RESULTS what it is."
    )


def test_the_list_of_exceptions_is_not_stale() -> None:
    text = " ".join(section.text for section in SECTIONS)
    unused = [phrase for phrase in NOT_RESULTS if phrase not in text]
    assert not unused, f"no longer in the README: {unused}"


def test_a_wrong_number_is_noticed() -> None:
    link = "[record](dreamzero/shipped_models/tiny_so101/metrics.json)"
    right = "It reached 100 % [98, 100], n = 400, with 3.6 M parameters; see " + link
    assert unfounded(next(sections(right))) == []
    for wrong, named in (
        (right.replace("[98, 100]", "[97, 100]"), ["100 % [97, 100]"]),
        (right.replace("n = 400", "n = 401"), ["401"]),
        (right.replace("3.6 M", "3.7 M"), ["3.7 M"]),
        (right.replace("3.6", "3.59"), []),
        (right.replace(link, "the record"), ["100 % [98, 100]", "400", "3.6 M"]),
        (right + " and 12 ms", ["12"]),
        (right + " on a UR5e, v2.1, `7 of 7` and SO-100", []),
    ):
        assert unfounded(next(sections(wrong))) == named


def test_minutes_of_the_notebooks_are_those_of_their_records() -> None:
    text = (ROOT / "notebooks" / "README.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| \[[^\]]+\]\((\w+)\.ipynb\).*\| ([\d.]+) \|[^|]*\|$", text, re.MULTILINE)
    assert [name for name, _ in rows] == sorted(
        p.stem for p in (ROOT / "notebooks").glob("*.ipynb")
    )
    for name, minutes in rows:
        record = load(ROOT / "reports" / name)
        if record.parameters["profile"] == "quick" and record.seconds is not None:
            assert float(minutes) == pytest.approx(record.seconds / 60, abs=0.06), name
