"""Where and with what a benchmark ran."""

from __future__ import annotations

import datetime as dt
import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any


def describe_setting(*packages: str) -> dict[str, Any]:
    """Return date, machine, and the versions of packages, None for those that are not installed."""
    return {
        "date": dt.datetime.now(dt.UTC).date().isoformat(),
        "machine": describe_machine(),
        "versions": {package: _version(package) for package in packages},
    }


def describe_machine() -> str:
    """Return processor, number of cores, system and Python of this machine, without its name."""
    processor = platform.processor() or platform.machine()
    cpus = Path("/proc/cpuinfo")
    if cpus.is_file():
        models = [line.partition(":")[2].strip() for line in cpus.read_text().splitlines() if "model name" in line]
        processor = models[0] if models else processor
    system = f"{platform.system()} {platform.machine()}, Python {platform.python_version()}"
    return f"{processor}, {os.cpu_count()} cores, {system}"


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
