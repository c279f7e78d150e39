# The README's two commands, each complete on a fresh Debian or Ubuntu machine:
#   make demo    a guarded registry on https://localhost:5043, until Ctrl-C
#   make test    every test
# Others: make lint, make types, make bench, make fuzz, make clean. Another Python: make test PYTHON=python3.12

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
.PHONY: demo test lint types bench fuzz clean

demo: $(VENV)/installed
	@$(PACKAGES) docker-registry
	@$(VENV)/bin/regguard demo

test: $(VENV)/installed-for-work
	@$(PACKAGES) docker-registry htpasswd=apache2-utils skopeo curl /usr/sbin/slapd=slapd \
		ldapadd=ldap-utils /usr/sbin/haproxy=haproxy openssl $(ENGINES)
	$(RUN) pytest $(PYTEST) $(TESTS)

lint: $(VENV)/installed-for-work
	$(RUN) ruff check
	$(RUN) ruff format --check

types: $(VENV)/installed-for-work
	$(RUN) mypy --strict regguard/

bench: $(VENV)/installed-for-work
	$(RUN) tests.bench

# A million bent request streams; FUZZ='--seed 7 --seconds 60', FUZZ='--seed 7 --stream 4711'.
fuzz: $(VENV)/installed-for-work
	$(RUN) tests.fuzz $(FUZZ)

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
