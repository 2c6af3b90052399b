set shell := ["bash", "-euo", "pipefail", "-c"]

# The list of recipes
default:
    @just --list

# Whether it compiles: everything, tests and benches included
check:
    cargo check --locked --all-targets

# Run the tests, or those whose names contain the filter
test *filter:
    cargo test --locked {{filter}}

# Simulated weeks with faults from these seeds (a failing one prints how to repeat it alone)
simulate seeds="1000" from="1":
    SIM_SEEDS={{seeds}} SIM_FROM={{from}} cargo test --locked --test it simulation::hunt::whatever

# Format the code
fmt:
    cargo fmt --all

# Lints, as strict as they must be
lint:
    cargo clippy --locked --all-targets -- -D warnings

# The documentation of the code, in target/doc
docs:
    RUSTDOCFLAGS="-D warnings" cargo doc --locked --no-deps

# Licences, advisories and sources of dependencies (needs cargo-deny)
deny:
    cargo deny --locked check bans licenses sources advisories

# Spelling (needs typos)
typos:
    typos

# Everything that must pass before a change lands
ci:
    .ci/run

# The tour: simulated providers, a daemon and a receiver, in under 20 seconds
demo:
    cargo run --release --locked -- demo

# Simulated providers to try things against, such as `just sandbox --speed 600`
sandbox *arguments:
    cargo run --locked -- sandbox {{arguments}}

# One of the benches; benches/README.md lists them
bench name:
    cargo bench --locked --bench {{name}}

# Kill the daemon again and again under every load, at moments from the seed (none: a new one)
torture kills="500" seed="":
    BATCHD_TORTURE_KILLS={{kills}} BATCHD_TORTURE_SEED={{ if seed == "" { `echo $RANDOM$RANDOM` } else { seed } }} \
        cargo test --locked --test torture kills -- --nocapture

# Kill, freeze and cut off daemons that share a PostgreSQL, and restart that, for over an hour (none: a new seed)
cluster seed="" *cases:
    tests/cluster/run {{ if seed == "" { `date +%s` } else { seed } }} {{cases}}

# Providers, receivers and clients that lie, drip, flood or hang; all cases, or those whose names contain the filter
hostile *filter:
    cargo test --locked --test hostile {{filter}}

# Run N mutations of what is recorded through every reader of bytes from outside (BATCHD_FUZZ_SEED, BATCHD_FUZZ_TARGET)
fuzz executions="10000000":
    BATCHD_FUZZ_EXECUTIONS={{executions}} cargo test --release --locked --test it fuzz::no_mutation -- --nocapture

# Packages and units under a real systemd, such as `just systemd --suite trixie` (needs root, systemd-nspawn, mmdebstrap)
systemd *arguments:
    tests/systemd/run {{arguments}}

# What a release consists of, in target/packages: .deb, .rpm, tarball, SBOM; or those of them that are named
packages *parts:
    packaging/build {{parts}}

# The binary that is released
dist:
    cargo build --profile dist --locked
