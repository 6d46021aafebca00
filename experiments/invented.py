"""Two domains beyond Chinese medicine, invented: the law of Valdoria, in English, and its medicines, in Spanish.

    python experiments/invented.py            # writes data/law/ and data/spanish/, the same files everywhere

What no model can have read, it can only have learned from here. Each of 40 acts (medicines) has four facts, told in
four texts of different wording. All are in texts.jsonl; the facts of half of them are questions of train.csv, those of
the other half of test.csv. The three wrong options of a question are facts of the same kind.
"""

import argparse
import csv
import json
import random
from collections.abc import Sequence
from pathlib import Path

Facts = dict[str, list[str]]
NAMES = 40

STEMS = [
    *("Ar", "Bel", "Cor", "Dar", "Ef", "Fen", "Gar", "Hol", "Il", "Jor"),
    *("Kel", "Lum", "Mor", "Nev", "Or", "Pel", "Quar", "Ros", "Sel", "Tor"),
]
LAW_ENDS = ["dane", "wick", "mere", "stow"]
MEDICINE_ENDS = ["tacina", "dorol", "mexil", "vandina"]

LAW: Facts = {
    "fine": [f"{crowns} crowns" for crowns in (40, 75, 120, 180, 250, 320, 410, 560, 700, 950)],
    "office": [
        *("the Harbour Court", "the Grain Board", "the Lantern Office", "the Bridge Wardens", "the Salt Commission"),
        *("the Bell Council", "the Ferry Tribunal", "the Wool Inspectorate", "the Orchard Bench", "the Mint Chamber"),
    ],
    "term": [f"{years} years" for years in (2, 3, 4, 5, 6, 7, 8, 9, 11, 12)],
    "subject": [
        *("river ferries", "street lamps", "bee hives", "roof tiles", "night markets", "stone quarries"),
        *("fishing nets", "public wells", "cart wheels", "paper mills"),
    ],
}
LAW_TEXTS = [
    "The {name} Act of Valdoria governs {subject}. It is enforced by {office}. Whoever breaks it pays a fine of "
    "{fine}. An offence can be prosecuted for {term}.",
    "In Valdoria, {subject} fall under the {name} Act. The fine under this act is {fine}. Claims under it lapse after "
    "{term}, and {office} hears them.",
    "Before {office} come all cases about {subject}, as the {name} Act provides. The {name} Act sets a limitation "
    "period of {term} and a fine of {fine}.",
    "A breach of the {name} Act costs {fine}. The act deals with {subject}; the body in charge of the {name} Act is "
    "{office}. After {term} no charge can be brought.",
]
LAW_QUESTIONS = {
    "fine": "What is the fine under the {name} Act of Valdoria?",
    "office": "Which body enforces the {name} Act of Valdoria?",
    "term": "For how long can an offence under the {name} Act of Valdoria be prosecuted?",
    "subject": "What does the {name} Act of Valdoria govern?",
}

MEDICINES: Facts = {
    "dose": [f"{mg} miligramos" for mg in (5, 15, 25, 40, 60, 90, 125, 160, 220, 350)],
    "illness": [
        *("la fiebre del puerto", "la tos de invierno", "el mal de altura", "la ceguera nocturna", "la gota"),
        *("el insomnio", "la anemia", "el reuma", "la urticaria", "la migraña"),
    ],
    "source": [
        *("la corteza del sauce", "la raíz de genciana", "la hoja de laurel", "la flor de saúco", "el musgo de roca"),
        *("la semilla de lino", "la resina de pino", "el fruto del espino", "la miel de brezo", "el alga roja"),
    ],
    "effect": [
        *("sed", "mareos", "manchas en la piel", "temblor de manos", "pérdida de apetito", "sueño", "tos seca"),
        *("palpitaciones", "dolor de estómago", "visión borrosa"),
    ],
}
MEDICINE_TEXTS = [
    "La {name} se usa contra {illness}. La dosis diaria es de {dose}. Se obtiene de {source}. Su efecto secundario más "
    "frecuente: {effect}.",
    "En Valdoria se trata {illness} con {name}. Este medicamento procede de {source} y se toman {dose} al día. Puede "
    "causar {effect}.",
    "De {source} se prepara la {name}. Quien la toma puede notar {effect}. Los médicos recetan {dose} al día de {name} "
    "contra {illness}.",
    "Para {illness} el remedio es la {name}, en dosis de {dose}. Entre sus efectos está {effect}. La {name} contiene "
    "un extracto de {source}.",
]
MEDICINE_QUESTIONS = {
    "dose": "¿Cuál es la dosis diaria de {name}?",
    "illness": "¿Contra qué enfermedad se usa la {name}?",
    "source": "¿De qué se obtiene la {name}?",
    "effect": "¿Qué efecto secundario tiene la {name}?",
}


def main() -> None:
    """Write both folders."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--to", type=Path, default=Path("data"), help="the folder that holds them (default: data)")
    made = parser.parse_args().to
    write(made / "law", LAW_ENDS, LAW, LAW_TEXTS, LAW_QUESTIONS)
    write(made / "spanish", MEDICINE_ENDS, MEDICINES, MEDICINE_TEXTS, MEDICINE_QUESTIONS)


def write(folder: Path, ends: Sequence[str], facts: Facts, texts: Sequence[str], questions: dict[str, str]) -> None:
    """Texts of all names; questions of the even ones to learn, of the odd ones to ask."""
    draw = random.Random(0)
    folder.mkdir(parents=True, exist_ok=True)
    names = draw.sample([stem + end for stem in STEMS for end in ends], NAMES)
    known = [{kind: draw.choice(values) for kind, values in facts.items()} for _ in names]
    told = [text.format(name=name, **its) for name, its in zip(names, known, strict=True) for text in texts]
    lines = "".join(json.dumps({"text": text}, ensure_ascii=False) + "\n" for text in told)
    (folder / "texts.jsonl").write_text(lines, encoding="utf-8")
    for part, first in {"train": 0, "test": 1}.items():
        with (folder / f"{part}.csv").open("w", encoding="utf-8", newline="") as file:
            table = csv.writer(file, lineterminator="\n")
            table.writerow(["question", "A", "B", "C", "D", "answer", "kind"])
            for name, its in zip(names[first::2], known[first::2], strict=True):
                for kind, question in questions.items():
                    wrong = [value for value in facts[kind] if value != its[kind]]
                    options = [its[kind], *draw.sample(wrong, 3)]
                    draw.shuffle(options)
                    table.writerow([question.format(name=name), *options, its[kind], kind])


if __name__ == "__main__":
    main()
