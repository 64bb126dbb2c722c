"""What a model has to beat: no learning at all, and words without order."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Ids = npt.NDArray[np.int64]


def majority(train_labels: Ids, rows: int) -> Ids:
    """Predict the most frequent training label everywhere."""
    return np.full(rows, np.bincount(train_labels).argmax(), np.int64)


def tfidf(train_texts: list[str], train_labels: Ids, texts: list[str]) -> Ids:
    """TF-IDF of words and word pairs with logistic regression, by scikit-learn."""
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
    predicted: Ids = model.predict(texts).astype(np.int64)
    return predicted
