//! Info with very many subscriptions: how long it takes, and that it never becomes larger than
//! Gofer's client accepts.

use std::time::Instant;

use prost::Message;

use crate::common::client::{Client, Windows};
use crate::common::gofer::Gofer;
use crate::common::process::Process;
use crate::common::report::Table;
use crate::common::roles::Role;
use crate::common::{Options, Result, median, number, spread};

/// What gRPC clients, Gofer's among them, accept as one message.
const MOST: usize = 4 * 1024 * 1024;

pub(crate) async fn measure(options: &Options, table: &mut Table) -> Result<()> {
    let count = options.pick(100_000, 2_000);
    let gofer = Gofer::start()?;
    let sdk = subscribed(Role::Sdk, &gofer, count).await?;
    let bare = subscribed(Role::Bare, &gofer, count).await?;
    for (windows, which) in [(Windows::Default, "default"), (Windows::Wide, "1 MiB")] {
        let mut sdk = Client::connect(sdk.port, windows).await?;
        let mut bare = Client::connect(bare.port, windows).await?;
        let (mut sdks, mut bares) = (Vec::new(), Vec::new());
        for _ in 0..options.pick(25, 3) {
            sdks.push(timed_info(&mut sdk, count).await?);
            bares.push(timed_info(&mut bare, count).await?);
        }
        table.promise(
            format!("Info with {count} subscriptions, client with {which} windows"),
            "≤ 15 ms",
            spread(&sdks, 1, " ms"),
            spread(&bares, 1, " ms"),
            median(&sdks) <= 15.0,
        );
    }
    // The cost of a list that has to be built again.
    let (mut client, mut took) = (Client::connect(sdk.port, Windows::Default).await?, Vec::new());
    for n in 0..options.pick(10, 2) {
        client.unsubscribe(n).await?;
        took.push(timed_info(&mut client, count - 1).await?);
        client.subscribe(n, "24h").await?;
    }
    let what = format!("Info with {count} subscriptions, the first after an Unsubscribe");
    table.note(what, spread(&took, 1, " ms"), "");
    drop((sdk, bare));
    let count = options.pick(1_000_000, 250_000);
    let sdk = subscribed(Role::Sdk, &gofer, count).await?;
    let mut client = Client::connect(sdk.port, Windows::Default).await?;
    let start = Instant::now();
    let info = client.info().await?;
    let took = start.elapsed().as_secs_f64() * 1e3;
    let (bytes, listed) = (info.encoded_len(), info.registered.len());
    let is_noted = info.documentation.contains(&format!("it shows {listed} of {count}"));
    table.promise(
        format!("Info with {count} subscriptions: size"),
        "≤ 4 MiB, with a note that it is cut",
        format!(
            "{:.2} MiB, {listed} listed, {}, {took:.0} ms",
            number(bytes) / number(1024_u64 * 1024),
            if is_noted { "with a note" } else { "without a note" },
        ),
        "",
        bytes <= MOST && is_noted,
    );
    Ok(())
}

async fn subscribed(role: Role, gofer: &Gofer, count: usize) -> Result<Process> {
    let asked = gofer.asked();
    let server = Process::start(role, gofer.port)?;
    let mut client = Client::connect(server.port, Windows::Default).await?;
    client.init().await?;
    client.subscribe_all(0..count, 64, "24h").await?;
    if let Role::Sdk = role {
        // Until all that is started in the background has ended.
        while gofer.asked() < asked + count {
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        }
    }
    Ok(server)
}

/// In milliseconds.
async fn timed_info(client: &mut Client, count: usize) -> Result<f64> {
    let start = Instant::now();
    let info = client.info().await?;
    let took = start.elapsed().as_secs_f64() * 1e3;
    if info.registered.len() != count {
        return Err(format!("Info lists {} of {count}", info.registered.len()).into());
    }
    Ok(took)
}
