"""What ``regguard demo`` prints for a person to read and to copy from."""

from __future__ import annotations

from regguard.demo.stage import Stage

INSTALL_A_REGISTRY = """\
no registry to guard: neither docker-registry nor registry is on PATH.
  Debian, Ubuntu   sudo apt-get install docker-registry
  Fedora           sudo dnf install docker-distribution
  openSUSE         sudo zypper install distribution-registry
  Alpine           sudo apk add docker-registry
  elsewhere        put the registry program of github.com/distribution/distribution on PATH"""


def smoke_heading(stage: Stage) -> str:
    """The line above the table of ``--smoke``."""
    return f"regguard on {stage.url}, a registry behind it on {stage.registry_url}\n"


def welcome(stage: Stage) -> str:
    """Where everything is, who may do what, and lines that work as they stand."""
    host = f"localhost:{stage.port}"
    hello, mine = f"{host}/demo/hello:v1", f"{host}/demo/mine:v1"
    reader, pusher = stage.reader, stage.pusher
    as_reader, as_pusher = (f"{user.name}:{user.password}" for user in (reader, pusher))
    trust, ca, docker_trust = stage.trust, stage.ca, f"/etc/docker/certs.d/{host}"
    return f"""\
regguard guards a registry on {stage.url}

  registry   {stage.registry_url}, holding demo/hello:v1
  folder     {stage.folder}, removed at the end

  user            password            may
  {reader.name:<14}  {reader.password}    pull
  {pusher.name:<14}  {pusher.password}    pull, push, delete (in group pusher)

Lines to try in another terminal; each one works as it stands.

curl: log in, list, and a push that is refused
  curl --cacert {ca} -u {as_reader} {stage.url}/v2/_catalog
  curl --cacert {ca} -u {as_reader} {stage.url}/v2/demo/hello/tags/list
  curl --cacert {ca} -u {as_reader} -X POST {stage.url}/v2/demo/mine/blobs/uploads/

skopeo: look, copy, and a copy that is refused
  skopeo inspect --cert-dir {trust} --creds {as_reader} docker://{hello}
  skopeo --insecure-policy copy --src-cert-dir {trust} --src-creds {as_reader} \
--dest-cert-dir {trust} --dest-creds {as_pusher} docker://{hello} docker://{mine}
  skopeo --insecure-policy copy --src-cert-dir {trust} --src-creds {as_reader} \
--dest-cert-dir {trust} --dest-creds {as_reader} docker://{hello} docker://{host}/demo/no:v1

podman: pull, push, and a push that is refused
  podman pull --cert-dir {trust} --creds {as_reader} {hello}
  podman push --cert-dir {trust} --creds {as_pusher} {hello} {mine}
  podman push --cert-dir {trust} --creds {as_reader} {hello} {host}/demo/no:v1

docker: trust the certificate, pull, push, and a push that is refused
  sudo mkdir -p {docker_trust} && sudo cp {ca} {docker_trust}/ca.crt
  echo {pusher.password} | docker login --username {pusher.name} --password-stdin {host}
  docker pull {hello} && docker tag {hello} {mine}
  docker push {mine}
  echo {reader.password} | docker login --username {reader.name} --password-stdin {host}
  docker push {mine}
  docker logout {host} && sudo rm -r {docker_trust}

Ctrl-C ends it. Below is the guard's log.
"""
