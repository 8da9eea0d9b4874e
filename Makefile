# `make` lists the targets. Plain cargo commands work too, once `make setup` has run.

.DEFAULT_GOAL := help
# Each target stands for a command, not for a file of its name.
.PHONY: help setup build data demo test check fuzz golden bench chaos clean
# Targets run cargo, which uses all cores and holds a lock: side by side they'd only wait for each other.
.NOTPARALLEL:

# Further arguments, as in: make test ARGS='--test golden'  or  make demo ARGS='--set train.epochs=2'
ARGS ?=

senet := target/release/senet
# One profile for all: another would compile torch-sys's C++ (minutes) once more, even for clippy and doc.
profile := --release

help: ## list these targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: ## the tools and libtorch (once, 540 MB; 2.4 GB with a GPU); repairs what is broken
	@scripts/setup.sh

data: ## Fashion-MNIST (31 MB) into data/
	@scripts/fetch_fashion_mnist.sh

build: setup ## target/release/senet (the first time some minutes)
	cargo build $(profile)

demo: build data ## train SE-ResNet-20 on Fashion-MNIST, then evaluate it
	$(senet) train $(ARGS)
	$(senet) eval --top5

test: setup data ## all tests
	cargo test $(profile) $(ARGS)

check: setup data ## what has to pass before a commit: format, lints, tests, documentation
	cargo fmt --check
	cargo clippy $(profile) --all-targets -- -D warnings
	cargo test $(profile)
	RUSTDOCFLAGS='-D warnings' cargo doc $(profile) --no-deps --document-private-items

fuzz: setup ## the fuzz targets, or those named: a million inputs each (needs cargo-fuzz)
	scripts/fuzz.sh $(ARGS)

golden: setup ## make the golden numbers of tests/ anew, with PyTorch
	scripts/golden.sh $(ARGS)

bench: setup ## the micro-benchmarks
	cargo bench --bench loading $(ARGS)

chaos: build ## kill trainings, fill their disk, damage their files; an hour (ARGS='--kills 20 --damages 50')
	scripts/chaos.sh $(ARGS)

clean: ## delete what was built; data, runs and the cache stay
	cargo clean
