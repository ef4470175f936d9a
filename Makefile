# make run    the whole pipeline with a simulated fleet, at http://localhost:7300/
# make test   every test, with its own set-up, WORKERS=4 at a time; ARGS="-n0 --pdb" one after the other
# make check  ruff, mypy --strict, import-linter
# make chaos, make fuzz, make bench, make vm-lab, make k8s-lab, make cluster-lab, make compose-lab, make arm64-lab: the long ones
# make images, make deploy OVERLAY=local, make undeploy OVERLAY=local: on Kubernetes; make compose: with Docker

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/pip install --quiet --disable-pip-version-check --require-hashes --only-binary :all:
# A machine may name further places to look for wheels; the hashes hold wherever they come from.

.PHONY: run setup test chaos fuzz bench check vm-lab k8s-lab cluster-lab compose-lab arm64-lab kafka lock screenshots images host-image deploy undeploy deploy-check compose clean
.DELETE_ON_ERROR:

run: setup
	@$(BIN)/isotherm up $(ARGS)

setup: $(VENV)/ready

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or later is needed: set PYTHON=…" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { echo "Python's venv module is missing: apt install python3-venv" >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV)

$(VENV)/ready: requirements.lock pyproject.toml | $(VENV)/bin/python
	@echo "Installing Isotherm's dependencies into $(VENV) (about a minute) …"
	@$(PIP) -r requirements.lock
	@$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --no-index -e .
	@touch $@

$(VENV)/ready-dev: requirements-dev.lock $(VENV)/ready
	@$(PIP) -r requirements-dev.lock
	@touch $@

test: $(VENV)/ready-dev
	@tests/prepare.sh
	@$(BIN)/pytest -n $(WORKERS) --dist loadscope --no-loadscope-reorder $(ARGS)

# More than there are cores: much of the time a test waits for servers to start and groups to form. A module or class, whose tests
# may share a server, runs in one process; they begin in the order of tests/conftest.py.
WORKERS ?= 4

# Else each of the processes that the tests start, some thousands, would compile our modules anew.
unexport PYTHONDONTWRITEBYTECODE

# The long forms: everything killed at random under a million numbered readings, Kafka stopped for longer; a million fuzzed inputs
# a parser.
chaos: $(VENV)/ready-dev
	@tests/prepare.sh
	@ISOTHERM_CHAOS_SECONDS=30 $(BIN)/pytest tests/end_to_end/test_chaos.py tests/end_to_end/test_exactly_once.py tests/test_topics_cli.py tests/infra/test_pods.py $(ARGS)

fuzz: $(VENV)/ready-dev
	@for target in $$($(BIN)/python -c 'from tests.fuzz.targets import TARGETS; print(*TARGETS)'); do \
		$(BIN)/python -m tests.fuzz.run $$target --runs 1000000 $(ARGS) || exit 1; done
	@ISOTHERM_FUZZ_PACKETS=1000000 $(BIN)/pytest tests/connectors/test_coap_fuzz.py

# Figures of this machine: of each protocol, one JSON object.
bench: setup
	@for protocol in tcp http ws mqtt coap; do $(BIN)/isotherm bench ingest --protocol $$protocol --json $(ARGS) || exit 1; done
	@$(BIN)/isotherm bench store --json

# The overlay on three emulated machines with the kernel's datapath; root, QEMU and debootstrap, and no hardware support.
vm-lab:
	@$(PYTHON) infra/vagrant/vm_lab/run.py $(ARGS)

AUTOSCALING := $(addprefix .k8s-lab/,metrics-server metrics-server.yaml keda-operator keda-adapter keda.yaml)

# Deployments on Kubernetes itself, without nodes and with one, built of its modules with Go: half an hour of CPU the first time.
k8s-lab: $(VENV)/ready-dev .k8s-lab/hyperkube .k8s-lab/etcd .k8s-lab/dns .k8s-lab/policies $(AUTOSCALING)
	@tests/prepare.sh
	@ISOTHERM_K8S_LAB=1 $(BIN)/pytest tests/infra/test_cluster.py tests/infra/test_node.py tests/infra/test_node_hosts.py \
		tests/infra/test_node_autoscaling.py $(ARGS)

# The overlay cluster on a Kubernetes of three nodes whose pods' network is infra/ovs: drained, and with nodes lost.
cluster-lab: $(VENV)/ready-dev .k8s-lab/hyperkube .k8s-lab/etcd .k8s-lab/dns .k8s-lab/policies
	@tests/prepare.sh
	@ISOTHERM_CLUSTER_LAB=1 $(BIN)/pytest tests/infra/test_three_nodes.py $(ARGS)

.k8s-lab/%: tests/peers/kubernetes/%/main.go tests/peers/kubernetes/%/go.sum
	@echo "Building Kubernetes' $* …"
	@cd tests/peers/kubernetes/$* && CGO_ENABLED=0 go build -buildvcs=false -ldflags "$(KUBERNETES)" -o $(CURDIR)/$@ .

# It says which version it is, as its own builds do.
KUBERNETES := -s -w -X k8s.io/component-base/version.gitVersion=v1.34.4 -X k8s.io/component-base/version.gitMajor=1 \
	-X k8s.io/component-base/version.gitMinor=34

