"""The manifests of cluster/kubernetes, as kustomize renders each overlay.

A server drops unknown fields without a word, so every field is looked up here.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from ray.serve.schema import ServeDeploySchema

from finsent.config import load
from ray_jobs._arguments import config_files, parse_arguments
from ray_jobs._settings import JobSettings
from serve_app.settings import load_service
from tests import kuberay
from tests.commands import PROJECT, job_named
from tests.unit.test_serve_config import names

pytestmark = pytest.mark.unit

KUBERNETES = PROJECT / "cluster" / "kubernetes"
OVERLAYS = sorted(path.name for path in (KUBERNETES / "overlays").iterdir())
JOBS = ["pipeline", "predict", "sweep", "train"]
KUEUE = "kueue.x-k8s.io/v1beta1"
SETTINGS = "/etc/finsent/settings.yaml"  # where pods mount the ConfigMap
CLUSTER_FIELDS = {
    "RayCluster": (),
    "RayJob": ("rayClusterSpec",),
    "RayService": ("rayClusterConfig",),
}
POOL = {"finsent.io/pool": "cpu"}  # label of the machines that serve
Manifest = dict[str, Any]


@cache
def render(overlay: str) -> tuple[Manifest, ...]:
    """Return the manifests of an overlay."""
    kubectl = shutil.which("kubectl")
    if kubectl is None:
        reason = "kubectl is not installed. Run .ci/programs kubectl."
        if "CI" in os.environ:
            pytest.fail(reason)
        pytest.skip(reason)
    command = [kubectl, "kustomize", str(KUBERNETES / "overlays" / overlay)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    assert not done.stderr  # warnings of deprecated fields
    return tuple(yaml.safe_load_all(done.stdout))


def of_kind(overlay: str, kind: str) -> list[Manifest]:
    return [manifest for manifest in render(overlay) if manifest["kind"] == kind]


def clusters(overlay: str) -> Iterator[tuple[Manifest, Manifest]]:
    """Yield each manifest of Ray, and the specification of its cluster."""
    for kind, path in CLUSTER_FIELDS.items():
        for manifest in of_kind(overlay, kind):
            spec = manifest["spec"]
            for key in path:
                spec = spec[key]
            yield manifest, spec


def groups(cluster: Manifest) -> list[Manifest]:
    return [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]


def pods(overlay: str) -> Iterator[Manifest]:
    """Yield the specification of each pod."""
    for manifest, cluster in clusters(overlay):
        yield from (group["template"]["spec"] for group in groups(cluster))
        if manifest["kind"] == "RayJob":
            yield manifest["spec"]["submitterPodTemplate"]["spec"]


def cpu_limit(group: Manifest) -> int:
    [container] = group["template"]["spec"]["containers"]
    return int(container["resources"]["limits"]["cpu"])


def settings_file(overlay: str, directory: Path) -> Path:
    """Write the settings that an overlay's pods mount."""
    [settings] = of_kind(overlay, "ConfigMap")
    path = directory / "settings.yaml"
    path.write_text(settings["data"]["settings.yaml"], encoding="utf-8")
    return path


def parse_entrypoint(job: Manifest, settings: Path) -> JobSettings:
    """Return the settings of a RayJob, read as its job reads them."""
    python, flag, module, *arguments = shlex.split(job["spec"]["entrypoint"])
    assert (python, flag) == ("python", "-m")
    package, _, name = module.partition(".")
    assert package == "ray_jobs"
    declared = job_named(name)
    parsed = parse_arguments(declared, [str(settings) if a == SETTINGS else a for a in arguments])
    assert not parsed.positional
    files = config_files(declared, parsed)
    assert all(path.is_file() for path in files), files
    return load(declared.settings, files, parsed.overrides)


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_all_fields_are_known(overlay: str) -> None:
    for manifest in render(overlay):
        name = f"{manifest['kind']} {manifest['metadata']['name']}"
        if manifest["apiVersion"] == "ray.io/v1":
            assert not [*kuberay.problems(manifest)], name
        elif manifest["apiVersion"] == KUEUE:
            assert manifest["kind"] in {"ResourceFlavor", "ClusterQueue", "LocalQueue"}, name
        else:
            kubernetes_validate.validate(
                manifest, kubernetes_validate.latest_version(), strict=True
            )


