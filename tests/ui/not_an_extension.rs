//! `run` is given a type that is no extension.

struct Mine;

fn main() {
    let _running = gofer_sdk::run::<Mine>();
}
