"""What the strategies of a configuration add, as their own `cost` methods say."""

import ast
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

from clmed import catalogue
from clmed.errors import UserError
from clmed.planning.shapes import ModelShape


@dataclass(frozen=True, kw_only=True)
class Size:
    """What a strategy's `cost` is told: experiences, tokens of all their domains, tokens of one pass by source.

    steps: for the domain's tokens, each of step_tokens in rows of row_tokens. past: tokens of one pass over what came
    before each experience, summed over the experiences. shape: of the model, which may be
    unknown on this machine: asked for where it is needed alone.
    """

    experiences: int
    domain_tokens: float
    tokens: Mapping[str, float]
    steps: int = 0
    step_tokens: int = 0
    row_tokens: int = 0
    past: float = 0.0
    shape: Callable[[], ModelShape]

    @property
    def parameters(self) -> int:
        """The number of the model's weights."""
        return self.shape().parameters

    @property
    def layers(self) -> int:
        """The number of its decoder blocks."""
        return self.shape().layers

    @property
    def matrices(self) -> Mapping[str, tuple[int, int]]:
        """(rows, columns) of the matrices of one block, by name."""
        return self.shape().matrices


@dataclass(frozen=True, kw_only=True)
class Cost:
    """Copies of the trainable weights that are kept, gradients beside a step's own, rows run on every rank, tokens
    trained beyond the domain's, tokens read (run forward alone), a step's logits once more in fp32, and on the cache's
    disk copies of the weights and bytes; blocks of the model that do not train, and whether its input embeddings do
    not; weights added to the model, and those trained (infinity: all).
    """

    copies: float = 0.0
    gradients: float = 0.0
    rows: float = 0.0
    tokens: float = 0.0
    read: float = 0.0
    logits: float = 0.0
    cached: float = 0.0
    disk: float = 0.0
    frozen_layers: float = 0.0
    frozen_embeddings: float = 0.0
    added: float = 0.0
    trained: float = math.inf


def of(strategies: Mapping[str, Mapping[str, Any]], size: Size) -> Cost:
    """The sum over the strategies, of what is trained the least; UserError where parameters or `cost` are wrong."""
    total: dict[str, float] = dict(vars(Cost()))
    for name, given in strategies.items():
        for key, value in _declared(name, given, size).items():
            if key not in total:
                raise UserError(f"strategy '{name}': its cost() gives '{key}'; known are {', '.join(total)}.")
            total[key] = min(total[key], value) if key == "trained" else total[key] + value
    return Cost(**total)


def _declared(name: str, given: Mapping[str, Any], size: Size) -> Mapping[str, float]:
    """What `cost` returns: run alone, because importing a strategy's file takes many seconds."""
    info = catalogue.find(name)
    if wrong := catalogue.problems(info, given):
        raise UserError("; ".join(message for _, message in wrong) + ".")
    if info.cost is None:
        return {}
    defaults = {key: ast.literal_eval(p.default) for key, p in info.parameters.items() if not p.required}
    instance = SimpleNamespace(**catalogue.arguments({**defaults, **given}))
    method = ast.FunctionDef(
        name="cost",
        args=ast.arguments(
            posonlyargs=[], args=[ast.arg("self"), ast.arg("size")], kwonlyargs=[], kw_defaults=[], defaults=[]
        ),
        body=info.cost.body,
        decorator_list=[],
    )
    scope: dict[str, Any] = {}
    try:
        exec(compile(ast.fix_missing_locations(ast.Module([method], [])), str(info.path), "exec"), scope)
        return scope["cost"](instance, size)
    except UserError:
        raise
    except Exception as error:
        raise UserError(
            f"strategy '{name}': {info.path}, line {info.cost.lineno}: cost() cannot be worked out "
            f"({type(error).__name__}: {error}); it may use its YAML parameters by their names, `size`, and builtins."
        ) from error
