# The README's two commands, each complete on a fresh Debian or Ubuntu machine:
#   make demo    a guarded registry on https://localhost:5043, until Ctrl-C
#   make test    every test
# Others: make lint, make types, make bench, make fuzz, make deb, make package-test, make clean.
# Another Python: make test PYTHON=python3.12

VENV := .venv
RUN := $(VENV)/bin/python -m
PACKAGES := ./.ci/debian-packages
METADATA := setup.cfg setup.py pyproject.toml

# Only root may run dockerd and containerd (in a container: docker run --privileged).
ifeq ($(shell id -u),0)
ENGINES := dockerd=docker.io docker=docker.io podman buildah containerd ctr=containerd
else
PYTEST := -m 'not root'
endif

# The newest Python on PATH that runs: pyenv's shims stand there also for versions that don't.
ifndef PYTHON
PYTHON := $(shell for minor in 14 13 12 11 10; do \
	python3.$$minor -c 'import ssl' 2>/dev/null && { echo python3.$$minor; exit; }; done; \
	python3 -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null && echo python3)
endif

.DELETE_ON_ERROR:
.PHONY: demo test lint types bench fuzz deb package-test clean

demo: $(VENV)/installed
	@$(PACKAGES) docker-registry
	@$(VENV)/bin/regguard demo

test: $(VENV)/installed-for-work
	@$(PACKAGES) docker-registry htpasswd=apache2-utils skopeo curl /usr/sbin/slapd=slapd \
		ldapadd=ldap-utils /usr/sbin/haproxy=haproxy testssl=testssl.sh openssl \
		/usr/sbin/apache2=apache2-bin goaccess promtool=prometheus \
		systemd-analyze=systemd $(ENGINES)
	$(RUN) pytest $(PYTEST) $(TESTS)

lint: $(VENV)/installed-for-work
	$(RUN) ruff check
	$(RUN) ruff format --check

types: $(VENV)/installed-for-work
	$(RUN) mypy --strict regguard/

# Beside nginx, Apache, HAProxy and Caddy, half an hour; says what is missing and installs no peer.
# BENCH='--rows b,c --only regguard,nginx --rounds 3', BENCH=--help.
bench: $(VENV)/installed-for-work
	$(RUN) tests.bench $(BENCH)

# A million bent request streams; FUZZ='--seed 7 --seconds 60', FUZZ='--seed 7 --stream 4711'.
fuzz: $(VENV)/installed-for-work
	$(RUN) tests.fuzz $(FUZZ)

# dist/regguard_VERSION_ARCHITECTURE.deb, for the Debian that it is built on; needs the network.
DEBIAN := debian systemd regguard twisted CHANGELOG.rst LICENSE README.rst $(METADATA)
deb:
	@$(PACKAGES) dpkg-buildpackage=dpkg-dev
	@# What debian/control asks for and is not there.
	@$(PACKAGES) $$(LC_ALL=C dpkg-checkbuilddeps 2>&1 | sed -n 's/ ([^)]*)//g; s/.*dependencies: //p')
	@# In a copy, so that nothing is left here.
	@folder=$$(mktemp -d) && trap 'rm -rf "$$folder"' EXIT && mkdir "$$folder/regguard" && \
		cp -R $(DEBIAN) "$$folder/regguard" && \
		(cd "$$folder/regguard" && dpkg-buildpackage --build=binary --no-sign) && \
		mkdir -p dist && cp "$$folder"/*.deb dist && ls "$$folder"/*.deb | sed 's,.*/,dist/,'

# The package in a booted Debian of its own, as root: install, push, pull, reload, restart, upgrade
# under load, purge. PACKAGE_TEST='--base FOLDER' keeps the Debian for the next time.
package-test: $(VENV)/installed-for-work deb
	@$(PACKAGES) debootstrap systemd-nspawn=systemd-container nsenter=util-linux
	$(RUN) tests.package $(PACKAGE_TEST) \
		dist/regguard_$$(dpkg-parsechangelog --show-field Version)_*.deb

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis

$(VENV)/bin/python:
	@test -n "$(PYTHON)" || { \
		echo 'regguard needs Python 3.10 or newer, and none is on PATH. On Debian or Ubuntu:' \
			'apt-get install python3 python3-venv; or name yours: make PYTHON=/path/to/python3' >&2; \
		exit 1; }
	@$(PYTHON) -c 'import ensurepip' 2>/dev/null || $(PACKAGES) ensurepip="$$($(PYTHON) -c \
		'import sys; print("python%d.%d-venv" % sys.version_info[:2])')"
	@echo "Making $(VENV) with $$($(PYTHON) --version)"
	@$(PYTHON) -m venv --clear $(VENV)

$(VENV)/installed: $(VENV)/bin/python $(METADATA)
	@echo "Installing regguard and what it needs into $(VENV)"
	@$(RUN) pip install --quiet --disable-pip-version-check --editable .
	@touch $@

$(VENV)/installed-for-work: $(VENV)/installed $(METADATA)
	@# python-ldap comes as source.
	@$(VENV)/bin/python -c 'import ldap' 2>/dev/null || $(PACKAGES) gcc \
		/usr/include/stdlib.h=libc6-dev /usr/include/ldap.h=libldap-dev \
		/usr/include/sasl/sasl.h=libsasl2-dev "$$($(VENV)/bin/python -c \
		'import sys, sysconfig; print("%s/Python.h=python%d.%d-dev" % \
		(sysconfig.get_path("include"), *sys.version_info[:2]))')"
	@echo "Installing the tools for tests and checks into $(VENV)"
	@$(RUN) pip install --quiet --disable-pip-version-check --editable '.[test,dev]'
	@touch $@
