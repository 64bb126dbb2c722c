"""What a model has to beat: no learning at all, and words without order."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from finsent.labels import LABELS

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
