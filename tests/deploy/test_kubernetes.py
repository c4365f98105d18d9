"""``deploy/kubernetes.yaml``: checked against Kubernetes' schemas, and against this package where they say nothing."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import Any

import click
import kubernetes_validate
import pytest
import requests
import yaml
from support.doc_pages import PAGES
from support.serving import Server

from demo_api import cli, create_app
from demo_api.config import Settings, flag_names, setting_names, variable
from demo_api.process.child import SIGTERM_GRACE_S
from demo_api.web.error_handlers import endpoints

DEPLOY = Path(__file__).parents[2] / "deploy"
_DOCUMENTS: list[dict[str, Any]] = list(yaml.safe_load_all((DEPLOY / "kubernetes.yaml").read_text()))
_NAMES = [f"{document['kind']} {document['metadata']['name']}" for document in _DOCUMENTS]
_PODS = {
    document["metadata"]["labels"]["app.kubernetes.io/component"]: document["spec"]["template"]
    for document in _DOCUMENTS
    if "template" in document["spec"]
}
_CONTAINERS = {name: pod["spec"]["containers"][0] for name, pod in _PODS.items()}
_DOCKERFILE = (DEPLOY / "Dockerfile").read_text()

each_pod = pytest.mark.parametrize("name", _PODS)


def _environ(name: str) -> dict[str, str]:
    """What the manifest sets, with the secrets and the node's name as they may be."""
    elsewhere = {
        "DEMO_API_DATABASE_URL": "postgresql://demo_api@db.example/demo_api",
        "DEMO_API_KEYS": "k" * 48,
        "DEMO_API_NODE": "box-a.example",
    }
    return {each["name"]: each.get("value") or elsewhere[each["name"]] for each in _CONTAINERS[name]["env"]}


def _parse(words: list[str]) -> tuple[str, dict[str, Any]]:
    """The command and its parameters, as the command line takes them; raises what it says against them."""
    command: click.Command = cli.main
    context = click.Context(command, info_name=words[0])
    words = words[1:]
    while isinstance(command, click.Group):
        name, found, words = command.resolve_command(context, words)
        assert name is not None
        assert found is not None
        command, context = found, click.Context(found, context, info_name=name)
    path = context.command_path.partition(" ")[2]
    return path, command.make_context(context.info_name, words, context.parent).params


def _settings(name: str) -> Settings:
    _, params = _parse(_CONTAINERS[name]["command"])
    return Settings.load({key: value for key, value in params.items() if key in flag_names()}, _environ(name))


def _state_dir(name: str) -> str:
    (of_the_image,) = re.findall(r"DEMO_API_STATE_DIR=(\S+)", _DOCKERFILE)
    return _environ(name).get("DEMO_API_STATE_DIR", of_the_image)


def _mounts(container: dict[str, Any]) -> dict[str, str]:
    return {mount["mountPath"]: mount["name"] for mount in container.get("volumeMounts", [])}


def _probes(name: str) -> Iterator[dict[str, Any]]:
    for key in ("startupProbe", "readinessProbe", "livenessProbe"):
        if key in _CONTAINERS[name]:
            yield _CONTAINERS[name][key]


# The oldest version whose extended resources may be a DRA driver's, and the newest.
@pytest.mark.parametrize("version", ["1.34", "1.37"])
@pytest.mark.parametrize("document", _DOCUMENTS, ids=_NAMES)
def test_a_document_is_as_its_schema_wants_it(document: dict[str, Any], version: str) -> None:
    assert kubernetes_validate.validate(document, version, strict=True) == version


def test_selectors_find_their_pods_and_no_others() -> None:
    found = {}
    for document, name in zip(_DOCUMENTS, _NAMES, strict=True):
        selector = document["spec"].get("selector", {})
        labels = selector.get("matchLabels", selector)
        if labels:
            found[name] = [pod for pod in _PODS if labels.items() <= _PODS[pod]["metadata"]["labels"].items()]
    assert found == {
        "DaemonSet demo-api-worker": ["worker"],
        "Deployment demo-api": ["door"],
        "Service demo-api": ["door"],
    }


def test_the_service_leads_to_the_port_that_a_door_listens_on() -> None:
    (service,) = [document for document in _DOCUMENTS if document["kind"] == "Service"]
    (port,) = service["spec"]["ports"]
    (open_port,) = _CONTAINERS["door"]["ports"]
    assert port["targetPort"] == open_port["name"]
    settings = _settings("door")
    assert (settings.host, settings.port) == ("0.0.0.0", open_port["containerPort"])


@each_pod
def test_a_container_runs_a_command_that_is_there_with_flags_and_settings_that_are_there(name: str) -> None:
    command, params = _parse(_CONTAINERS[name]["command"])
    assert command == {"upgrade": "database upgrade", "door": "serve", "worker": "worker"}[name]
    assert params.get("no_devices", True)
    known = {variable(setting) for setting in setting_names()}
    assert set(_environ(name)) - known <= {"HOME"}
    assert _settings(name).database_url == _environ(name)["DEMO_API_DATABASE_URL"]


def test_secrets_are_those_that_the_documentation_makes() -> None:
    used = {
        (each["valueFrom"]["secretKeyRef"]["name"], each["valueFrom"]["secretKeyRef"]["key"])
        for container in _CONTAINERS.values()
        for each in container["env"]
        if "secretKeyRef" in each.get("valueFrom", {})
    }
    assert {name for name, _ in used} == set(re.findall(r"create secret generic (\S+)", PAGES["many-hosts.md"]))
    made = re.search(r"printf '(.*)' .*> demo-api\.env", PAGES["many-hosts.md"])
    assert made is not None
    assert {key for _, key in used} == {line.partition("=")[0] for line in made[1].split(r"\n") if line}


