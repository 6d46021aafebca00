"""What a run is going to do and need, before it starts; nothing here imports torch unless it has to.

outline     what `clmed run` says before it begins
shapes      a model's tensors from its config.json, without weights
gpus        the devices by name: memory, speed, power, with their sources
costs       what strategies say that they add
estimate    tokens, FLOPs, memory, disk and time of a configuration on so many GPUs
report      all that for people, and what to change when it does not fit
"""

from clmed.planning.outline import PhasePlan, Plan, duration

__all__ = ["PhasePlan", "Plan", "duration"]
