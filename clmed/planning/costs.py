"""What the strategies of a configuration add, as their own `cost` methods say, and what of a model they refuse.

The methods are run alone, from their source: importing a strategy's file takes many seconds.
"""

import ast
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

from clmed import catalogue
from clmed.catalogue import StrategyInfo
from clmed.config import ModelConfig
from clmed.errors import UserError
from clmed.planning import shapes
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
    """The sum over the strategies, of what is trained the least; UserError where parameters or `cost` are wrong, or a
    strategy cannot do such a model."""
    total: dict[str, float] = dict(vars(Cost()))
    for name, given in strategies.items():
        info = catalogue.find(name)
        if wrong := catalogue.problems(info, given):
            raise UserError("; ".join(message for _, message in wrong) + ".")
        _run(info, info.declared.check_blocks, given, size)
        for key, value in (_run(info, info.cost, given, size) or {}).items():
            if key not in total:
                raise UserError(f"strategy '{name}': its cost() gives '{key}'; known are {', '.join(total)}.")
            total[key] = min(total[key], value) if key == "trained" else total[key] + value
    return Cost(**total)


def refused(info: StrategyInfo, given: Mapping[str, Any], model: ModelConfig) -> str | None:
    """Why a strategy cannot do a model; None where it can, or where the model would have to be built to tell."""
    method = info.declared.check_blocks
    if method is None or (shape := shapes.known(model)) is None:
        return None
    try:
        _run(info, method, given, shape)
    except UserError as error:
        return str(error)
    return None


def _run(info: StrategyInfo, method: ast.FunctionDef | None, given: Mapping[str, Any], size: Any) -> Any:
    """What a method (self, size) of a strategy with these parameters returns; None where it has none."""
    if method is None:
        return None
    defaults = {key: ast.literal_eval(p.default) for key, p in info.parameters.items() if not p.required}
    instance = SimpleNamespace(**catalogue.arguments({**defaults, **given}))
    plain = ast.FunctionDef(
        name=method.name,
        args=ast.arguments(
            posonlyargs=[],
            args=[ast.arg(each.arg) for each in method.args.args],
            kwonlyargs=[],
            kw_defaults=[],
            defaults=[],
        ),
        body=method.body,
        decorator_list=[],
    )
    scope: dict[str, Any] = {"UserError": UserError}
    named = " ".join(each.arg for each in method.args.args[1:2]) or "the size"
    try:
        exec(compile(ast.fix_missing_locations(ast.Module([plain], [])), str(info.path), "exec"), scope)
        return scope[method.name](instance, size)
    except UserError:
        raise
    except Exception as error:
        raise UserError(
            f"strategy '{info.name}': {info.path}, line {method.lineno}: {method.name}() cannot be worked out "
            f"({type(error).__name__}: {error}); it may use its YAML parameters by their names, "
            f"`{named}`, and builtins."
        ) from error
