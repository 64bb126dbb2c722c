"""The choice of the topology by the GPUs of the cluster."""

from __future__ import annotations

import ray

from finsent.cluster import Cluster
from finsent.inference.config import EngineConfig
from serve_app.config import ServeConfig


def cluster_gpus() -> float:
    """Return the GPUs of the connected cluster; 0 if no cluster is connected."""
    return Cluster.connected().gpus if ray.is_initialized() else 0.0


def resolved(config: ServeConfig, gpus: float) -> ServeConfig:
    """Return settings with a topology other than `auto`, and a number of GPUs.

    Args:
        gpus: of the cluster.
    """
    topology = config.topology
    if topology == "auto":
        topology = "split" if gpus and config.num_gpus != 0 else "fused"
    num_gpus = config.num_gpus
    if num_gpus is None:
        num_gpus = 1.0 if topology == "split" and gpus else 0.0
    return config.replaced(topology=topology, num_gpus=num_gpus)


def for_gpus(engine: EngineConfig, config: ServeConfig) -> EngineConfig:
    """Return the settings of engines that compute on the GPUs of `serve.num_gpus`, if any.

    torch is the only backend for GPUs. The choice by measurement might prefer a CPU, which would
    leave a reserved GPU idle.
    """
    if config.num_gpus and engine.backend == "auto":
        return engine.replaced(backend="torch")
    return engine
