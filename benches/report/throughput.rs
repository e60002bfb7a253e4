//! Info and Subscribe, one and sixty-four at once on one connection, compared with bare tonic:
//! calls per second, and the server's processor time per call.

use std::time::Duration;

use crate::common::bare::DOCUMENTATION;
use crate::common::client::{Client, Windows};
use crate::common::gofer::Gofer;
use crate::common::process::Process;
use crate::common::report::Table;
use crate::common::roles::Role;
use crate::common::{Options, Result, median, number, spread};

#[derive(Clone, Copy)]
enum Method {
    Info,
    Subscribe,
}

/// A server and the client on its one connection.
struct Side {
    server: Process,
    client: Client,
    /// Numbers below it are subscribed.
    subscribed: usize,
}

/// What a batch of calls took.
struct Batch {
    wall: Duration,
    cpu: Duration,
}

impl Side {
    async fn start(role: Role, gofer: &Gofer, documentation: &str) -> Result<Self> {
        let variables = [(DOCUMENTATION, documentation)];
        let server = Process::start_with(role, gofer.port, &variables)?;
        let mut client = Client::connect(server.port, Windows::Default).await?;
        client.init().await?;
        Ok(Self { server, client, subscribed: 0 })
    }

    async fn batch(&mut self, method: Method, calls: usize, in_flight: usize) -> Result<Batch> {
        let before = self.server.cpu()?;
        let wall = match method {
            Method::Info => {
                let info = async |client: &mut Client, _| client.info().await.map(drop);
                self.client.load(0..calls, in_flight, info).await?
            }
            Method::Subscribe => {
                let numbers = self.subscribed..self.subscribed + calls;
                self.subscribed = numbers.end;
                self.client.subscribe_all(numbers, in_flight, "24h").await?
            }
        };
        Ok(Batch { wall, cpu: self.server.cpu()?.saturating_sub(before) })
    }
}

pub(crate) async fn measure(options: &Options, table: &mut Table) -> Result<()> {
    let gofer = Gofer::start()?;
    for (method, name) in [(Method::Info, "Info"), (Method::Subscribe, "Subscribe")] {
        for in_flight in [1, 64] {
            let calls = options.pick(if in_flight == 1 { 1_500 } else { 4_000 }, 200);
            let (mut rates, mut costs) = ([Vec::new(), Vec::new()], [Vec::new(), Vec::new()]);
            for round in 0..options.pick(7, 1) {
                // New processes each round: their memory layout differs.
                let mut sdk = Side::start(Role::Sdk, &gofer, "").await?;
                let documentation = sdk.client.info().await?.documentation;
                let mut bare = Side::start(Role::Bare, &gofer, &documentation).await?;
                for side in [&mut sdk, &mut bare] {
                    side.batch(method, calls / 2, in_flight).await?;
                }
                for batch in 0..options.pick(8, 2) {
                    // They take turns in going first, in case it matters.
                    let (a, b);
                    if (round + batch) % 2 == 0 {
                        a = sdk.batch(method, calls, in_flight).await?;
                        b = bare.batch(method, calls, in_flight).await?;
                    } else {
                        b = bare.batch(method, calls, in_flight).await?;
                        a = sdk.batch(method, calls, in_flight).await?;
                    }
                    for (of, batch) in [(0, &a), (1, &b)] {
                        rates[of].push(number(calls) / batch.wall.as_secs_f64());
                        costs[of].push(batch.cpu.as_secs_f64() * 1e6 / number(calls));
                    }
                }
            }
            // Of medians: with one call in flight a batch costs half as much again if the scheduler
            // places client and server differently, so a ratio of two single batches means nothing.
            let ratio = median(&rates[0]) / median(&rates[1]);
            table.promise(
                format!("{name}, {in_flight} in flight: throughput"),
                "≥ 0.95×",
                format!("{ratio:.2}×, {}", spread(&rates[0], 0, "/s")),
                spread(&rates[1], 0, "/s"),
                ratio >= 0.95,
            );
            let ratio = median(&costs[0]) / median(&costs[1]);
            table.promise(
                format!("{name}, {in_flight} in flight: server CPU per call"),
                "≤ 1.10×",
                format!("{ratio:.2}×, {}", spread(&costs[0], 1, " µs")),
                spread(&costs[1], 1, " µs"),
                ratio <= 1.10,
            );
        }
    }
    Ok(())
}
