"""`appliance check`: every problem of settings, site and zones in one run."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING

from appliance.commands import (
    FAILED,
    MISUSED,
    OK,
    config_path,
    count,
    overrides,
    say,
    settings_arguments,
)

if TYPE_CHECKING:
    from pathlib import Path

    from appliance.config import Problem
    from appliance.settings import Settings


def arguments(parser: argparse.ArgumentParser) -> None:
    """The words that it takes."""
    settings_arguments(parser)


def run(options: argparse.Namespace) -> int:
    """Tell all problems; 1 if one is an error."""
    from appliance.config import ConfigError, load

    path = config_path(options)
    if path is None:
        return MISUSED
    problems: list[Problem] = []
    try:
        usable = load(path, overrides(options))
    except ConfigError as exc:
        problems += exc.problems
        if exc.usable is None:
            return _tell(problems, "")
        usable = exc.usable
    from appliance.content import check_content, load_content

    content = load_content(usable)
    problems += _secrets(usable, path)
    problems += _certificates(usable, path)
    problems += _acme(usable, path)
    return _tell([*problems, *content.problems, *check_content(content)], content.summary)


def _secrets(settings: Settings, path: Path) -> list[Problem]:
    """What is wrong with keys and other files that [dns] names."""
    from appliance.config import Problem
    from appliance.parts.dns_options import OptionsError, options
    from appliance.tls.store import exposed

    problems: list[Problem] = []
    for key in settings.dns.key:
        if who := exposed(key.file):
            told = f"{who} can read this secret (chmod 600)"
            problems.append(Problem(str(key.file), 0, "warning", told))
    try:
        options(settings)
    except OptionsError as error:
        problems.append(Problem(str(path), 0, "error", str(error)))
    return problems


def _certificates(settings: Settings, path: Path) -> list[Problem]:
    """What is wrong with the files of [[certificate]], which `serve` would refuse."""
    from appliance.config import Problem

    if not settings.certificate:
        return []
    import datetime as dt

    from appliance.tls.credential import read_files
    from appliance.tls.errors import CredentialError
    from appliance.tls.store import exposed

    problems: list[Problem] = []
    for files in settings.certificate:
        secret = files.key or files.chain
        if who := exposed(secret):
            told = f"{who} can read this private key (chmod 600)"
            problems.append(Problem(str(secret), 0, "warning", told))
        try:
            found = read_files(files.chain, files.key, dt.datetime.now(dt.UTC))
        except CredentialError as error:
            problems.append(Problem(str(path), 0, "error", f"certificate: {error}"))
            continue
        # RFC 8422 §2.1: a suite says what kind of key signs; Ed25519 and Ed448 count as ECDSA.
        kind = "RSA" if found.key_type.startswith("RSA") else "ECDSA"
        suites = settings.tls.ciphers
        if suites and not any(f"-{kind}-" in suite for suite in suites):
            told = f"no suite in tls.ciphers is for this {found.key_type} key: TLS 1.3 alone"
            problems.append(Problem(str(files.chain), 0, "warning", told))
    return problems


def _acme(settings: Settings, path: Path) -> list[Problem]:
    """Why [acme] would get no certificate, as far as that can be known from here."""
    from appliance.config import Problem

    acme = settings.acme
    problems: list[Problem] = []
    if acme.directory is None:
        if acme.staging is not None or acme.names or acme.agree:
            told = "acme.directory is not set: no certificate is asked for"
            problems.append(Problem(str(path), 0, "warning", told))
        return problems
    if not (acme.names or settings.tls.names):
        told = "acme.names is empty, and so is tls.names: for whom is the certificate to be?"
        problems.append(Problem(str(path), 0, "error", told))
    if not acme.agree:
        # RFC 8555 §7.3.3: whoever has terms makes no account for those who do not agree.
        told = "acme.agree is false: an authority that has terms of service makes no account"
        problems.append(Problem(str(path), 0, "warning", told))
    return problems


def _tell(problems: Sequence[Problem], summary: str) -> int:
    """Print problems in the order of files and lines, and how many there are."""
    for problem in problems:
        where = f"{problem.file}:{problem.line}" if problem.line else problem.file
        say(f"{where}: {problem.severity}: {problem.message}")
    errors = sum(problem.severity == "error" for problem in problems)
    warnings = len(problems) - errors
    counts = f"{count(errors, 'error')}, {count(warnings, 'warning')}"
    say(f"{summary}; {counts}" if summary else counts)
    return FAILED if errors else OK
