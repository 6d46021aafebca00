"""Amounts as people write them: `1B`, `750M`, `400k`, `1_000` (k is 1,000, not 1,024); points such as `0.5 epochs`."""

import re
from fractions import Fraction
from typing import Annotated, Any

from pydantic import BeforeValidator, Field

from clmed.complaints import shown

_QUANTITY = re.compile(r"([0-9][0-9_]*(?:\.[0-9]+)?) *([kKmMbB]?)")


def quantity(value: Any) -> Any:
    """'400k' -> 400000; what is neither text nor a float is left to pydantic."""
    if isinstance(value, str) and (match := _QUANTITY.fullmatch(value.strip())):
        exact = Fraction(match[1].replace("_", "")) * {"": 1, "k": 10**3, "m": 10**6, "b": 10**9}[match[2].lower()]
        if exact.denominator == 1:
            return int(exact)
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, str | float):
        raise ValueError(f"must be a whole number such as 512, 400k or 2.5M, not {shown(value)}")
    return value


def measurement_point(point: Any) -> tuple[float, str]:
    """'400k', '400k tokens' or 400000; '1 epoch', '0.5 epochs'. ValueError for anything else, or nothing."""
    if isinstance(point, str) and (match := re.fullmatch(r"([0-9]+(?:\.[0-9]+)?) *epochs?", point.strip())):
        amount, unit = float(match[1]), "epochs"
    else:
        try:
            tokens = quantity(point.strip().removesuffix("tokens") if isinstance(point, str) else point)
        except ValueError:
            tokens = None
        amount, unit = tokens if type(tokens) is int else 0, "tokens"
    if amount <= 0:
        raise ValueError(f"must be tokens ('400k') or epochs ('1 epoch', '0.5 epochs'), not {shown(point)}")
    return amount, unit


def measurement_tokens(point: str | int, epoch: float) -> float:
    """The domain tokens after which an item of `measure_at` falls, when one epoch has `epoch` tokens."""
    amount, unit = measurement_point(point)
    return amount * epoch if unit == "epochs" else amount


def check_point(value: Any) -> Any:
    measurement_point(value)
    return value


Quantity = Annotated[int, BeforeValidator(quantity), Field(gt=0)]
