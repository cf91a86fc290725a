"""The manifests for Kubernetes cannot be run here: they are held against its schemas, and against the code."""

from __future__ import annotations

import re
import subprocess
from typing import Any

import pytest
from tests.deploy.files import (
    COMPOSE,
    KEY,
    KUBERNETES,
    bytes_of,
    check_command,
    documents,
    image_environment,
    settings_of,
    shell_commands,
)
from tests.programs import find

from lazypix.nginx import _form_mib
from lazypix.settings import Settings, load

FILES = sorted(KUBERNETES.glob("*.yaml"))
(KUSTOMIZATION,) = documents(KUBERNETES / "kustomization.yaml")
OBJECTS: list[Any] = [item for name in KUSTOMIZATION["resources"] for item in documents(KUBERNETES / name)]
(SECRET,) = documents(KUBERNETES / "secret.example.yaml")
OLDEST, NEWEST = "1.30", "1.37"
"""The versions of Kubernetes whose schemas they are held against."""


def of_kind(kind: str) -> dict[str, Any]:
    return {item["metadata"]["name"]: item for item in OBJECTS if item["kind"] == kind}


DEPLOYMENTS = of_kind("Deployment")
PODS = {name: item["spec"]["template"]["spec"] for name, item in DEPLOYMENTS.items()}


def container(name: str) -> Any:
    (only,) = PODS[name]["containers"]
    return only


def environment() -> dict[str, str]:
    """Return the environment of every container: of the image, the ConfigMap and the Secret."""
    given = SECRET["stringData"] | {"LAZYPIX_API_KEYS": KEY, "LAZYPIX_CALLBACK_SECRET": KEY}
    return settings_of(image_environment(), of_kind("ConfigMap")["lazypix"]["data"], given)


def settings() -> Settings:
    return load({}, environment())


@pytest.mark.parametrize("version", [OLDEST, NEWEST])
def test_they_are_what_the_schemas_say(version: str) -> None:
    files = [str(file) for file in FILES if file.name != "kustomization.yaml"]
    command = [find("kubernetes-validate"), "--strict", "--kubernetes-version", version, *files]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert "WARN" not in done.stderr + done.stdout


def test_all_files_are_applied_but_the_example_of_a_secret() -> None:
    named = {*KUSTOMIZATION["resources"], "kustomization.yaml", "secret.example.yaml"}
    assert named == {file.name for file in FILES}
    assert "Secret" not in {item["kind"] for item in OBJECTS}
    assert all("namespace" not in item["metadata"] for item in OBJECTS)
    for name, value in SECRET["stringData"].items():
        assert "<" in value, f"{name} looks like a secret"
        assert Settings.model_fields[name.removeprefix("LAZYPIX_").lower()]


def test_the_settings_are_accepted() -> None:
    assert settings().host == "0.0.0.0"
    assert settings().jobs == "celery"
    assert settings().broker
    assert set(of_kind("ConfigMap")["lazypix"]["data"]) <= set(environment())


@pytest.mark.parametrize("name", PODS)
def test_the_command_of_each_exists(name: str) -> None:
    check_command(container(name)["command"])
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        words = container(name).get(probe, {}).get("exec", {}).get("command", [])
        for line in shell_commands(words[-1]) if words else ():
            check_command(line)


def test_the_same_commands_as_with_compose() -> None:
    services = documents(COMPOSE)[0]["services"]
    for name in ("worker", "beat"):
        assert container(f"lazypix-{name}")["command"] == services[name]["command"]


@pytest.mark.parametrize("name", PODS)
def test_pods_keep_to_the_restricted_profile(name: str) -> None:
    """Source: Kubernetes, "Pod Security Standards", restricted."""
    pod, own = PODS[name], container(name)["securityContext"]
    assert pod["securityContext"]["runAsNonRoot"]
    assert pod["securityContext"]["runAsUser"] == 10001
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert own["allowPrivilegeEscalation"] is False
    assert own["readOnlyRootFilesystem"] is True
    assert own["capabilities"] == {"drop": ["ALL"]}
    assert all(set(volume) == {"name", "emptyDir"} for volume in pod["volumes"])
    assert pod["automountServiceAccountToken"] is False
    assert pod["enableServiceLinks"] is False, "LAZYPIX_PORT would be an address"
    assert {mount["name"] for mount in container(name)["volumeMounts"]} == {v["name"] for v in pod["volumes"]}


