"""Power profiles as files: what is written is what is read, and every kind of damage is named."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from spikeport.convert.errors import InputError, PowerFileError
from spikeport.convert.profiles import (
    UNKNOWN_LIMIT,
    PowerProfile,
    RateLimit,
    load_profile,
    profile_dict,
    save_profile,
)
from spikeport.convert.published import PROFILES, SPECK2F


@pytest.mark.parametrize("name", list(PROFILES))
def test_save_then_load_is_the_identity(name: str, tmp_path: Path) -> None:
    path = tmp_path / "profile.json"
    save_profile(PROFILES[name], path)
    assert load_profile(path) == PROFILES[name]
    once = path.read_bytes()
    save_profile(load_profile(path), path)
    assert path.read_bytes() == once


def test_a_measured_limit_of_a_core_is_kept(tmp_path: Path) -> None:
    profile = dataclasses.replace(SPECK2F, core_limit=RateLimit(3e8, "measured: some board"))
    save_profile(profile, tmp_path / "profile.json")
    assert load_profile(tmp_path / "profile.json") == profile != SPECK2F


def _without(key: str) -> Callable[[dict[str, Any]], object]:
    return lambda entry: entry.pop(key)


def _with(*path: str | int, value: object) -> Callable[[dict[str, Any]], object]:
    def change(entry: dict[str, Any]) -> None:
        place: Any = entry
        for step in path[:-1]:
            place = place[step]
        place[path[-1]] = value

    return change


DAMAGE = {
    "no format": (_without("spikeport.power_profile"), "expected a power profile of spikeport, found none"),
    "another version": (_with("spikeport.power_profile", value=2), "expected version 1, found 2"),
    "field missing": (_without("terms"), r"profile: expected the fields \[.*'terms'\], found"),
    "field unknown": (_with("color", value=1), r"profile: expected the fields .* found \['color'"),
    "text for a number": (
        _with("rails", 0, "rest", "mid", value="much"),
        r"profile\.rails\[0\]\.rest\.mid: expected a number, found 'much'",
    ),
    "truth for a number": (_with("rails", 0, "rest", "mid", value=True), "expected a number, found True"),
    "a number beyond numbers": (_with("rails", 0, "rest", "mid", value=10**400), "expected a number, found 1000"),
    "number for text": (_with("name", value=3), r"profile\.name: expected text, found 3"),
    "unknown group": (_with("rails", 1, "group", value="fan"), r"rails\[1\]\.group: expected one of \('processor'"),
    "unknown kind": (_with("terms", 0, "kind", value="heat"), r"terms\[0\]\.kind: expected one of \('synops'"),
    "no list": (_with("rails", value={}), r"profile\.rails: expected a list, found \{\}"),
    "no record": (_with("rails", 0, value=7), r"rails\[0\]: expected the fields .* found int"),
    "negative": (_with("rails", 0, "rest", "low", value=-1.0), "expected 0 <= low <= mid <= high, found -1.0"),
    "band out of order": (_with("rails", 0, "rest", "low", value=1.0), "expected 0 <= low <= mid <= high"),
    "no source": (_with("rails", 0, "rest", "source", value=""), "expected a source, found none"),
    "limit of nothing": (_with("core_limit", "synops_per_s", value=0), "expected more than 0 synops per second"),
    "limit without source": (_with("core_limit", "source", value=""), "rate limit: expected a source"),
    "share of no rail": (_with("terms", 0, "shares", 0, "rail", value="sun"), "expected shares of the rails"),
    "shares that do not add up": (
        _with("terms", 0, "shares", 0, "share", "mid", value=0.6),
        "expected shares that add to 1, found 1.1",
    ),
    "a kind missing": (_with("terms", value=[]), "expected a term for every kind of event, none for synops, routed"),
    "rails missing": (_with("rails", value=[]), "expected rails with distinct names"),
}


@pytest.mark.parametrize("kind", list(DAMAGE))
def test_damage_is_named(kind: str, tmp_path: Path) -> None:
    change, message = DAMAGE[kind]
    entry = json.loads(json.dumps(profile_dict(SPECK2F)))
    change(entry)
    path = tmp_path / "mine.json"
    path.write_text(json.dumps(entry))
    with pytest.raises(PowerFileError, match=message) as raised:
        load_profile(path)
    assert str(raised.value).startswith("mine.json: ")
    assert "Try " in str(raised.value)
    assert raised.value.exit_code == 6


def test_all_damage_is_named_at_once(tmp_path: Path) -> None:
    entry = json.loads(json.dumps(profile_dict(SPECK2F)))
    for rail in entry["rails"]:
        rail["name"] = rail["group"] = 0
    (tmp_path / "mine.json").write_text(json.dumps(entry))
    with pytest.raises(PowerFileError, match=r"rails\[0\]\.name.*rails\[1\]\.group.*; 5 further\. Try"):
        load_profile(tmp_path / "mine.json")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "Expecting value"),
        (b"{", "Expecting property name"),
        (b"\xff\xfe", "codec can't decode"),
        (b"[1]", "expected a power profile of spikeport"),
        (b'{"a": NaN}', "NaN is no number of JSON"),
        (b"[" * 100_000, "expected a power profile in JSON"),
    ],
)
def test_files_that_are_no_json_object_are_refused(content: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / "mine.json").write_bytes(content)
    with pytest.raises(PowerFileError, match=message):
        load_profile(tmp_path / "mine.json")


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PowerFileError, match=r"nothing\.json: .*No such file"):
        load_profile(tmp_path / "nothing.json")
    with pytest.raises(PowerFileError, match="directory"):
        load_profile(tmp_path)


def test_a_profile_of_another_rule_is_no_profile() -> None:
    with pytest.raises(InputError, match="distinct names"):
        PowerProfile("twice", "", SPECK2F.rails * 2, SPECK2F.terms)
    with pytest.raises(InputError, match="more than 0"):
        RateLimit(math.inf, "x")
    assert UNKNOWN_LIMIT.source
