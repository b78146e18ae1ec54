# Recipes are one-line front doors: what they run is `ward` and cargo.
set positional-arguments

ward := "cargo run --quiet --release --package agents --bin ward --"

# list the recipes
default:
    @just --list

# run a whole study on this machine: `just up`, `just up alice=1 bob=2 charlie=3`, `just up --csv FILE --column C`
up *args:
    {{ ward }} up "$@"

# any command of ward: `just ward hospital sum`, `just ward --help`
ward *args:
    {{ ward }} "$@"

# run the broker of the home
broker *args:
    {{ ward }} broker "$@"

# run the server
server *args:
    {{ ward }} server "$@"

# run a patient: `just patient alice 100`
patient *args:
    {{ ward }} patient "$@"

# ask for the sum: `just hospital`, `just hospital --new`
hospital *args:
    {{ ward }} hospital sum "$@"

# follow the board: who writes what to whom, never a payload
watch *args:
    {{ ward }} watch "$@"

# run all tests: units, properties, the hostile network, and the real broker
test *args:
    cargo test --release --workspace --locked "$@"

# formatting, lints and docs, warnings denied
lint:
    cargo fmt --all --check
    cargo clippy --release --workspace --all-targets --locked -- -D warnings
    RUSTDOCFLAGS="-D warnings" cargo doc --release --workspace --no-deps --document-private-items --locked

# what Ward is made of: licences, sources, bans, duplicates
deny:
    cargo deny --locked check bans licenses sources

# known vulnerabilities in what Ward is made of: fetches the advisory database
advisories:
    cargo deny --locked check advisories

# all that CI runs
check: lint deny test

# measure the kernels of the protocol
bench:
    cargo bench --package protocol --locked

# measure secure rounds against plain vectors over a broker: `just bench-rounds --patients 100 --drop 10`
bench-rounds *args:
    {{ ward }} bench "$@"

# play a million small studies in which everything goes wrong: `just soak --seed 7 --seeds 1000`
soak *args:
    {{ ward }} simulate --faults --seeds 1000000 "$@"

# play 20,000 other ones in a few minutes, on a build of its own with stand-ins for slow cryptography
simulate-stub:
    RUSTFLAGS="${RUSTFLAGS:-} --cfg ward_stub_crypto" cargo test --release --package protocol --locked \
        --lib --test simulation --target-dir "${CARGO_TARGET_DIR:-target}/stub"

# play 200 studies of real processes that are killed, stopped, cut off and out of disk: `just chaos --scenarios 10 --seed 7`
chaos *args:
    cargo test --quiet --release --package agents --test chaos --locked -- --scenarios 200 "$@"

# Some changes make a loop that ends when there is no more memory: less than all of the machine's is given to it.
# change the product's code, one thing at a time, and say which seed notices: `just mutants --shard 0/10`
mutants *args:
    ulimit -v 8388608 && RUSTFLAGS="${RUSTFLAGS:-} --cfg ward_stub_crypto" cargo mutants "$@" || case $? in 2 | 3) ;; *) exit 1 ;; esac
    cargo run --quiet --package protocol --example mutants

# Targets of libFuzzer, which take nightly Rust and `cargo install cargo-fuzz`: frame, part, handle, restore, text, sealed,
# caretaker, address, certificate. What the `ward` binary reads itself is out of libFuzzer's reach: table, profile and offer are
# mutated by their own tests, from a fixed seed, `WARD_MUTATIONS` of them or a hundred million.
# look for inputs that panic, for hours: `just fuzz certificate`, `just fuzz table`
fuzz target="part" *args:
    #!/usr/bin/env bash
    set -euo pipefail
    shift
    folder=protocol
    case "{{ target }}" in
    table | profile | offer)
        export WARD_MUTATIONS="${WARD_MUTATIONS:-100000000}"
        exec cargo test --release --package agents --lib --locked "fuzz::bad_{{ target }}s_are_refused" -- --exact "$@"
        ;;
    certificate) folder=certs ;;
    address) folder=nats ;;
    esac
    mkdir -p "protocol/fuzz/corpus/{{ target }}"
    cargo +nightly fuzz run --fuzz-dir protocol/fuzz "{{ target }}" "protocol/fuzz/corpus/{{ target }}" \
        "$folder/tests/corpus/{{ target }}" "$@"
