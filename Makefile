# The commands people type. Each does its own set-up in $(VENV); the second time there is nothing left to do.
#   make train [ENV=Hopper-v5] [STEPS=1000000] [SEED=0] [OUT=folder]      make test [PYTEST_ARGS=...]      make help

# The first Python that will do; the one that the tests of this version ran with comes first.
PYTHON ?= $(shell for python in python3.11 python3 python3.12 python3.13; do \
	$$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$python && break; done)
VENV ?= .venv
BIN := $(VENV)/bin
# Stamps live in the environment that they describe: a new environment starts without any.
STAMPS := $(VENV)/stamps
# Versions; `.ci/versions` gives others.
CONSTRAINTS ?= constraints.txt
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet -c $(CONSTRAINTS)

ENV ?= CartPole-v1
STEPS ?= 100000
SEED ?= 0
OUT ?=
PYTEST_ARGS ?=
BENCH_ARGS ?=
# A revision, or a checkout that is built: `make bench` compares this build with it.
AGAINST ?=

# Compilers at once.
JOBS ?= $(shell getconf _NPROCESSORS_ONLN 2>/dev/null || echo 1)

C_FILES := $(shell find csrc bench -name '*.[ch]')
SOURCES := $(C_FILES) $(wildcard trpo_fast/_core/*.pyx trpo_fast/_core/*.pxd) setup.py

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.SECONDARY:
.PHONY: help train test test-long test-threads docs bench scaling peer-tests report lint format trust trust-faults trust-soak trust-calls trust-sanitize trust-threads fuzz fuzz-planted asan tsan valgrind aarch64 outside instructions instructions-update \
	wheel check-wheel clean

help:
	@echo 'make train    train ENV=$(ENV) for STEPS=$(STEPS) and evaluate the result'
	@echo 'make test     the tests'
	@echo 'make test-long   more of what takes the tests longest: kills, signals, numbers of ranks'
	@echo 'make test-threads   each test of the solvers and of the core in four threads at once'
	@echo 'make docs     the documentation as a site, into build/site; warnings and dead links are errors'
	@echo 'make bench    the benchmarks beside scipy, torch and sb3-contrib; BENCH_ARGS=--grid for all sizes'
	@echo 'make bench AGAINST=8f97cf5   this build beside that revision; BENCH_ARGS="--only F" for rows with F in their name'
	@echo 'make scaling  two ranks under torchrun beside one and the plain program, and the tables of docs/scaling.md'
	@echo 'make peer-tests   tests of scipy, sb3-contrib and Stable-Baselines3 on what takes their place here'
	@echo 'make report   tables and picture of README.md and docs/benchmarks.md from bench/results'
	@echo 'make lint     ruff, mypy, cython-lint, clang-format; changes nothing'
	@echo 'make format   ruff, clang-format, docs/configuration.md, networks.md and report.md, in place'
	@echo 'make asan     the C tests under the address and undefined-behaviour sanitizers'
	@echo 'make tsan     the C tests under the thread sanitizer'
	@echo 'make trust    all of what follows here up to fuzz, in full, test-threads and peer-tests; a day'
	@echo 'make trust-faults     what fails, is killed, raises, hangs or returns nonsense while agents learn; FAULTS="--only Ctrl-C"'
	@echo 'make trust-soak       20,000 updates and set-ups, and what they leave; SOAK="--only actors"'
	@echo 'make trust-sanitize   the extension modules under the address and undefined-behaviour sanitizers, leaks checked'
	@echo 'make trust-threads    agents in threads, and forks beside them, under the thread sanitizer'
	@echo 'make trust-calls      100,000 random calls of the public functions; CALLS=3000'
	@echo 'make fuzz     inputs made by coverage, from a corpus; MINUTES=60 TARGET=policy for long runs'
	@echo 'make fuzz-planted     whether fuzzing finds within a minute that a check is missing; TARGET=policy'
	@echo 'make valgrind aarch64   the C tests under memcheck; cross-compiled, under qemu-user'
	@echo 'make outside  a program in C++ and a shared library, made with the headers and libtrpo.a'
	@echo 'make instructions       the hot kernels against committed instruction counts (instructions-update renews them)'
	@echo 'make wheel    source distribution and, from it, a wheel for every CPython >= 3.11, into dist/, checked'
	@echo 'make check-wheel   that wheel installed without a compiler for each PYTHONS=..., and its self-test'
	@echo 'make clean    remove what building and testing left, but for $(VENV)'

train: $(STAMPS)/core $(STAMPS)/extras-mujoco,plot,tensorboard
	$(BIN)/trpo-fast train $(ENV) --timesteps $(STEPS) --seed $(SEED) --eval-episodes 100 $(if $(OUT),--out $(OUT))

test: $(STAMPS)/core $(STAMPS)/extras-test
	$(BIN)/python -m pytest -p no:benchmark -p no:run-parallel --numprocesses auto --maxprocesses 4 $(PYTEST_ARGS)

# What `make test` leaves out.
test-long:
	$(MAKE) test PYTEST_ARGS='-m long $(PYTEST_ARGS)'

test-threads: $(STAMPS)/core $(STAMPS)/extras-threads
	$(BIN)/python -m pytest -p no:benchmark -p no:xdist --parallel-threads 4 $(or $(PYTEST_ARGS),tests/solvers tests/_core)

docs: $(STAMPS)/core $(STAMPS)/extras-docs
	$(BIN)/python -m sphinx --quiet --fail-on-warning --keep-going --builder html docs build/site
	@echo 'build/site/index.html'

bench: $(STAMPS)/core $(STAMPS)/extras-bench
	$(BIN)/python -m $(if $(AGAINST),bench.side_by_side --against $(AGAINST),pytest -p no:run-parallel bench) $(BENCH_ARGS) $(PYTEST_ARGS)

scaling: $(STAMPS)/core $(STAMPS)/extras-bench
	$(BIN)/python -m bench.scaling $(BENCH_ARGS)
	$(BIN)/python -m bench.scaling_report

peer-tests: $(STAMPS)/core $(STAMPS)/extras-peer-tests
	$(BIN)/python -m bench.peer_tests

report: $(STAMPS)/core $(STAMPS)/extras-bench
	$(BIN)/python -m bench.report

lint: $(STAMPS)/core $(STAMPS)/extras-dev
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	PATH="$(abspath $(BIN)):$$PATH" cython-lint trpo_fast/_core
	$(BIN)/clang-format --dry-run --Werror $(C_FILES)

format: $(STAMPS)/extras-dev
	$(BIN)/ruff check --fix
	$(BIN)/ruff format
	$(BIN)/clang-format -i $(C_FILES)
	$(BIN)/python docs/generate_configuration.py
	$(BIN)/python docs/generate_networks.py
	$(BIN)/python docs/generate_report.py

# All that docs/reliability.md counts: a day of two cores.
trust:
	$(MAKE) trust-sanitize trust-threads trust-calls trust-faults trust-soak test-threads peer-tests
	$(MAKE) fuzz MINUTES=60
	$(MAKE) fuzz-planted

# What docs/reliability.md says of faults and of the soak.
trust-faults: $(STAMPS)/core $(STAMPS)/extras-test
	$(BIN)/python -m tests.trust.faults $(FAULTS)

trust-soak: $(STAMPS)/core $(STAMPS)/extras-test
	$(BIN)/python -m tests.trust.soak $(SOAK)

# What docs/reliability.md says of fuzzing. TARGET: vectors, threads, policy, critic or recurrent, of csrc; logs, settings_files,
# run_folders or model_files, of what reads files; all of them without.
TARGET ?=
MINUTES ?=
fuzz fuzz-planted: $(STAMPS)/core $(STAMPS)/extras-test $(STAMPS)/extras-fuzz
	$(BIN)/python -m tests.fuzz $(if $(TARGET),--target $(TARGET)) \
		$(if $(filter %-planted,$@),--planted,$(if $(MINUTES),--minutes $(MINUTES)))

# What docs/reliability.md says of random calls; goes on where the same code was counted before.
CALLS ?= 100000
trust-calls: $(STAMPS)/core $(STAMPS)/extras-test
	$(BIN)/python -m tests.trust.calls --calls $(CALLS) --out bench/results/trust/calls.json

# The extension modules once more, of instrumented code, in build/sanitized-...; SANITIZE_ARGS=--sample is what .ci/run has time for.
SANITIZE_ARGS ?= --out bench/results/trust/$(if $(filter %-threads,$@),threads,sanitize).json
trust-sanitize trust-threads: $(STAMPS)/core $(STAMPS)/extras-test
	$(BIN)/python -m tests.trust.sanitize $(if $(filter %-threads,$@),--threads) $(SANITIZE_ARGS)

asan:
	$(MAKE) -j $(JOBS) -C csrc/tests

tsan valgrind aarch64 outside instructions instructions-update:
	$(MAKE) -j $(JOBS) -C csrc/tests $@

# On Linux the symbols asked for decide how old a system the wheel is for; without its own LDSHARED an interpreter may add
# the folder where it was installed to the path that libraries are searched on.
wheel: $(STAMPS)/extras-release
	rm -rf dist
ifeq ($(shell uname),Linux)
	LDSHARED='$(CC) -shared' $(BIN)/python -m build --no-isolation --outdir dist
	PATH="$(abspath $(BIN)):$$PATH" auditwheel repair --strip --plat manylinux_2_28_$(shell uname -m) --wheel-dir dist \
		dist/*-linux_*.whl
	rm dist/*-linux_*.whl
else
	$(BIN)/python -m build --no-isolation --outdir dist
endif
	$(BIN)/abi3audit --strict --summary dist/*.whl
	$(BIN)/check-wheel-contents dist/*.whl
	$(BIN)/twine check --strict dist/*
	@ls -l dist

check-wheel:
	.ci/check-wheel dist/*.whl

clean:
	$(MAKE) -C csrc clean
	$(MAKE) -C csrc/tests clean
	rm -rf build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .benchmarks
	rm -f trpo_fast/_core/*.so trpo_fast/_core/*.c $(STAMPS)/core
	find trpo_fast tests bench docs -name __pycache__ -type d -prune -exec rm -rf {} +

# What a build without isolation needs beforehand; later versions come from $(CONSTRAINTS).
$(STAMPS)/build: $(CONSTRAINTS)
	@test -n '$(PYTHON)' || { echo 'no Python >= 3.11 found; say which: make PYTHON=...'; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(PIP) setuptools wheel cython
	@mkdir -p $(STAMPS) && touch $@

# A module of one Python version, as earlier builds left them, would be found before that of all versions.
$(STAMPS)/core: $(SOURCES) $(STAMPS)/build
	rm -f trpo_fast/_core/*.so
	$(BIN)/python setup.py --quiet build_clib build_ext --inplace
	@touch $@

# Takes over what was compiled in place. What follows asks for the extras of what is installed, and so is quick, too.
$(STAMPS)/package: pyproject.toml $(CONSTRAINTS) | $(STAMPS)/core
	$(PIP) --no-build-isolation --no-deps -e .
	@touch $@

$(STAMPS)/extras-%: $(STAMPS)/package
	@echo 'installing what trpo-fast[$*] needs into $(VENV): minutes the first time'
	$(PIP) 'trpo-fast[$*]'
	@touch $@
