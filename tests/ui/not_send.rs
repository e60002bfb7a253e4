//! Something that cannot move between threads is held over an await.

use std::rc::Rc;

use gofer_sdk::{Extension, Gofer, NoConfig, NoParams, Result, Subscription};

struct Mine;

impl Extension for Mine {
    type Config = NoConfig;
    type Params = NoParams;

    async fn init(_: NoConfig, _: Gofer) -> Result<Self> {
        Ok(Self)
    }

    async fn serve(&self, subscription: Subscription<NoParams>) -> Result<()> {
        let shared = Rc::new(1);
        subscription.cancelled().await;
        drop(shared);
        Ok(())
    }
}

fn main() {}
