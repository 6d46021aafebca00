"""What is found in a run: a title, the numbers that it rests on, what they mean, and a change to try."""

from dataclasses import dataclass
from typing import Literal

Signature = Literal["language", "mismatch", "corpus", "forgetting"]


@dataclass(frozen=True, kw_only=True)
class Finding:
    """evidence: one number with its place (point, benchmark, source) each; change: lines of YAML that replace values of
    the run's configuration, in a file that begins with `extends: RUN/config.yaml`."""

    signature: Signature
    title: str
    evidence: tuple[str, ...]
    meaning: str
    change: str
