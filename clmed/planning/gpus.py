"""The devices that `clmed plan` knows: memory, peak speed by precision, power.

Peaks are those of dense matrix products, as the makers' data sheets state them; fp32 is without TF32, which torch
leaves off. Watts are the board's limit.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from clmed.complaints import did_you_mean
from clmed.errors import UserError


@dataclass(frozen=True, kw_only=True)
class Gpu:
    """memory in GiB; peaks: FLOP/s by training.precision, of those the device has; note: what to know beside."""

    name: str
    memory: float
    peaks: Mapping[str, float]
    watts: float
    source: str
    note: str = ""


def _peaks(fp32: float, half: float | None = None, *, fp16: float | None = None) -> dict[str, float]:
    """From TFLOP/s; `half` is the speed of both fp16 and bf16."""
    stated = {"fp32": fp32, "fp16": fp16 or half, "bf16": half}
    return {name: value * 1e12 for name, value in stated.items() if value is not None}


_V100 = {
    "peaks": _peaks(15.7, fp16=125.0),
    "watts": 300.0,
    "source": "NVIDIA V100 data sheet, 2020 (SXM2)",
    "note": "has no bf16, and the wheel of torch 2.14.1 no code for it (sm_70): it needs a build of torch of its own",
}
_A100 = {"peaks": _peaks(19.5, 312.0), "watts": 400.0, "source": "NVIDIA A100 data sheet, 2021 (SXM4)"}
_H100 = {"peaks": _peaks(67.0, 989.4), "watts": 700.0}

GPUS: dict[str, Gpu] = {
    gpu.name: gpu
    for gpu in (
        Gpu(name="v100-16gb", memory=16, **_V100),  # type: ignore[arg-type]
        Gpu(name="v100-32gb", memory=32, **_V100),  # type: ignore[arg-type]
        Gpu(name="a100-40gb", memory=40, **_A100),  # type: ignore[arg-type]
        Gpu(name="a100-80gb", memory=80, **_A100),  # type: ignore[arg-type]
        Gpu(name="h100-80gb", memory=80, source="NVIDIA H100 data sheet, 2023 (SXM5)", **_H100),  # type: ignore[arg-type]
        Gpu(name="h200-141gb", memory=141, source="NVIDIA H200 data sheet, 2024 (SXM5)", **_H100),  # type: ignore[arg-type]
        Gpu(name="l40s-48gb", memory=48, peaks=_peaks(91.6, 362.0), watts=350, source="NVIDIA L40S data sheet, 2023"),
    )
}


def find(name: str) -> Gpu:
    """The device of that name; UserError if it is unknown."""
    if name not in GPUS:
        raise UserError(f"--gpu: no device '{name}'{did_you_mean(name, GPUS)} Known are {', '.join(GPUS)}.")
    return GPUS[name]


def peak_of(device_name: str, precision: str) -> float | None:
    """The peak FLOP/s of a device as torch names it ("NVIDIA A100-SXM4-80GB"), None where it is not in the table."""
    for name, gpu in GPUS.items():
        model = name.partition("-")[0].upper()
        if model in device_name.upper().replace(" ", ""):
            return gpu.peaks.get(precision)
    return None
