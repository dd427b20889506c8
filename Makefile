.PHONY: run test fmt

# Start the server on http://localhost:8008.
run:
	@bash scripts/run.sh

# Run all checks and tests.
test:
	@bash scripts/test.sh

fmt:
	cargo fmt --all
