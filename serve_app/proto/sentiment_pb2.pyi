from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Truncate(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    DEFAULT: _ClassVar[Truncate]
    RIGHT: _ClassVar[Truncate]
    LEFT: _ClassVar[Truncate]
    ERROR: _ClassVar[Truncate]

class Label(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    LABEL_UNSPECIFIED: _ClassVar[Label]
    NEGATIVE: _ClassVar[Label]
    NEUTRAL: _ClassVar[Label]
    POSITIVE: _ClassVar[Label]
DEFAULT: Truncate
RIGHT: Truncate
LEFT: Truncate
ERROR: Truncate
LABEL_UNSPECIFIED: Label
NEGATIVE: Label
NEUTRAL: Label
POSITIVE: Label

class Probabilities(_message.Message):
    __slots__ = ("negative", "neutral", "positive")
    NEGATIVE_FIELD_NUMBER: _ClassVar[int]
    NEUTRAL_FIELD_NUMBER: _ClassVar[int]
    POSITIVE_FIELD_NUMBER: _ClassVar[int]
    negative: float
    neutral: float
    positive: float
    def __init__(self, negative: _Optional[float] = ..., neutral: _Optional[float] = ..., positive: _Optional[float] = ...) -> None: ...

class PredictRequest(_message.Message):
    __slots__ = ("text", "raw_scores", "truncate", "source")
    TEXT_FIELD_NUMBER: _ClassVar[int]
    RAW_SCORES_FIELD_NUMBER: _ClassVar[int]
    TRUNCATE_FIELD_NUMBER: _ClassVar[int]
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    text: str
    raw_scores: bool
    truncate: Truncate
    source: str
    def __init__(self, text: _Optional[str] = ..., raw_scores: _Optional[bool] = ..., truncate: _Optional[_Union[Truncate, str]] = ..., source: _Optional[str] = ...) -> None: ...

class PredictListRequest(_message.Message):
    __slots__ = ("texts", "raw_scores", "truncate", "source")
    TEXTS_FIELD_NUMBER: _ClassVar[int]
    RAW_SCORES_FIELD_NUMBER: _ClassVar[int]
    TRUNCATE_FIELD_NUMBER: _ClassVar[int]
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    texts: _containers.RepeatedScalarFieldContainer[str]
    raw_scores: bool
    truncate: Truncate
    source: str
    def __init__(self, texts: _Optional[_Iterable[str]] = ..., raw_scores: _Optional[bool] = ..., truncate: _Optional[_Union[Truncate, str]] = ..., source: _Optional[str] = ...) -> None: ...

class Prediction(_message.Message):
    __slots__ = ("label", "score", "probabilities", "model_version", "abstained", "truncated", "raw_scores", "polarity", "calibration")
    LABEL_FIELD_NUMBER: _ClassVar[int]
    SCORE_FIELD_NUMBER: _ClassVar[int]
    PROBABILITIES_FIELD_NUMBER: _ClassVar[int]
    MODEL_VERSION_FIELD_NUMBER: _ClassVar[int]
    ABSTAINED_FIELD_NUMBER: _ClassVar[int]
    TRUNCATED_FIELD_NUMBER: _ClassVar[int]
    RAW_SCORES_FIELD_NUMBER: _ClassVar[int]
    POLARITY_FIELD_NUMBER: _ClassVar[int]
    CALIBRATION_FIELD_NUMBER: _ClassVar[int]
    label: Label
    score: float
    probabilities: Probabilities
    model_version: str
    abstained: bool
    truncated: bool
    raw_scores: Probabilities
    polarity: float
    calibration: str
    def __init__(self, label: _Optional[_Union[Label, str]] = ..., score: _Optional[float] = ..., probabilities: _Optional[_Union[Probabilities, _Mapping]] = ..., model_version: _Optional[str] = ..., abstained: _Optional[bool] = ..., truncated: _Optional[bool] = ..., raw_scores: _Optional[_Union[Probabilities, _Mapping]] = ..., polarity: _Optional[float] = ..., calibration: _Optional[str] = ...) -> None: ...

class Problem(_message.Message):
    __slots__ = ("code", "detail")
    CODE_FIELD_NUMBER: _ClassVar[int]
    DETAIL_FIELD_NUMBER: _ClassVar[int]
    code: str
    detail: str
    def __init__(self, code: _Optional[str] = ..., detail: _Optional[str] = ...) -> None: ...

class PredictResponse(_message.Message):
    __slots__ = ("prediction", "request_id")
    PREDICTION_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    prediction: Prediction
    request_id: str
    def __init__(self, prediction: _Optional[_Union[Prediction, _Mapping]] = ..., request_id: _Optional[str] = ...) -> None: ...

class PredictListResponse(_message.Message):
    __slots__ = ("items", "request_id")
    class Item(_message.Message):
        __slots__ = ("prediction", "problem")
        PREDICTION_FIELD_NUMBER: _ClassVar[int]
        PROBLEM_FIELD_NUMBER: _ClassVar[int]
        prediction: Prediction
        problem: Problem
        def __init__(self, prediction: _Optional[_Union[Prediction, _Mapping]] = ..., problem: _Optional[_Union[Problem, _Mapping]] = ...) -> None: ...
    ITEMS_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    items: _containers.RepeatedCompositeFieldContainer[PredictListResponse.Item]
    request_id: str
    def __init__(self, items: _Optional[_Iterable[_Union[PredictListResponse.Item, _Mapping]]] = ..., request_id: _Optional[str] = ...) -> None: ...

class ExplainRequest(_message.Message):
    __slots__ = ("text", "truncate", "source")
    TEXT_FIELD_NUMBER: _ClassVar[int]
    TRUNCATE_FIELD_NUMBER: _ClassVar[int]
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    text: str
    truncate: Truncate
    source: str
    def __init__(self, text: _Optional[str] = ..., truncate: _Optional[_Union[Truncate, str]] = ..., source: _Optional[str] = ...) -> None: ...

class Word(_message.Message):
    __slots__ = ("text", "start", "end", "attribution", "by_label")
    TEXT_FIELD_NUMBER: _ClassVar[int]
    START_FIELD_NUMBER: _ClassVar[int]
    END_FIELD_NUMBER: _ClassVar[int]
    ATTRIBUTION_FIELD_NUMBER: _ClassVar[int]
    BY_LABEL_FIELD_NUMBER: _ClassVar[int]
    text: str
    start: int
    end: int
    attribution: float
    by_label: Probabilities
    def __init__(self, text: _Optional[str] = ..., start: _Optional[int] = ..., end: _Optional[int] = ..., attribution: _Optional[float] = ..., by_label: _Optional[_Union[Probabilities, _Mapping]] = ...) -> None: ...

class ExplainResponse(_message.Message):
    __slots__ = ("prediction", "text", "words", "request_id")
    PREDICTION_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    WORDS_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    prediction: Prediction
    text: str
    words: _containers.RepeatedCompositeFieldContainer[Word]
    request_id: str
    def __init__(self, prediction: _Optional[_Union[Prediction, _Mapping]] = ..., text: _Optional[str] = ..., words: _Optional[_Iterable[_Union[Word, _Mapping]]] = ..., request_id: _Optional[str] = ...) -> None: ...

class InfoRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class InfoResponse(_message.Message):
    __slots__ = ("model_version", "json")
    MODEL_VERSION_FIELD_NUMBER: _ClassVar[int]
    JSON_FIELD_NUMBER: _ClassVar[int]
    model_version: str
    json: str
    def __init__(self, model_version: _Optional[str] = ..., json: _Optional[str] = ...) -> None: ...

class HealthRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class HealthResponse(_message.Message):
    __slots__ = ("status", "model_version")
    STATUS_FIELD_NUMBER: _ClassVar[int]
    MODEL_VERSION_FIELD_NUMBER: _ClassVar[int]
    status: str
    model_version: str
    def __init__(self, status: _Optional[str] = ..., model_version: _Optional[str] = ...) -> None: ...
