"""Conversations in a model's own chat template, and which parts of them the assistant says.

What the assistant says is marked by templates that have `{% generation %}` tags. For the others it is what a turn adds:
the conversation up to and with the turn, less the conversation before it with the prompt for an answer. So the tokens
that end a turn are learned, the header that begins it is not.
"""

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from clmed.data.formats import Message, Pieces
from clmed.errors import UserError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_MARKED = re.compile(r"\{%-?\s*generation\s*-?%\}")  # as transformers looks for it


class ChatTemplate:
    """Renders conversations as pieces: (text, 1) for what the assistant says, (text, 0) for the rest."""

    def __init__(self, name: str, tokenizer: "PreTrainedTokenizerBase", template: str | None) -> None:
        """name: of the source, for messages; template: Jinja, in place of the tokenizer's own.

        Raises UserError where there is neither.
        """
        self.tokenizer = tokenizer
        if template is None:
            if not tokenizer.chat_template:
                raise UserError(
                    f"data.{name} has the format chat, but the tokenizer {tokenizer.name_or_path or 'given'} has no "
                    f"chat template. Give one as data.{name}.template (Jinja), or take the format qa."
                )
            template = tokenizer.get_chat_template()
        self.template = template

    def pieces(self, messages: Sequence[Message]) -> Pieces:
        """A conversation in the template. Raises ValueError, with the reason, for one that it does not take."""
        from jinja2 import TemplateError

        try:
            text, spans = self._marked(messages) if _MARKED.search(self.template) else self._turns(messages)
        except (TemplateError, TypeError, ArithmeticError, LookupError) as error:  # Jinja lets its expressions' through
            raise ValueError(f"the chat template does not take this conversation ({error})") from error
        pieces: Pieces = []
        done = 0
        for start, end in spans:
            pieces += [(text[done:start], 0.0), (text[start:end], 1.0)]
            done = end
        return [*pieces, (text[done:], 0.0)]

    def _marked(self, messages: Sequence[Message]) -> tuple[str, list[tuple[int, int]]]:
        from transformers.utils.chat_template_utils import render_jinja_template

        special_tokens: dict[str, Any] = self.tokenizer.special_tokens_map
        rendered: Any = render_jinja_template(
            conversations=[list(messages)],
            chat_template=self.template,
            return_assistant_tokens_mask=True,
            **special_tokens,
        )
        (text,), (spans,) = rendered
        return text, spans

    def _turns(self, messages: Sequence[Message]) -> tuple[str, list[tuple[int, int]]]:
        whole = self._render(messages)
        spans = []
        for turn, message in enumerate(messages):
            if message["role"] != "assistant":
                continue
            if not turn:
                raise ValueError("the conversation begins with the assistant")
            before = self._render(messages[:turn], prompt=True)
            through = self._render(messages[: turn + 1])
            if not (through.startswith(before) and whole.startswith(through)):
                raise ValueError(
                    "the chat template shows a turn differently when others follow or no answer is there yet, so what "
                    "the assistant says cannot be told apart; give the source a `template` with {% generation %} tags"
                )
            spans.append((len(before), len(through)))
        return whole, spans

    def _render(self, messages: Sequence[Message], prompt: bool = False) -> str:
        rendered: Any = self.tokenizer.apply_chat_template(
            list(messages), chat_template=self.template, tokenize=False, add_generation_prompt=prompt
        )
        return str(rendered)
