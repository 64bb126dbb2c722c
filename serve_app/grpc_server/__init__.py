"""The gRPC API: `add_to_server` adds the operations to a server, with unparsed messages."""

from __future__ import annotations

import logging
import os
from typing import Any

import grpc

from serve_app.config import LimitsConfig
from serve_app.proto import sentiment_pb2 as pb

log = logging.getLogger("ray.serve")

# Serve's processes read this variable at import. gRPC then refuses a large message by its first
# five bytes, before the message takes memory. Without the variable the limit is 2 GiB.
SIZE_VARIABLE = "RAY_SERVE_GRPC_MAX_MESSAGE_SIZE"
_BYTES_PER_ANSWER = 512  # probabilities, logits and a version, or a problem
_BYTES_PER_CHARACTER = 8  # an explanation has the text twice in UTF-8: complete, and by words


def add_to_server(servicer: Any, server: Any) -> None:
    """Add the service to a server, as `add_SentimentServicer_to_server` does, with raw messages.

    The generated function would parse a message before the servicer checks the key of the call.
    Here the servicer gets bytes.
    """
    if SIZE_VARIABLE not in os.environ:
        log.warning(
            "%s is not set: gRPC reads messages of up to 2 GiB into memory. Set it to a number of "
            "bytes.",
            SIZE_VARIABLE,
        )
    service = pb.DESCRIPTOR.services_by_name["Sentiment"]
    handlers = {
        method.name: grpc.unary_unary_rpc_method_handler(
            getattr(servicer, method.name),
            response_serializer=lambda message: message.SerializeToString(),
        )
        for method in service.methods
    }
    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler(service.full_name, handlers),)
    )


def size_limit(limits: LimitsConfig) -> dict[str, str]:
    """Return the environment of Serve's processes that limits the size of messages.

    Requests have at most `limits.body_bytes`. gRPC has one limit for both directions, and the
    largest answer must fit into it, too.
    """
    answers = limits.texts * _BYTES_PER_ANSWER
    words = limits.explain_words * _BYTES_PER_ANSWER
    explanation = limits.characters * _BYTES_PER_CHARACTER + words
    return {SIZE_VARIABLE: str(max(limits.body_bytes, answers, explanation))}
