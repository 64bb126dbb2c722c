"""Baselines: the majority label, TF-IDF with logistic regression, and the lexicon VADER."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from finsent.labels import LABEL2ID, LABELS

Ids = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


def majority(train_labels: Ids, rows: int) -> Floats:
    """Predict the shares of the training labels for each row, so the most frequent label wins.

    Returns:
        Probabilities, shape (rows, labels).
    """
    counts = np.bincount(train_labels, minlength=len(LABELS))
    return np.tile(counts / counts.sum(), (rows, 1))


def tfidf(train_texts: list[str], train_labels: Ids, texts: list[str]) -> Floats:
    """Predict by TF-IDF of words and word pairs with logistic regression, by scikit-learn.

    Returns:
        Probabilities, shape (texts, labels); 0 for a label without training rows.
    """
    # scikit-learn: 1.3 s; evaluate.baselines=false does without.
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from threadpoolctl import threadpool_limits

    if len(np.unique(train_labels)) < 2:
        return majority(train_labels, len(texts))
    model = make_pipeline(
        TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True),
        LogisticRegression(C=10, max_iter=1000, class_weight="balanced", random_state=0),
    )
    with threadpool_limits(1):  # more threads only wait for each other: the features are sparse
        model.fit(train_texts, train_labels)
    probabilities = np.zeros((len(texts), len(LABELS)))
    probabilities[:, model.classes_] = model.predict_proba(texts)
    return probabilities


def vader(texts: list[str]) -> Floats:
    """Predict by VADER (Hutto & Gilbert 2014), a lexicon with rules for general English.

    By its authors' thresholds: positive from a compound score of 0.05, negative from -0.05 down.

    Returns:
        1 for the label, 0 for the others, as VADER has no probabilities; shape (texts, labels).
    """
    # Imported by its baseline alone, as scikit-learn is.
    from vaderSentiment.vaderSentiment import SentimentIntensityAnalyzer

    score = SentimentIntensityAnalyzer().polarity_scores
    probabilities = np.zeros((len(texts), len(LABELS)))
    for row, text in enumerate(texts):
        compound = score(text)["compound"]
        label = "neutral" if abs(compound) < 0.05 else "positive" if compound > 0 else "negative"
        probabilities[row, LABEL2ID[label]] = 1.0
    return probabilities
