//! Info and Subscribe, one and sixty-four at once on one connection, against
//! bare tonic: calls in a second and the server's processor time for each.

use std::time::Duration;

use crate::common::bare::DOCUMENTATION;
use crate::common::client::{Client, Windows};
use crate::common::gofer::Gofer;
use crate::common::process::Process;
use crate::common::report::Table;
use crate::common::roles::Role;
use crate::common::{Options, Result, median, number};

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

/// What one turn took, for each call.
struct Turn {
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

    async fn turn(&mut self, method: Method, calls: usize, in_flight: usize) -> Result<Turn> {
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
        Ok(Turn { wall, cpu: self.server.cpu()?.saturating_sub(before) })
    }
}

pub(crate) async fn measure(options: &Options, table: &mut Table) -> Result<()> {
    let gofer = Gofer::start()?;
    for (method, name) in [(Method::Info, "Info"), (Method::Subscribe, "Subscribe")] {
        for in_flight in [1, 64] {
            let calls = options.pick(if in_flight == 1 { 1_500 } else { 4_000 }, 200);
            let (mut rates, mut costs) = ([Vec::new(), Vec::new()], [Vec::new(), Vec::new()]);
            for round in 0..options.pick(7, 1) {
                // New processes each round: their memory is laid out anew.
                let mut sdk = Side::start(Role::Sdk, &gofer, "").await?;
                let documentation = sdk.client.info().await?.documentation;
                let mut bare = Side::start(Role::Bare, &gofer, &documentation).await?;
                for side in [&mut sdk, &mut bare] {
                    side.turn(method, calls / 2, in_flight).await?;
                }
                for turn in 0..options.pick(8, 2) {
                    // Who goes first changes, in case it matters.
                    let (a, b);
                    if (round + turn) % 2 == 0 {
                        a = sdk.turn(method, calls, in_flight).await?;
                        b = bare.turn(method, calls, in_flight).await?;
                    } else {
                        b = bare.turn(method, calls, in_flight).await?;
                        a = sdk.turn(method, calls, in_flight).await?;
                    }
                    for (of, turn) in [(0, &a), (1, &b)] {
                        rates[of].push(number(calls) / turn.wall.as_secs_f64());
                        costs[of].push(turn.cpu.as_secs_f64() * 1e6 / number(calls));
                    }
                }
            }
            // Of medians: with one call in flight a turn costs half as much again
            // where the scheduler places client and server differently, and a
            // ratio of two such turns says nothing.
            let [sdk, bare] = rates.map(|of| median(&of));
            let ratio = sdk / bare;
            table.promise(
                format!("{name}, {in_flight} in flight: throughput"),
                "≥ 0.95×",
                format!("{ratio:.2}× ({sdk:.0}/s)"),
                format!("{bare:.0}/s"),
                ratio >= 0.95,
            );
            let [sdk, bare] = costs.map(|of| median(&of));
            let ratio = sdk / bare;
            table.promise(
                format!("{name}, {in_flight} in flight: server CPU per call"),
                "≤ 1.10×",
                format!("{ratio:.2}× ({sdk:.1} µs)"),
                format!("{bare:.1} µs"),
                ratio <= 1.10,
            );
        }
    }
    Ok(())
}
