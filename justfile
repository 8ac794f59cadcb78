# The project's recipes. `just` alone lists them.

_default:
    @just --list

# Everything that must pass, cheapest first: what CI runs
validate:
    bash .ci/run

# Format the code
fmt:
    cargo fmt --all

# Check lints
lint:
    cargo clippy --workspace --all-targets --locked -- -D warnings

# Build the documentation and check its links
doc:
    RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --locked

# Run every test
test:
    cargo test --workspace

# Run the benchmarks: tokentape and a bare epoll loop against the truth, in one run (`just bench --streams 50 --json`)
bench *ARGS:
    cargo bench --bench floor -- {{ARGS}}

# Count the hot path's instructions and hold them against their budgets (needs valgrind)
instructions *PARTS:
    cargo bench --profile dev --bench instructions -- {{PARTS}}

# The whole job on the embedded defaults
demo:
    cargo run --release -- demo
