# The usual tasks. `just` lists them; each line also works typed by hand.

# Lists the recipes.
default:
    @just --list

# Shows the interval extension at work on an embedded Gofer core.
demo *args:
    cargo run --example interval -- {{args}}

# Runs Gofer's command line, such as `just gofer service start`.
gofer *args:
    cargo run --quiet -p gofer-cli -- {{args}}

# Runs all tests.
test:
    cargo test

# Checks formatting, lints and docs, with all features.
check:
    cargo fmt --check
    cargo clippy --workspace --all-targets --all-features -- -D warnings
    RUSTDOCFLAGS="-D warnings" cargo doc --no-deps --workspace --all-features

# Generates the contract's code again, after a change of a .proto file.
generate:
    UPDATE_PROTO=1 cargo test -p gofer-proto --test contract

# Measures what the README and the docs promise, compared with bare tonic.
bench *args:
    cargo bench --bench report -- {{args}}

# Measures `cargo test` of the README's extension after a change of one line.
rebuild *args:
    benches/rebuild {{args}}

# Counts the lines of code, without generated code and tests in files of their own.
lines:
    @git ls-files 'src/*.rs' 'crates/*.rs' 'examples/*.rs' \
        | grep -Ev '(^|/)tests(/|\.rs$)|^crates/gofer-proto/src/(contract|embedded|server)\.rs$' \
        | xargs cat | wc -l

# Everything that CI does.
ci:
    bash .ci/run
