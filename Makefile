.PHONY: run demo test lab bench fuzz lint fmt

# Start the server on http://localhost:8008. Arguments: make run ARGS="--config postern.toml"
run:
	@bash scripts/run.sh $(ARGS)

# Two enclaves that federate, with an account on each. Ctrl-C ends them; ARGS=--check ends them once all has worked.
demo:
	@bash scripts/demo.sh $(ARGS)

# Run all checks and tests.
test:
	@bash scripts/test.sh

# Five servers over a network that fails, for a while. POSTERN_SEED repeats a run, POSTERN_LAB_SECONDS makes it longer.
lab:
	@bash tests/lab/run.sh $(or $(ARGS),five)

# Measure against other servers.
bench:
	@bash bench/run.sh $(ARGS)

# Run the fuzz targets, 30 seconds each. Arguments: make fuzz ARGS="600 pdu"
fuzz:
	@bash scripts/fuzz.sh $(ARGS)

lint:
	@bash scripts/cargo.sh clippy --workspace --all-targets -- -D warnings

fmt:
	@bash scripts/cargo.sh fmt --all
