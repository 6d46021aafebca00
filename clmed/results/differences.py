"""Where two configurations differ, in words."""

import json
from typing import Any


def differences(old: Any, new: Any, place: str = "") -> list[str]:
    """`stream.0.epochs (1 there, 2 here)` for each leaf in which two configurations differ."""
    children: list[Any] = []
    if isinstance(old, dict) and isinstance(new, dict):
        # Both in the old order, then what is new; `strategy` is a mapping whose order counts.
        if set(old) == set(new) and list(old) != list(new) and place == "strategy":
            return [f"{place} (the order of {', '.join(old)})"]
        children = list(dict.fromkeys([*old, *new]))
    elif isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        old, new = dict(enumerate(old)), dict(enumerate(new))
        children = list(old)
    elif old != new:
        return [f"{place} ({_brief(old)} there, {_brief(new)} here)"]
    missing = "nothing"
    return [
        line
        for key in children
        for line in differences(old.get(key, missing), new.get(key, missing), f"{place}.{key}" if place else str(key))
    ]


def _brief(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 40 else text[:37] + "..."