# What Kubernetes scales by: programs and manifests are those of their modules.
.k8s-lab/metrics-server: FROM := sigs.k8s.io/metrics-server/cmd/metrics-server
.k8s-lab/keda-operator: FROM := github.com/kedacore/keda/v2/cmd/operator
.k8s-lab/keda-adapter: FROM := github.com/kedacore/keda/v2/cmd/adapter
.k8s-lab/metrics-server .k8s-lab/keda-operator .k8s-lab/keda-adapter: tests/peers/kubernetes/autoscaling/go.sum
	@echo "Building $(@F) …"
	@cd $(<D) && CGO_ENABLED=0 go build -buildvcs=false -ldflags "-s -w" -o $(CURDIR)/$@ $(FROM)

.k8s-lab/metrics-server.yaml: FROM := sigs.k8s.io/metrics-server
.k8s-lab/metrics-server.yaml: FOLDER := manifests/base
.k8s-lab/keda.yaml: FROM := github.com/kedacore/keda/v2
.k8s-lab/keda.yaml: FOLDER := config/minimal
.k8s-lab/metrics-server.yaml .k8s-lab/keda.yaml: tests/peers/kubernetes/autoscaling/go.sum | $(VENV)/ready
	@mkdir -p $(@D)
	@$(BIN)/kubectl kustomize "$$(cd $(<D) && go mod download $(FROM) && go list -m -f '{{.Dir}}' $(FROM))/$(FOLDER)" >$@

# infra/compose.yaml with Docker's own engine and compose, built of their modules with Go: five minutes of CPU the first time.
compose-lab: $(VENV)/ready-dev .compose-lab/dockerd .compose-lab/docker-proxy .compose-lab/docker-compose
	@tests/prepare.sh
	@ISOTHERM_COMPOSE_LAB=1 $(BIN)/pytest tests/infra/test_compose_lab.py $(ARGS)

.compose-lab/dockerd .compose-lab/docker-proxy: tests/peers/docker/engine/go.sum
	@echo "Building Docker's $(@F) …"
	@cd $(<D) && CGO_ENABLED=0 go build -buildvcs=false -ldflags "-s -w" -o $(CURDIR)/$@ github.com/moby/moby/v2/cmd/$(@F)

.compose-lab/docker-compose: tests/peers/docker/compose/go.sum
	@echo "Building Docker's compose …"
	@cd $(<D) && CGO_ENABLED=0 go build -buildvcs=false -ldflags "-s -w" -o $(CURDIR)/$@ github.com/docker/compose/v5/cmd

# The images for arm64, and two of them at work on an emulated processor.
arm64-lab: $(VENV)/ready-dev
	@tests/prepare.sh
	@ISOTHERM_ARM64_LAB=1 $(BIN)/pytest tests/infra/test_arm64.py $(ARGS)

check: $(VENV)/ready-dev
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

# Apache Kafka (KRaft) for the tests, from Maven Central; needs Java 17 and Maven.
kafka: .kafka/ready

.kafka/ready: infra/kafka/pom.xml
	@rm -rf .kafka
	@mvn -q -B -f infra/kafka/pom.xml dependency:copy-dependencies
	@touch $@

# The image of virtual hosts, for podman on this machine: make host-image BASE=debian:12; see infra/hosts/README.md.
host-image:
	@podman build --network host --isolation chroot --build-arg BASE=$(BASE) --tag $(HOST_IMAGE) infra/hosts

BASE ?= ubuntu:24.04
HOST_IMAGE ?= localhost/isotherm/host:latest

# Pin the newest versions anew, with hashes. Only this needs pip-tools.
lock:
	@$(PYTHON) -m piptools compile $(LOCK) --extra build --extra k8s -o requirements.lock pyproject.toml
	@$(PYTHON) -m piptools compile $(LOCK) --extra build --extra k8s --extra dev -c requirements.lock -o requirements-dev.lock pyproject.toml

LOCK := --quiet --upgrade --generate-hashes --strip-extras --allow-unsafe \
	--no-emit-index-url --no-emit-find-links --no-emit-trusted-host --no-header

# Images of this checkout, with buildah, podman or docker: infra/images/build says what can be set.
images:
	@infra/images/build $(PARTS)

# On the cluster that kubectl speaks to: docs/operations.md.
deploy undeploy deploy-check: $(VENV)/ready
	@test -n "$(OVERLAY)" || { echo "Which overlay? make $@ OVERLAY=local, cluster or gateway" >&2; exit 1; }
	@$(BIN)/python infra/k8s/deploy.py $(@:deploy-check=check) $(OVERLAY) $(if $(YES),--yes) $(if $(KEEP_DATA),--keep-data) $(ARGS)

# What did not start because its port was taken would have no network when it is started again, so it is removed.
compose:
	@infra/compose-secrets
	@docker compose version >/dev/null 2>&1 || { echo "Docker with its compose is needed: https://docs.docker.com/engine/install/" >&2; exit 1; }
	@docker compose -f infra/compose.yaml up --build --detach $(ARGS) || { docker compose -f infra/compose.yaml rm --force; exit 1; }

# The pictures in docs/, taken from a stack of their own.
screenshots: $(VENV)/ready-dev
	@$(BIN)/python infra/screenshots.py

clean:
	@rm -rf $(VENV) .isotherm .kafka .checkov .vm-lab .k8s-lab .compose-lab .mypy_cache .ruff_cache *.egg-info
