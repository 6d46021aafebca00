"""`data`: the sources by name."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from clmed.config.sections import Positive, Section, Seed, Share, only_defaults

# The keys that say where a source lies and what it is for, not how its records are read.
NOT_READING = {"path", "subset", "split", "base_only", "deduplicate", "decontaminate"}

OF_EXPLANATIONS = ("answer_weight", "shuffle_explanations", "explanation_share")


class SourceConfig(Section):
    """Records of one file or hub data set; `heldout` and `fisher` are the shares of documents kept from training.

    A source that is `base_only` may be named in `model.build` only: no strategy and no experience learns from it.
    `deduplicate` drops documents that repeat earlier ones, of this source or of one above it; `decontaminate` drops
    those that hold a question of a benchmark.
    text, question, answer, input and messages name columns. A chat is a list of {role, content} in the column
    `messages`, or a pair of question (with an `input`, if it has one) and answer; `template` is Jinja, in place of the
    tokenizer's chat template. Of an exam the right letter is learned, or its option's text (`answer_as`), with the
    explanation or without (`target`). `answer_weight` is what a token of an exam's answer weighs in the loss, where
    one of the explanation weighs 1.
    What an explanation teaches is seen beside wrong and shorter ones: `shuffle_explanations` is a seed by which each
    question gets the explanation of another; `explanation_share` is how much of each is kept, from its first character
    on. Questions, answers and their split into parts stay as they are.
    """

    path: Annotated[str, Field(min_length=1)]
    format: Literal["text", "qa", "exam", "chat"]
    subset: str | None = None
    split: str = "train"
    text: str = "text"
    question: str = "question"
    answer: str = "answer"
    input: str | None = None
    messages: str | None = None
    template: str | None = None
    target: Literal["answer", "answer_then_explanation", "explanation_then_answer"] = "answer"
    answer_as: Literal["letter", "text"] = "letter"
    answer_weight: Positive = 1.0
    shuffle_explanations: Seed | None = None
    explanation_share: Annotated[float, Field(gt=0, le=1)] = 1.0
    heldout: Share = 0.05
    fisher: Share = 0.05
    base_only: bool = False
    deduplicate: bool = False
    decontaminate: bool = False

    @model_validator(mode="after")
    def _shares(self) -> "SourceConfig":
        if self.heldout + self.fisher >= 1:
            raise ValueError("heldout and fisher together leave nothing to train on: their sum must be less than 1")
        only_defaults(self, ("target", "answer_as", *OF_EXPLANATIONS), self.format != "exam", "is for the format exam")
        only_defaults(self, ("input", "messages", "template"), self.format != "chat", "is for the format chat")
        only_defaults(self, OF_EXPLANATIONS, self.target == "answer", "needs a target with an explanation")
        only_defaults(
            self, ("question", "answer", "input"), self.messages is not None, "is not read where `messages` is"
        )
        return self