@each_pod
def test_no_variable_of_a_service_is_taken_for_a_setting(name: str) -> None:
    services = [document["metadata"]["name"] for document in _DOCUMENTS if document["kind"] == "Service"]
    assert "DEMO_API_PORT" in {f"{service.upper().replace('-', '_')}_PORT" for service in services}
    assert _PODS[name]["spec"]["enableServiceLinks"] is False


@each_pod
def test_volumes_are_there_and_mounted_where_the_state_is(name: str) -> None:
    pod = _PODS[name]["spec"]
    volumes = {volume["name"]: volume for volume in pod.get("volumes", [])}
    mounted = {
        mount for each in (*pod.get("initContainers", []), *pod["containers"]) for mount in _mounts(each).values()
    }
    assert mounted == set(volumes)
    if name == "upgrade":  # keeps nothing
        return
    state = PurePosixPath(_state_dir(name))
    mounts = _mounts(_CONTAINERS[name])
    (volume,) = [volumes[mounts[str(path)]] for path in (state, *state.parents) if str(path) in mounts]
    assert ("hostPath" if name == "worker" else "emptyDir") in volume  # a node's name and locks must outlive a pod


def test_a_door_can_write_where_it_must_and_nowhere_else() -> None:
    assert _CONTAINERS["door"]["securityContext"]["readOnlyRootFilesystem"] is True
    assert set(_mounts(_CONTAINERS["door"])) == {_state_dir("door"), "/tmp"}


@each_pod
def test_only_the_folder_is_given_away_by_root(name: str) -> None:
    pod = _PODS[name]["spec"]
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert str(pod["securityContext"]["runAsUser"]) in re.findall(r"^USER (\d+)$", _DOCKERFILE, re.MULTILINE)
    assert pod["automountServiceAccountToken"] is False
    for container in (*pod.get("initContainers", []), *pod["containers"]):
        rights = container["securityContext"]
        assert rights["allowPrivilegeEscalation"] is False
        assert rights["capabilities"]["drop"] == ["ALL"]
        assert (container["name"] == "own-folder") is ("runAsUser" in rights) is ("add" in rights["capabilities"])


def test_the_pages_of_a_worker_are_those_that_it_is_given() -> None:
    resources = _CONTAINERS["worker"]["resources"]
    (medium,) = [volume["emptyDir"]["medium"] for volume in _PODS["worker"]["spec"]["volumes"] if "emptyDir" in volume]
    assert medium.replace("HugePages", "hugepages") in resources["limits"]
    assert "memory" in resources["requests"] or "cpu" in resources["requests"]  # Kubernetes gives no pages without
    assert "memory" not in resources["limits"]


@pytest.mark.parametrize("name", ["worker", "door"])
def test_a_container_gets_the_time_to_stop(name: str) -> None:
    settings = _settings(name)
    before = _CONTAINERS[name].get("lifecycle", {}).get("preStop", {}).get("sleep", {}).get("seconds", 0)
    stopping = before + settings.drain + settings.stop_grace + SIGTERM_GRACE_S
    assert _PODS[name]["spec"]["terminationGracePeriodSeconds"] >= stopping + 10


def test_the_probes_of_a_door_are_routes_and_reach_it_whatever_hosts_are_set(
    serve: Callable[..., Server], settings: Callable[..., Settings]
) -> None:
    server = serve(settings(hosts="lab.example"))
    probes = [probe["httpGet"] for probe in _probes("door")]
    assert {probe["port"] for probe in probes} == {port["name"] for port in _CONTAINERS["door"]["ports"]}
    routes = endpoints(create_app(settings()))
    assert {f"GET {probe['path']}" for probe in probes} <= set(routes)
    for probe in probes:
        kubelets = requests.get(server.url + probe["path"], headers={"Host": "10.1.2.3:8080"}, timeout=30)
        assert kubelets.status_code == 421
        headers = {header["name"]: header["value"] for header in probe["httpHeaders"]}
        assert requests.get(server.url + probe["path"], headers=headers, timeout=30).status_code != 421


def test_the_probe_of_a_worker_looks_where_it_answers(
    serve: Callable[..., Server], settings: Callable[..., Settings]
) -> None:
    (probe,) = _probes("worker")
    python, flag, code = probe["exec"]["command"]
    assert python == "python3"
    here = f"http://127.0.0.1:{_settings('worker').metrics_port}"
    assert here in code
    server = serve(settings())
    for url, status in ((server.url, 0), ("http://127.0.0.1:1", 1)):
        done = subprocess.run([sys.executable, flag, code.replace(here, url)], capture_output=True, check=False)
        assert done.returncode == status, done.stderr


def test_what_the_documentation_names_is_there() -> None:
    page = PAGES["many-hosts.md"].partition("## Kubernetes\n")[2].partition("\n## ")[0]
    named = re.findall(r"\b(job|daemonset|deployment|service)[/ ](demo-api\S*)", page)
    assert len(named) >= 3
    assert {f"{kind} {name}" for kind, name in named} <= {name.lower() for name in _NAMES}
    components = re.findall(r"app\.kubernetes\.io/component=(\w+)", page)
    assert components == ["upgrade", "worker"]
    assert set(components) <= set(_PODS)
    (device,) = [limit for limit in _CONTAINERS["worker"]["resources"]["limits"] if "/" in limit]
    assert f"`{device}`" in page
