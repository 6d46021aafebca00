"""The YAML schema: one frozen model per section, each of which checks itself; an error names the file and the line.

Whole numbers may be written like people write them: `1B`, `750M`, `400k`, `1_000` (k is 1,000, not 1,024). Paths of
data are relative to `data_root`, all others (data_root itself, models, strategy files) to the current folder.
What can only be told by looking at the disk is checked in clmed/validation.py.
"""

from clmed.config.data import NOT_READING, SourceConfig
from clmed.config.evaluation import BenchmarkConfig, EvaluateConfig, EvaluationConfig
from clmed.config.experiment import BASE_ONLY, PAST, ExperimentConfig
from clmed.config.loading import LOCAL_SUFFIXES, data_folder, dump, fingerprint, load, load_with_places, resolve
from clmed.config.model import BuildConfig, ModelConfig, PretrainConfig
from clmed.config.sections import Section
from clmed.config.stream import ExperienceConfig
from clmed.config.training import OptimizerConfig, TrainingConfig
from clmed.config.watching import WatchingConfig

__all__ = [
    "BASE_ONLY",
    "LOCAL_SUFFIXES",
    "NOT_READING",
    "PAST",
    "BenchmarkConfig",
    "BuildConfig",
    "EvaluateConfig",
    "EvaluationConfig",
    "ExperienceConfig",
    "ExperimentConfig",
    "ModelConfig",
    "OptimizerConfig",
    "PretrainConfig",
    "Section",
    "SourceConfig",
    "TrainingConfig",
    "WatchingConfig",
    "data_folder",
    "dump",
    "fingerprint",
    "load",
    "load_with_places",
    "resolve",
]
