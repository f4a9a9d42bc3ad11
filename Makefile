# One command for everything.  `make demo` sets up and runs the main job; `make test` passes the tests.
SHELL := /bin/sh
PYTHON := .venv/bin/python
DATA := src/hypercontainer/data
KERNELS := um x86_64 $(shell grep -sx xen /sys/hypervisor/type)
# Each worker has daemons of its own, and the tests of a file share them.
# One more than there are CPUs, as most wait for something; the longest files are the first ones.
SIDE_BY_SIDE := --numprocesses $(shell expr $$(nproc) + 1) --maxprocesses 6 --dist loadfile --no-loadscope-reorder

.DEFAULT_GOAL := help
.PHONY: help demo test check fmt gen kernel guest lane-kvm bench bench-all fuzz crash wheel setup setup-tests setup-lanes setup-bench clean kernel-all lane-xen lanes

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: setup kernel guest ## set up, build what is missing, and run an image in a VM
	@tools/demo

test: setup-tests kernel guest check ## every test that can run on this host
	@$(MAKE) -s -C guest/hyperstart asan # not in the time of the first test that needs it
	$(PYTHON) -m pytest $(SIDE_BY_SIDE) $(PYTEST)

check: setup-tests ## format, lint, types, layers, generated files, C warnings
	.venv/bin/ruff format --check .
	.venv/bin/ruff check .
	.venv/bin/mypy
	.venv/bin/lint-imports
	$(PYTHON) tools/gen_protocol.py --check
	$(PYTHON) tools/gen_podfile.py --check
	$(MAKE) -s -C guest/hyperstart check
	shellcheck -x tools/setup tools/demo tools/lanes/init tools/lanes/init-xen src/hypercontainer/hypervisors/xen-hotplug .ci/run

fmt: ## format Python and fix what can be fixed
	.venv/bin/ruff format .
	.venv/bin/ruff check --fix .

gen: ## write the generated files again
	$(PYTHON) tools/gen_protocol.py
	$(PYTHON) tools/gen_podfile.py

kernel: setup ## hyperkernel for the drivers of this host, from the cache when its inputs are the same
	@$(PYTHON) -m guest.kernel.build $(KERNELS:%=--target %) --output $(DATA)/kernel

kernel-all: setup ## hyperkernel for every driver
	@$(PYTHON) -m guest.kernel.build --output $(DATA)/kernel

guest: setup ## hyperstart
	@$(MAKE) -s -C guest/hyperstart hyperstart
	@mkdir -p $(DATA) && cmp -s guest/hyperstart/hyperstart $(DATA)/hyperstart || cp guest/hyperstart/hyperstart $(DATA)/hyperstart

lanes: ## both lanes, side by side
	@$(MAKE) --no-print-directory -j2 --output-sync=target lane-kvm lane-xen

lane-kvm: setup-lanes kernel guest ## the driver kvm, tested on an emulated host that has KVM
	$(PYTHON) -m tools.lanes kvm

lane-xen: setup-lanes guest ## the driver xen, tested on an emulated dom0
	@$(PYTHON) -m guest.kernel.build --target xen --output $(DATA)/kernel
	$(PYTHON) -m tools.lanes xen

bench: setup-bench kernel guest ## measure side by side with Docker, and write bench/results; BENCH="start --rounds 3": a part
	$(PYTHON) -m bench $(BENCH)

bench-all: setup-bench kernel guest ## and what takes long: 500 pods, 10,000 runs
	$(PYTHON) -m bench --all $(BENCH)

fuzz: setup-tests guest ## longer fuzzing; FUZZ_SECONDS for each target
	FUZZ_SECONDS=$${FUZZ_SECONDS:-60} $(PYTHON) -m pytest tests/fuzz

crash: setup-tests kernel guest ## kill hyperd at every step of every verb: half an hour
	HYPER_CRASH=all $(PYTHON) -m pytest tests/crash -s

wheel: setup-tests kernel-all guest ## a wheel that carries kernel and hyperstart
	.venv/bin/pip wheel --quiet --no-deps --no-build-isolation --wheel-dir dist .

setup:
	@tools/setup

setup-tests:
	@tools/setup --tests

setup-lanes:
	@tools/setup --tests --lanes

setup-bench:
	@tools/setup --tests --bench

clean: ## what was built, but not the caches
	rm -rf dist build $(DATA) && $(MAKE) -s -C guest/hyperstart clean
