# Short names for the commands of CONTRIBUTING.md. `just` lists them.

_default:
    @just --list --unsorted

# Format, clippy and documentation
check:
    cargo fmt --check
    cargo clippy --locked --all-targets -- -D warnings
    RUSTDOCFLAGS='-D warnings' cargo doc --no-deps --locked

# Unit tests: no mount, no server
fast:
    cargo test --lib --test layers

# Suites with real mounts
mounts:
    cargo test --test semantics --test names --test reading --test faults --test staging

# One suite, or some of its tests: `just one staging moved`
one SUITE *NAMES:
    cargo test --test {{SUITE}} -- {{NAMES}}

# Everything, after installing what the tests use
test:
    scripts/test

# A small store, mounted and shown
demo:
    scripts/demo

# What a release consists of, in dist/, and everything that tries it
release:
    scripts/dist
    sudo scripts/try-dist
    sudo scripts/transcript
