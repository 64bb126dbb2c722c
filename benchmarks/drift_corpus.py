"""Predictions with a known truth for the benchmark of drift: features of the sample corpus."""

from __future__ import annotations

import csv
import re
from collections import Counter
from dataclasses import dataclass
from importlib.resources import files
from zlib import crc32

import numpy as np

from finsent.labels import LABELS
from finsent.monitoring.ranks import Floats, Ints
from finsent.monitoring.rows import Rows

HASHED, DIMENSIONS = 512, 24
ABSTENTION = 0.55  # confidence below which a simulated model abstains
TOPIC = re.compile(
    r"\b(bank|banks|lender|insurer|insurance|loan|loans|fund|broker|securities)\b", re.I
)
LANGUAGES = {"en": 0.95, "de": 0.03, "fi": 0.02}
SOURCES = {"wire": 0.5, "web": 0.3, "mail": 0.2}


@dataclass(frozen=True)
class Corpus:
    """Texts as a population: a stream without drift draws its rows with equal probability."""

    rows: Rows
    labels: Ints
    is_topic: Ints  # 1: the text is about banks, insurers or funds

    def draw(self, random: np.random.Generator, shape: tuple[int, int]) -> Ints:
        """Return row numbers without drift."""
        return random.integers(0, self.rows.count, shape)

    def draw_labels(self, random: np.random.Generator, mix: Floats, shape: tuple[int, int]) -> Ints:
        """Return row numbers after a shift of the label mix: texts within a label do not change."""
        weights = mix[self.labels] / np.bincount(self.labels)[self.labels]
        return random.choice(self.rows.count, shape, p=weights / weights.sum())

    def draw_topic(self, random: np.random.Generator, share: float, shape: tuple[int, int]) -> Ints:
        """Return row numbers of which a share is about the topic, with the label mix as before."""
        within = np.bincount(self.labels, minlength=len(LABELS)) / len(self.labels)
        weights = np.zeros(len(self.labels))
        for label in range(len(LABELS)):
            for topic, topic_share in ((1, share), (0, 1 - share)):
                members = (self.labels == label) & (self.is_topic == topic)
                weights[members] = within[label] * topic_share / members.sum()
        return random.choice(self.rows.count, shape, p=weights / weights.sum())

    def mix(self) -> Floats:
        """Return the label mix without drift."""
        return np.bincount(self.labels, minlength=len(LABELS)) / len(self.labels)


def read_corpus(seed: int) -> Corpus:
    """Return the sample corpus with simulated confidences, languages and source tags."""
    with (files("finsent.data.sample") / "sentences.csv").open(encoding="utf-8") as file:
        records = list(csv.DictReader(file))
    texts = [record["Sentence"] for record in records]
    labels = np.array([LABELS.index(record["Sentiment"]) for record in records])
    words = [re.findall(r"\w+", text.lower()) for text in texts]
    frequency = Counter(word for row in words for word in set(row))
    unknown = [sum(frequency[word] == 1 for word in row) / len(row) for row in words]
    random = np.random.default_rng(seed)
    confidence = random.beta(np.array([5, 9, 6])[labels], 2)
    count = len(texts)
    rows = Rows(
        count,
        {
            "label": [LABELS[label] for label in labels],
            "abstained": [str(value < ABSTENTION) for value in confidence],
            "source": list(random.choice(list(SOURCES), count, p=list(SOURCES.values()))),
            "language": list(random.choice(list(LANGUAGES), count, p=list(LANGUAGES.values()))),
        },
        {
            "confidence": confidence,
            "length": np.array([float(len(text)) for text in texts]),
            "unknown": np.array(unknown),
        },
        embeddings(words, seed),
        [str(number) for number in range(count)],
    )
    is_topic = np.array([int(bool(TOPIC.search(text))) for text in texts])
    return Corpus(rows, labels, is_topic)


def embeddings(words: list[list[str]], seed: int) -> Floats:
    """Return hashed bags of words, projected to few dimensions, with length 1."""
    table = np.zeros((len(words), HASHED))
    for row, bag in enumerate(words):
        for word in set(bag):
            table[row, crc32(word.encode()) % HASHED] += 1
    table *= np.log(len(words) / (1 + (table > 0).sum(0)))
    projected = table @ np.random.default_rng(seed).normal(size=(HASHED, DIMENSIONS))
    return np.asarray(projected / np.maximum(np.linalg.norm(projected, axis=1), 1e-9)[:, None])
