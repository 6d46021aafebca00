"""What `clmed diagnose` says of the runs, for the page."""

from collections.abc import Mapping
from dataclasses import dataclass

from clmed.errors import UserError
from clmed.results.diagnosis import Finding, Record, blind_spots, diagnose
from clmed.results.diagnosis.shown import as_file
from clmed.results.runs import Run


@dataclass(frozen=True, kw_only=True)
class Found:
    """label: of the run, nothing where there is one only; file: an experiment to try."""

    label: str
    finding: Finding
    file: str


def findings(named: Mapping[str, Run]) -> tuple[list[Found], list[str]]:
    """Of all runs, in their order, and of a single run what cannot be seen in it."""
    found: list[Found] = []
    blind: list[str] = []
    for label, run in named.items():
        record = Record(run=run)
        try:
            _ = record.config
        except (UserError, ValueError):  # the file itself was read: what is damaged in it is among the problems
            blind.append(f"{label} was not diagnosed: its configuration is not one that this version of clmed reads.")
            continue
        try:
            for each in diagnose(record):
                found.append(Found(label=label if len(named) > 1 else "", finding=each, file=as_file(run.path, each)))
            if len(named) == 1:
                blind += [f"Not to be seen in this run: {line}" for line in blind_spots(record)]
        except UserError as error:
            blind.append(f"{label} was not diagnosed: {error}")
    return found, blind or ([] if found else ["Nothing was found of the signatures that `clmed diagnose` knows."])
