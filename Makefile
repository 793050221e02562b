# Podium's commands. `make up` and `make test` are all that a fresh Debian 12 with git, make and stable Rust needs.

NODES ?= 3
MEMORY ?= 512
NAME ?= demo
SEED ?= 1
STEPS ?= 3000
SEEDS ?= 1000

SUDO := $(shell [ "$$(id -u)" = 0 ] || echo sudo)
TARGET := x86_64-unknown-linux-gnu
# Where cargo puts the programs that the image ships.
RELEASE = $(shell cargo metadata --format-version 1 --no-deps --offline 2>/dev/null | sed 's/.*"target_directory":"\([^"]*\)".*/\1/')/$(TARGET)/release
PODIUM = $(RELEASE)/podium
# A copy of the image, so that a build while a cluster runs does not change what it boots.
IMAGE = .podium/image

# What building, running and testing take from Debian. The rig unpacks what else it runs (a registry, Redis) by itself.
BUILD_PACKAGES = ca-certificates gcc libc6-dev libelf-dev libseccomp-dev pkg-config zlib1g-dev e2fsprogs
RUN_PACKAGES = ovmf qemu-system-x86 skopeo
TEST_PACKAGES = busybox-static docker-registry iproute2 nftables perl python3 python3-pip umoci

# stage: a name and a command; prints how long it took.
define stage
@echo "==== $(1)"; started=$$(date +%s); $(2); code=$$?; \
echo "==== $(1): $$(($$(date +%s) - started)) s"; exit $$code
endef

# install: missing packages only, so that a machine that has all of them needs neither root nor a network.
define install
@missing=""; for package in $(1); do \
	dpkg-query -W -f='$${Status}' $$package 2>/dev/null | grep -q 'ok installed' || missing="$$missing $$package"; done; \
if [ -n "$$missing" ]; then $(SUDO) apt-get update -qq && $(SUDO) env DEBIAN_FRONTEND=noninteractive \
	apt-get install -y -qq --no-install-recommends $$missing; fi
endef

.PHONY: help up down image test lint unit sim loss sim-all loss-all planted vm vm-stage spare-stage bench clean build-deps run-deps test-deps programs
help:
	@echo "make up      boot a cluster in QEMU           (NODES=$(NODES) MEMORY=$(MEMORY) NAME=$(NAME))"
	@echo "make down    shut it down"
	@echo "make image   build the OS image into $(IMAGE)"
	@echo "make test    everything that CI checks"
	@echo "make bench   measure the figures of docs/benchmarks.md again"
	@echo "make sim     repeat one simulated run          (SEED=$(SEED) STEPS=$(STEPS))"

up: image run-deps
	$(PODIUM) up --name $(NAME) --nodes $(NODES) --memory $(MEMORY)

down:
	$(PODIUM) down --name $(NAME)

# What a package source has dropped is said, and the newest of the series taken.
image: programs
	$(PODIUM) image build --allow-newer --out $(IMAGE)

programs: build-deps
	cargo build --release --locked -p podium -p podium-init -p podium-node -p podium-shim

build-deps:
	$(call install,$(BUILD_PACKAGES))

run-deps: build-deps
	$(call install,$(RUN_PACKAGES))

test-deps: run-deps
	$(call install,$(TEST_PACKAGES))
	@command -v cargo-nextest >/dev/null || cargo install --locked cargo-nextest
	@command -v cargo-deny >/dev/null || cargo install --locked cargo-deny

test: test-deps
	$(call stage,lint,$(MAKE) --no-print-directory lint)
	$(call stage,unit,$(MAKE) --no-print-directory unit)
	$(call stage,sim,$(MAKE) --no-print-directory sim-all)
	$(call stage,image,$(MAKE) --no-print-directory image)
	@$(MAKE) --no-print-directory --jobs=2 --keep-going vm-stage spare-stage

# An emulated machine mostly waits: what only computes, and has no time to keep, has what the machines leave of the processors.
vm-stage:
	$(call stage,vm,$(MAKE) --no-print-directory vm)

spare-stage:
	$(call stage,loss and planted,nice -n 19 $(MAKE) --no-print-directory loss-all planted)

lint: test-deps
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --locked -- -D warnings
	cargo deny --offline --locked check bans licenses sources
	@# The advisory database is checked where this machine has a copy of it.
	@if [ -d "$${CARGO_HOME:-$$HOME/.cargo}/advisory-dbs" ]; then cargo deny --offline --locked check advisories; fi

# Namespaces and control groups need root; tests that need them run as root or fail.
unit: test-deps
	$(if $(SUDO),CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_RUNNER="sudo -E") \
	cargo nextest run --workspace --exclude podium-qemu-tests --lib --bins --tests --locked --no-fail-fast

sim:
	cargo run --release --locked -p podium-sim $(if $(BUG),--features planted-bugs) -- --seed $(SEED) --steps $(STEPS) \
	$(if $(filter command%,$(origin NODES)),--nodes $(NODES)) $(if $(LOAD),--load $(LOAD)) $(if $(BUG),--bug $(BUG))

# One seed of one of the promises about lost machines: machine, leader or silence.
loss:
	cargo run --release --locked -p podium-sim -- loss --seeds 1 --first $(SEED) $(if $(CLAIM),--claim $(CLAIM))

sim-all:
	cargo run --release --locked -p podium-sim -- run --seeds $(SEEDS)

loss-all:
	cargo run --release --locked -p podium-sim -- loss --seeds $(SEEDS)

# Mistakes that are made on purpose, each of which must be found. Only the simulator is built with them, and never the node.
planted:
	cargo nextest run --locked --no-fail-fast -p podium-sim -p podium-control --features podium-sim/planted-bugs \
	--test planted --test control -E 'binary(planted) + test(planted::)'

# The data path's own tests run on the shipped kernel, too: it has what the host's may lack.
DATAPLANE_TESTS = $$(cargo test --release --locked --no-run --message-format json -p podium-dataplane --test kernel | \
	sed -n 's|.*"executable":"\([^"]*/kernel-[^"]*\)".*|\1|p')

# The rig's own tests, and the scenarios that boot the image.
vm: test-deps
	PODIUM_DATAPLANE_TESTS=$(DATAPLANE_TESTS) PODIUM_IMAGE=$(abspath $(IMAGE)) cargo nextest run --release --locked --no-fail-fast -p podium-qemu-tests --lib --tests

# Forty minutes on a machine that does nothing else; a busy one gives figures that mean nothing. PARTS=boot,store for some.
bench: image test-deps
	cargo build --release --locked -p podium-sim
	cargo build --release --locked -p podium-qemu-tests -p podium-store --example bench --example bare_init --example commit_rate
	$(RELEASE)/examples/bench --image $(IMAGE) --programs $(RELEASE) --page docs/benchmarks.md $(if $(PARTS),--only $(PARTS))

clean:
	rm -rf .podium/clusters .podium/image
