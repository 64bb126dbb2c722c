"""What a model has to beat: no learning at all, words without order, and a general lexicon."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from finsent.labels import LABEL2ID, LABELS

Ids = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


def majority(train_labels: Ids, rows: int) -> Floats:
    """The shares of the training labels everywhere, so that the most frequent one is predicted.

    Returns:
        Probabilities, shape (rows, labels).
    """
    counts = np.bincount(train_labels, minlength=len(LABELS))
    return np.tile(counts / counts.sum(), (rows, 1))


def tfidf(train_texts: list[str], train_labels: Ids, texts: list[str]) -> Floats:
    """TF-IDF of words and word pairs with logistic regression, by scikit-learn.

    Returns:
        Probabilities, shape (texts, labels); 0 for a label without training rows.
    """
    # scikit-learn: 1.3 s; evaluate.baselines=false does without.
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    if len(np.unique(train_labels)) < 2:
        return majority(train_labels, len(texts))
    model = make_pipeline(
        TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True),
        LogisticRegression(C=10, max_iter=1000, class_weight="balanced", random_state=0),
    )
    model.fit(train_texts, train_labels)
    found = np.zeros((len(texts), len(LABELS)))
    found[:, model.classes_] = model.predict_proba(texts)
    return found


def vader(texts: list[str]) -> Floats:
    """VADER (Hutto & Gilbert 2014), a lexicon with rules for general English, by its authors.

    Labeled as they do: positive from a compound score of 0.05 on, negative from -0.05 down.

    Returns:
        1 for the label, 0 for the others, as it gives no probabilities; shape (texts, labels).
    """
    # Imported by its baseline alone, as scikit-learn is.
    from vaderSentiment.vaderSentiment import SentimentIntensityAnalyzer

    score = SentimentIntensityAnalyzer().polarity_scores
    found = np.zeros((len(texts), len(LABELS)))
    for row, text in enumerate(texts):
        compound = score(text)["compound"]
        label = "neutral" if abs(compound) < 0.05 else "positive" if compound > 0 else "negative"
        found[row, LABEL2ID[label]] = 1.0
    return found
