//! `serve` takes other parameters than the extension declares.

use gofer_sdk::{Extension, GoDuration, Gofer, NoConfig, NoParams, Result, Subscription};

#[derive(serde::Deserialize, schemars::JsonSchema)]
struct Params {
    #[expect(dead_code)]
    every: GoDuration,
}

struct Mine;

impl Extension for Mine {
    type Config = NoConfig;
    type Params = Params;

    async fn init(_: NoConfig, _: Gofer) -> Result<Self> {
        Ok(Self)
    }

    async fn serve(&self, subscription: Subscription<NoParams>) -> Result<()> {
        subscription.cancelled().await;
        Ok(())
    }
}

fn main() {}
