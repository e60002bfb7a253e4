# What one does here. `just` lists it; each line also works typed by hand.

# Lists what can be done.
default:
    @just --list

# Shows the interval extension at work on an embedded Gofer core.
demo *args:
    cargo run --example interval -- {{args}}

# Runs Gofer's command line, such as `just gofer service start`.
gofer *args:
    cargo run --quiet --example gofer -- {{args}}

# Runs all tests.
test:
    cargo test

# Checks formatting, lints and docs, as CI does.
check:
    cargo fmt --check
    cargo clippy --all-targets -- -D warnings
    cargo clippy --lib -- -D warnings
    cargo clippy --lib --features harness -- -D warnings
    cargo clippy -p interval --no-default-features -- -D warnings
    cargo clippy -p gofer -- -D warnings
    cargo clippy --lib --features reflection -- -D warnings
    RUSTDOCFLAGS="-D warnings" cargo doc --no-deps --features harness,reflection

# Generates src/proto again, after a change of a .proto file.
generate:
    UPDATE_PROTO=1 cargo test --test proto

# Measures what the README and the docs promise, against bare tonic.
bench *args:
    cargo bench --bench report -- {{args}}

# Everything that CI does.
ci:
    bash .ci/run
