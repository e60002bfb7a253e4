//! The struct of parameters lacks a derive.

use gofer_sdk::{Extension, Gofer, NoConfig, Result};

#[derive(serde::Deserialize)]
struct Params {
    #[expect(dead_code)]
    every: String,
}

struct Mine;

impl Extension for Mine {
    type Config = NoConfig;
    type Params = Params;

    async fn init(_: NoConfig, _: Gofer) -> Result<Self> {
        Ok(Self)
    }
}

fn main() {}
