"""Tasks of lm-evaluation-harness (https://github.com/EleutherAI/lm-evaluation-harness) on the live model.

The harness reads the task, writes the prompts and makes the scores; clmed answers (`model.py`). It is an optional extra
and imported only where a task is asked for.
"""
