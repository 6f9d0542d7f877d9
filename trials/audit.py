"""Look for known vulnerabilities in everything that is installed: ``python -m trials.audit``.

pip-audit asks PyPI, or OSV, for the advisories on each package. It counts what could not be looked
up as harmless; here that is a failure, because an audit that saw nothing proves nothing.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

from app.documents.text import print_anything

_SECONDS = 600


@dataclass(frozen=True)
class Audit:
    """What pip-audit told: the packages it looked up, those it could not, and what it found."""

    looked_up: int
    skipped: tuple[str, ...]
    found: tuple[str, ...]


def pins() -> list[str]:
    """Return every package that is installed here, with its version, those of others included.

    Without the local part by which PyTorch names its builds (``+cpu``): advisories have none.
    """
    installed = {one.metadata["Name"]: one.version.partition("+")[0] for one in distributions()}
    return [f"{name}=={version}" for name, version in sorted(installed.items())]


def read(report: dict[str, Any]) -> Audit:
    """Read pip-audit's report."""
    packages = report["dependencies"]
    skipped = [f"{one['name']}: {one['skip_reason']}" for one in packages if "skip_reason" in one]
    found = [
        f"{one['name']} {one['version']}: {each['id']}"
        f" ({', '.join(each['aliases']) or 'no other name'}), "
        f"mended in {', '.join(each['fix_versions']) or 'no version yet'}"
        for one in packages
        for each in one.get("vulns", ())
    ]
    return Audit(len(packages) - len(skipped), tuple(skipped), tuple(found))


def run(service: str) -> Audit:
    """Have pip-audit look up what is installed. Raises `RuntimeError` when it can't."""
    with tempfile.TemporaryDirectory(prefix="lantern-audit-") as directory:
        requirements = Path(directory, "installed.txt")
        requirements.write_text("\n".join(pins()) + "\n", encoding="utf-8")
        command = [sys.executable, "-m", "pip_audit", "--requirement", str(requirements)]
        command += ["--no-deps", "--disable-pip", "--vulnerability-service", service]
        command += ["--format", "json", "--progress-spinner", "off"]
        ran = subprocess.run(
            command, capture_output=True, encoding="utf-8", check=False, timeout=_SECONDS
        )
    try:
        return read(json.loads(ran.stdout))
    except (ValueError, KeyError):
        last = ran.stderr.strip().splitlines()[-1:] or ["it said nothing"]
        raise RuntimeError(f"pip-audit could not ask {service}: {last[0]}") from None


def verdict(audit: Audit) -> list[str]:
    """Say what speaks against this environment; empty where everything was seen and is clean."""
    said = list(audit.found)
    if audit.skipped and not audit.looked_up:
        said.append(
            f"None of {len(audit.skipped)} packages could be looked up: nothing is known of any. "
            "Run it where the service with the advisories can be reached; a mirror of packages "
            f"has none. Of the first it was said: {audit.skipped[0]}"
        )
    else:
        said += [f"not looked up: {one}" for one in audit.skipped]
    return said


def main() -> int:
    """Audit, print what came of it, and give the exit status."""
    parser = argparse.ArgumentParser(prog="python -m trials.audit", description=__doc__)
    parser.add_argument("--service", choices=("pypi", "osv"), default="pypi", help="whom to ask")
    service = parser.parse_args().service
    print_anything()
    try:
        audit = run(service)
    except (RuntimeError, subprocess.TimeoutExpired) as error:
        print(f"Nothing was audited. {error}", file=sys.stderr)
        return 1
    said = verdict(audit)
    for one in said:
        print(one, file=sys.stderr)
    if not said:
        print(f"No known vulnerability in {audit.looked_up} packages, by {service}.")
    return 1 if said else 0


if __name__ == "__main__":
    sys.exit(main())
