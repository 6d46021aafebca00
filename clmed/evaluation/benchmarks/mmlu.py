"""MMLU (Hendrycks et al., 2021, arXiv 2009.03300).

A folder {dev,test}/<subject>_{dev,test}.csv without header: question, four options, letter. On the hub: subset `all`
with the columns question, choices, answer (an index), subject. Asked as its authors do; the average is over questions.
"""

import string
from collections.abc import Mapping

from clmed.data.templates import option_lines
from clmed.evaluation.benchmarks.exam import Exam, Item, Record, as_text, right_letters
from clmed.evaluation.tables import Layout

# As in the authors' categories.py; other tools sort some subjects differently (one counts anatomy as STEM).
CATEGORIES: Mapping[str, str] = {
    "STEM": """
        abstract_algebra astronomy college_biology college_chemistry college_computer_science college_mathematics
        college_physics computer_security conceptual_physics electrical_engineering elementary_mathematics
        high_school_biology high_school_chemistry high_school_computer_science high_school_mathematics
        high_school_physics high_school_statistics machine_learning""",
    "humanities": """
        formal_logic high_school_european_history high_school_us_history high_school_world_history international_law
        jurisprudence logical_fallacies moral_disputes moral_scenarios philosophy prehistory professional_law
        world_religions""",
    "social sciences": """
        econometrics high_school_geography high_school_government_and_politics high_school_macroeconomics
        high_school_microeconomics high_school_psychology human_sexuality professional_psychology public_relations
        security_studies sociology us_foreign_policy""",
    "other": """
        anatomy business_ethics clinical_knowledge college_medicine global_facts human_aging management marketing
        medical_genetics miscellaneous nutrition professional_accounting professional_medicine virology""",
}
# The subjects that are medicine, which a medical domain must not hide among the others.
HEALTH = """
    anatomy clinical_knowledge college_medicine human_aging medical_genetics nutrition professional_medicine
    virology"""


def categories(subject: str) -> tuple[str, ...]:
    """The subject's category, and whether it is health; nothing for a subject that the authors do not know."""
    found = tuple(category for category, subjects in CATEGORIES.items() if subject in subjects.split())
    return (*found, "health" if subject in HEALTH.split() else "non-health") if found else ()


def parse(record: Record) -> Item:
    options = dict(zip(string.ascii_uppercase, map(as_text, record["choices"]), strict=False))
    return Item(stem=as_text(record["question"]), options=options, answer=right_letters(record["answer"], options))


MMLU = Exam(
    name="mmlu",
    summary="57 subjects from school to professions, English, four options",
    source="Hendrycks et al. 2021, arXiv 2009.03300",
    layout=Layout(
        columns=("question", "choices", "answer", "subject"),
        hub="cais/mmlu",
        subset="all",
        subject="subject",
        splits={"test": "test", "dev": "dev"},
        folder="{split}/*_{split}.csv",
        cells=("question", ("choices", 4), "answer"),
    ),
    parse=parse,
    header=lambda subject: (
        f"The following are multiple choice questions (with answers) about {subject.replace('_', ' ')}.\n\n"
    ),
    by_letter=lambda question: f"{question.stem}\n{option_lines(question.options)}Answer:",
    categories=categories,
)
