"""All continuations of a question in one row of tokens: [what precedes | a tree of the continuations' tokens].

A node of the tree sees the context and its own ancestors only (a 4-D attention mask) and its position is its depth, so
that one forward pass gives what a pass for each continuation would. The last token of a continuation is only ever
predicted, never read: an option of one token adds nothing to the row, and "A", "AB" and "ABC" share their beginnings.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch


@dataclass(frozen=True, kw_only=True, eq=False)
class Tree:
    """The continuations of one context as a tree: `n` nodes that are read, and every scored token.

    `tokens`, `depths` (n,): a node's token and its distance from the context (0 = follows it directly);
    `sees` (n, n): whether the row's node is the column's node or a descendant of it;
    `sources`, `targets`, `owners`: for each scored token what predicts it (0 = the context's last token, i + 1 = node
    i), the token itself and its continuation.
    """

    tokens: np.ndarray
    depths: np.ndarray
    sees: np.ndarray
    sources: np.ndarray
    targets: np.ndarray
    owners: np.ndarray
    continuations: int


def grow(continuations: Sequence[Sequence[int]]) -> Tree:
    """The tree of some continuations, each of at least one token."""
    children: dict[tuple[int, int], int] = {}
    scored: list[tuple[int, int, int]] = []
    for owner, tokens in enumerate(continuations):
        node = 0
        for token in tokens[:-1]:
            scored.append((node, token, owner))
            node = children.setdefault((node, token), len(children) + 1)
        scored.append((node, tokens[-1], owner))
    depths = np.zeros(len(children), dtype=np.int64)
    sees = np.eye(len(children), dtype=bool)
    for (parent, _), node in children.items():
        if parent:
            depths[node - 1] = depths[parent - 1] + 1
            sees[node - 1] |= sees[parent - 1]
    sources, targets, owners = np.array(scored, dtype=np.int64).T
    return Tree(
        tokens=np.array([token for _, token in children], dtype=np.int64),
        depths=depths,
        sees=sees,
        sources=sources,
        targets=targets,
        owners=owners,
        continuations=len(continuations),
    )


@dataclass(frozen=True, kw_only=True, eq=False)
class Row:
    """A question: its place among the requests, its context after the shared prefix (at least one token), its tree."""

    index: int
    suffix: np.ndarray
    tree: Tree

    @property
    def length(self) -> int:
        return len(self.suffix) + len(self.tree.tokens)


@dataclass(frozen=True, kw_only=True, eq=False)
class Layout:
    """A batch of B rows of Q = S + T columns: suffixes end, and trees begin, at the same column; the rest is padding.

    So the last T + 1 columns are those that predict. `input_ids`, `position_ids` (B, Q); `mask` (B, 1, Q, Q), 0 where
    the column sees the other and -inf elsewhere; all see the prefix.
    """

    input_ids: torch.Tensor
    position_ids: torch.Tensor
    mask: torch.Tensor
    predicting: int


def lay_out(rows: Sequence[Row], prefix: int, device: torch.device, dtype: torch.dtype) -> Layout:
    """The inputs of a batch of rows that follow a prefix of so many tokens."""
    suffix = max(len(row.suffix) for row in rows)
    tree = max(len(row.tree.tokens) for row in rows)
    width = suffix + tree
    tokens = np.zeros((len(rows), width), dtype=np.int64)
    depths = np.zeros((len(rows), tree), dtype=np.int64)
    branches = np.zeros((len(rows), tree, tree), dtype=bool)
    for i, row in enumerate(rows):
        nodes = len(row.tree.tokens)
        tokens[i, suffix - len(row.suffix) : suffix] = row.suffix
        tokens[i, suffix : suffix + nodes] = row.tree.tokens
        depths[i, :nodes] = row.tree.depths
        branches[i, :nodes, :nodes] = row.tree.sees
    lengths = np.array([[len(row.suffix)] for row in rows])
    # From 0 at a suffix's first token; the padding before it is negative here.
    places = np.concatenate([np.arange(suffix) - (suffix - lengths), lengths + depths], axis=1)

    # Everybody sees what is before them in the suffix and, in the tree, their ancestors. Padding sees itself too:
    # the softmax of an empty row is NaN, and 0 x NaN would reach the others in the next layer.
    column = torch.arange(width, device=device)
    starts = torch.from_numpy(suffix - lengths).to(device)
    sees = (column[:, None] >= column) & (column >= starts)[:, None, :]
    sees[:, suffix:, suffix:] = torch.from_numpy(branches).to(device)
    sees |= torch.eye(width, dtype=torch.bool, device=device)
    mask = torch.zeros((len(rows), 1, width, width), dtype=dtype, device=device)
    mask[:, 0].masked_fill_(~sees, -torch.inf)
    return Layout(
        input_ids=torch.from_numpy(tokens).to(device),
        position_ids=torch.from_numpy(prefix + np.maximum(places, 0)).to(device),
        mask=mask,
        predicting=tree + 1,
    )
