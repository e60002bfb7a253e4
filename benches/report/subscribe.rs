//! A hundred thousand subscriptions, as Gofer restores them when it starts.

use std::time::Duration;

use crate::common::client::{Client, Windows};
use crate::common::gofer::Gofer;
use crate::common::process::Process;
use crate::common::report::Table;
use crate::common::roles::Role;
use crate::common::{Options, Result, median, spread};

pub(crate) async fn measure(options: &Options, table: &mut Table) -> Result<()> {
    let count = options.pick(100_000, 2_000);
    let gofer = Gofer::start()?;
    for (in_flight, how) in [(1, "one after the other"), (64, "64 at once")] {
        let (mut ratios, mut sdks, mut bares) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..options.pick(3, 1) {
            let sdk = restore(Role::Sdk, &gofer, count, in_flight).await?.as_secs_f64();
            let bare = restore(Role::Bare, &gofer, count, in_flight).await?.as_secs_f64();
            ratios.push(sdk / bare);
            sdks.push(sdk);
            bares.push(bare);
        }
        let ratio = median(&ratios);
        table.promise(
            format!("{count} subscriptions, {how}"),
            "≤ 1.2×",
            format!("{}, {}", spread(&ratios, 2, "×"), spread(&sdks, 2, " s")),
            spread(&bares, 2, " s"),
            ratio <= 1.2,
        );
    }
    Ok(())
}

async fn restore(role: Role, gofer: &Gofer, count: usize, in_flight: usize) -> Result<Duration> {
    let server = Process::start(role, gofer.port)?;
    let mut client = Client::connect(server.port, Windows::Default).await?;
    client.init().await?;
    client.subscribe_all(0..count, in_flight, "24h").await
}