@pytest.mark.parametrize("name", PODS)
def test_what_is_asked_for_is_below_the_limits(name: str) -> None:
    resources = container(name)["resources"]
    assert set(resources["requests"]) == set(resources["limits"]) == {"cpu", "memory", "ephemeral-storage"}
    for what in ("memory", "ephemeral-storage"):
        assert bytes_of(resources["requests"][what]) <= bytes_of(resources["limits"][what])
    volumes = sum(bytes_of(volume["emptyDir"]["sizeLimit"]) for volume in PODS[name]["volumes"])
    assert volumes <= bytes_of(resources["limits"]["ephemeral-storage"])


def test_limits_of_a_server_fit_its_settings() -> None:
    limits = container("lazypix-server")["resources"]["limits"]
    assert settings().renderers == int(limits["cpu"])
    assert bytes_of(limits["memory"]) >= settings().cache_bytes + (settings().renderers + 1) * 300 * 2**20
    (data,) = [volume for volume in PODS["lazypix-server"]["volumes"] if volume["name"] == "data"]
    assert bytes_of(data["emptyDir"]["sizeLimit"]) >= 2 * settings().uploads * settings().max_bytes


def test_a_server_is_probed_where_it_listens() -> None:
    server = container("lazypix-server")
    assert server["ports"] == [{"name": "http", "containerPort": settings().port}]
    paths = {probe: server[probe]["httpGet"]["path"] for probe in ("startupProbe", "readinessProbe", "livenessProbe")}
    assert paths == {"startupProbe": "/readyz", "readinessProbe": "/healthz", "livenessProbe": "/healthz"}
    assert of_kind("Service")["lazypix"]["spec"]["ports"][0]["targetPort"] == "http"


def test_a_server_has_the_time_to_drain() -> None:
    assert settings().drain_delay_s >= 5, "until nobody sends it requests"
    grace = PODS["lazypix-server"]["terminationGracePeriodSeconds"]
    assert grace >= settings().drain_delay_s + settings().drain_s + 10


def test_labels_find_what_they_are_about() -> None:
    labels = {name: item["spec"]["template"]["metadata"]["labels"] for name, item in DEPLOYMENTS.items()}
    for name, item in DEPLOYMENTS.items():
        assert item["spec"]["selector"]["matchLabels"] == labels[name]
        for spread in PODS[name].get("topologySpreadConstraints", ()):
            assert spread["labelSelector"]["matchLabels"] == labels[name]
    server = labels["lazypix-server"]
    assert of_kind("Service")["lazypix"]["spec"]["selector"] == server
    assert of_kind("PodDisruptionBudget")["lazypix-server"]["spec"]["selector"]["matchLabels"] == server
    assert of_kind("NetworkPolicy")["lazypix-server"]["spec"]["podSelector"]["matchLabels"] == server
    components = {found["app.kubernetes.io/component"] for found in labels.values()}
    out = of_kind("NetworkPolicy")["lazypix-out"]["spec"]["podSelector"]["matchExpressions"][0]["values"]
    assert set(out) == components
    scaled = of_kind("HorizontalPodAutoscaler")["lazypix-server"]["spec"]
    assert scaled["scaleTargetRef"]["name"] in DEPLOYMENTS
    assert "replicas" not in DEPLOYMENTS["lazypix-server"]["spec"], "the autoscaler's, who would be overruled"
    assert scaled["minReplicas"] >= 2


def test_there_is_one_beat() -> None:
    spec = DEPLOYMENTS["lazypix-beat"]["spec"]
    assert (spec["replicas"], spec["strategy"]) == (1, {"type": "Recreate"})


def test_the_ingress_says_what_nginx_is_told() -> None:
    ingress = of_kind("Ingress")["lazypix"]
    said = {name.rpartition("/")[2]: value for name, value in ingress["metadata"]["annotations"].items()}
    assert said["proxy-body-size"] == f"{_form_mib(settings())}m"
    assert said["proxy-read-timeout"] == f"{2 * settings().request_deadline_s + 60:.0f}"
    (rule,) = ingress["spec"]["rules"]
    (path,) = rule["http"]["paths"]
    assert path["backend"]["service"]["name"] in of_kind("Service")
    assert settings().base_url == f"https://{rule['host']}"


def test_every_address_that_settings_name_may_be_reached() -> None:
    ports = {
        port["port"] for rule in of_kind("NetworkPolicy")["lazypix-out"]["spec"]["egress"] for port in rule["ports"]
    }
    known = {"postgresql": 5432, "redis": 6379, "s3": 443, "amqp": 5672}
    for name, value in environment().items():
        if (scheme := re.match(r"(\w+)://", value)) and scheme[1] in known:
            assert known[scheme[1]] in ports, name