def test_an_unknown_field_is_a_problem() -> None:
    [service] = of_kind("dev", "RayService")
    cluster = {**service["spec"]["rayClusterConfig"], "networkIsolation": {}}
    changed = {**service, "spec": {**service["spec"], "rayClusterConfig": cluster}}
    [problem] = kuberay.problems(changed)
    assert "networkIsolation" in problem


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_jobs_parse_their_command_lines(overlay: str, tmp_path: Path) -> None:
    settings = settings_file(overlay, tmp_path)
    jobs = of_kind(overlay, "RayJob")
    assert sorted(job["metadata"]["name"] for job in jobs) == [f"finsent-{name}" for name in JOBS]
    for job in jobs:
        name = job["metadata"]["name"].removeprefix("finsent-")
        assert f"ray_jobs.{name} " in job["spec"]["entrypoint"]
        assert job["metadata"]["labels"]["app.kubernetes.io/component"] == name
        assert job_named(name).resumes
        parsed = parse_entrypoint(job, settings)
        # A retry has another cluster. It resumes the run by its name.
        assert parsed.run.name == f"{name}-1"
        assert job["spec"]["backoffLimit"] == 3
        assert str(parsed.workspace.root) == "/mnt/finsent"
        assert parsed.predict.input or name != "predict"


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_jobs_have_the_gpus_that_their_settings_request(overlay: str, tmp_path: Path) -> None:
    settings = settings_file(overlay, tmp_path)
    for job in of_kind(overlay, "RayJob"):
        train = parse_entrypoint(job, settings).train
        gpus = sum(
            group["replicas"]
            for group in job["spec"]["rayClusterSpec"]["workerGroupSpecs"]
            if group["labels"]["finsent.io/pool"] == "gpu"
        )
        if train.use_gpu == "yes":
            is_sweep = job["metadata"]["name"] == "finsent-sweep"  # its trials share the GPUs
            assert train.num_workers == (1 if is_sweep else gpus)
        else:
            assert overlay == "dev"
            assert gpus == 0


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_pods_have_the_cpus_that_the_settings_request(overlay: str, tmp_path: Path) -> None:
    """Ray counts a pod's limit. A process sees all CPUs of its machine."""
    settings = settings_file(overlay, tmp_path)
    for job in of_kind(overlay, "RayJob"):
        train = parse_entrypoint(job, settings).train
        workers = job["spec"]["rayClusterSpec"]["workerGroupSpecs"]
        cpus = sum(group["replicas"] * cpu_limit(group) for group in workers)
        assert cpus >= train.min_workers * train.cpus_per_worker + 1  # one for Ray Data
    [service] = of_kind(overlay, "RayService")
    [group] = service["spec"]["rayClusterConfig"]["workerGroupSpecs"]
    loaded = load_service([str(settings)], [])
    assert loaded.engine.threads == loaded.serve.num_cpus == cpu_limit(group)
    assert loaded.serve.min_replicas == group["minReplicas"]
    assert loaded.serve.max_replicas <= group["maxReplicas"]


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_the_operator_accepts_the_jobs(overlay: str) -> None:
    """Rules of KubeRay and Kueue that no schema has."""
    for job in of_kind(overlay, "RayJob"):
        spec = job["spec"]
        rules = spec.get("deletionStrategy", {}).get("deletionRules", [])
        assert bool(rules) != spec.get("shutdownAfterJobFinishes", False)
        if rules:
            conditions = [rule["condition"] for rule in rules]
            assert {c.get("jobStatus") for c in conditions} >= {"SUCCEEDED", "FAILED"}
            assert "Failed" in {c.get("jobDeploymentStatus") for c in conditions}
        queued = "kueue.x-k8s.io/queue-name" in job["metadata"]["labels"]
        assert not queued or spec["shutdownAfterJobFinishes"]
        assert spec["preRunningDeadlineSeconds"] < spec["activeDeadlineSeconds"]
        assert not spec["rayClusterSpec"]["enableInTreeAutoscaling"]


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_serve_knows_all_keys_and_builds_the_settings(overlay: str, tmp_path: Path) -> None:
    [service] = of_kind(overlay, "RayService")
    written = yaml.safe_load(service["spec"]["serveConfigV2"])
    parsed = ServeDeploySchema.model_validate(written).model_dump(warnings=False)
    labels = {f".applications.deployments.ray_actor_options.label_selector.{key}" for key in POOL}
    assert names(written) - labels <= names(parsed)
    [application] = written["applications"]
    assert application["import_path"] == "serve_app.graph:app"
    assert application["args"] == {"config": SETTINGS}
    settings = load_service([str(settings_file(overlay, tmp_path))], [])
    assert str(settings.workspace.root) == "/mnt/finsent"
    gateway, shadow = application["deployments"]
    assert (gateway["name"], shadow["name"]) == ("Gateway", "Shadow")
    # These options take the place of those in serve_app/graph.py.
    assert gateway["ray_actor_options"] == {
        "num_cpus": settings.serve.num_cpus,
        "label_selector": POOL,
    }
    assert shadow["ray_actor_options"] == {"num_cpus": 0, "label_selector": POOL}
    assert (
        not settings.serve.record and not settings.serve.explainers
    )  # no deployments of their own
    [group] = service["spec"]["rayClusterConfig"]["workerGroupSpecs"]
    assert group["labels"] == POOL
    if keys := settings.serve.keys_file:
        mounts = group["template"]["spec"]["containers"][0]["volumeMounts"]
        assert str(keys.parent) in {mount["mountPath"] for mount in mounts}


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_upgrades_of_the_service_lose_no_request(overlay: str) -> None:
    [service] = of_kind(overlay, "RayService")
    strategy, cluster = service["spec"]["upgradeStrategy"], service["spec"]["rayClusterConfig"]
    assert cluster["enableInTreeAutoscaling"]
    assert "externalStorageNamespace" not in cluster.get("gcsFaultToleranceOptions", {})
    if overlay == "dev":
        assert strategy == {"type": "NewCluster"}
    else:
        assert strategy["type"] == "NewClusterWithIncrementalUpgrade"
        options = strategy["clusterUpgradeOptions"]
        assert options["stepSizePercent"] <= options["maxSurgePercent"]
    assert ("gcsFaultToleranceOptions" in cluster) == (overlay == "prod")


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_clusters_ask_for_the_token_and_run_the_tested_ray(overlay: str) -> None:
    project = (PROJECT / "pyproject.toml").read_text(encoding="utf-8")
    for _, cluster in clusters(overlay):
        assert f"]=={cluster['rayVersion']}" in project
        assert cluster["authOptions"] == {"mode": "token", "secretName": "finsent-ray-auth"}
        assert cluster["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"
        if cluster["enableInTreeAutoscaling"]:
            assert cluster["autoscalerOptions"]["version"] == "v2"
        assert ("networkPolicy" in cluster) == (overlay == "prod")
    assert not of_kind(overlay, "Secret")


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_pods_are_restricted_and_write_to_volumes_only(overlay: str) -> None:
    settings = of_kind(overlay, "ConfigMap")[0]["metadata"]["name"]
    claims = {claim["metadata"]["name"] for claim in of_kind(overlay, "PersistentVolumeClaim")}
    [claim] = of_kind(overlay, "PersistentVolumeClaim")
    assert claim["spec"]["accessModes"] == ["ReadWriteMany"]
    for pod in pods(overlay):
        assert pod["restartPolicy"] == "Never"
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        volumes = {volume["name"]: volume for volume in pod["volumes"]}
        for volume in pod["volumes"]:
            assert volume.get("configMap", {"name": settings})["name"] == settings
            claim_name = volume.get("persistentVolumeClaim", {}).get("claimName")
            assert claim_name is None or claim_name in claims
        [container] = pod["containers"]
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert container["resources"]["requests"].keys() >= {"cpu", "memory"}
        assert "memory" in container["resources"]["limits"]
        mounts = {mount["mountPath"]: volumes[mount["name"]] for mount in container["volumeMounts"]}
        assert "emptyDir" in mounts["/tmp"]
        [home] = [entry["value"] for entry in container["env"] if entry["name"] == "HOME"]
        assert "emptyDir" in mounts[home]
        if container["name"] != "ray-job-submitter":
            assert "emptyDir" in mounts["/tmp/ray"]
            assert "persistentVolumeClaim" in mounts["/mnt/finsent"]
            assert "configMap" in mounts[str(Path(SETTINGS).parent)]
            assert container.keys() >= {"startupProbe", "readinessProbe", "livenessProbe"}


def test_only_named_peers_connect() -> None:
    """KubeRay lets in the pods of the same cluster. All others, the operator too, need a rule."""
    for _, cluster in clusters("prod"):
        policy = cluster["networkPolicy"]
        assert policy["mode"] == "DenyAllIngress"
        head, worker = (policy[node]["ingressRules"] for node in ("head", "worker"))
        assert all(rule["from"] and rule["ports"] for rule in head + worker)
        assert {port["port"] for rule in head for port in rule["ports"]} == {8000, 8080, 8265}
        assert {port["port"] for rule in worker for port in rule["ports"]} == {8000, 8080}


@pytest.mark.parametrize("overlay", ["gpu", "prod"])
def test_images_are_pinned_by_digest_and_gpus_are_for_training(overlay: str) -> None:
    for pod in pods(overlay):
        [container] = pod["containers"]
        repository, _, digest = container["image"].partition("@")
        assert digest.startswith("sha256:")
        has_gpu = "nvidia.com/gpu" in container["resources"]["limits"]
        assert has_gpu == repository.endswith("/finsent-gpu")
        assert has_gpu == bool(pod.get("tolerations"))


def test_the_queue_and_the_disruption_budget_select_what_exists() -> None:
    [queue], [cluster_queue] = of_kind("prod", "LocalQueue"), of_kind("prod", "ClusterQueue")
    [flavor], [budget] = of_kind("prod", "ResourceFlavor"), of_kind("prod", "PodDisruptionBudget")
    for job in of_kind("prod", "RayJob"):
        label = job["metadata"]["labels"]["kueue.x-k8s.io/queue-name"]
        assert (label, job["metadata"]["namespace"]) == (
            queue["metadata"]["name"],
            queue["metadata"]["namespace"],
        )
    assert queue["spec"] == {"clusterQueue": cluster_queue["metadata"]["name"]}
    [group] = cluster_queue["spec"]["resourceGroups"]
    assert [entry["name"] for entry in group["flavors"]] == [flavor["metadata"]["name"]]
    for manifest in (cluster_queue, flavor):
        assert "namespace" not in manifest["metadata"]  # they belong to the whole cluster
    [service] = of_kind("prod", "RayService")
    [workers] = service["spec"]["rayClusterConfig"]["workerGroupSpecs"]
    selected = budget["spec"]["selector"]["matchLabels"]
    assert selected.items() <= workers["template"]["metadata"]["labels"].items()
    for manifest, cluster in clusters("prod"):
        for group in groups(cluster):
            if manifest["kind"] != "RayService":
                assert not selected.items() <= group["template"]["metadata"]["labels"].items()


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_each_manifest_belongs_to_a_component(overlay: str) -> None:
    """`kubectl apply -l app.kubernetes.io/component=...` selects what is applied."""
    components = {m["metadata"]["labels"]["app.kubernetes.io/component"] for m in render(overlay)}
    assert components == {"storage", "cluster", "service", *JOBS}
