//! An error type of the author's own does not fit where the SDK's is asked for.

use gofer_sdk::{Extension, Gofer, NoConfig, NoParams};

struct Mine;

impl Extension for Mine {
    type Config = NoConfig;
    type Params = NoParams;

    async fn init(_: NoConfig, _: Gofer) -> Result<Self, String> {
        Ok(Self)
    }
}

fn main() {}
