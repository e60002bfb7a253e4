//! The demo: what an extension's program does when a person starts it.
//!
//! It runs an embedded core on loopback, installs this program as an extension in its own process,
//! subscribes a demo pipeline and prints a line for each run.

use std::ffi::OsString;
use std::fmt;
use std::io::{self, Write};
use std::pin::pin;
use std::time::Duration;

use gofer_proto::embedded::SubscriptionKey;
use tokio::sync::broadcast::error::RecvError;

use super::core::Core;
use super::installed::Installed;
use gofer_net::{Clock, unix_millis};
use gofer_sdk::internal::{Fields, PREFIX, Signals, misdeclared, run_info, settings_of};
use gofer_sdk::{
    Error, Extension, GoDuration, LogLevel, PipelineId, Result, RunError, RunInfo, SystemConfig,
};

/// What the demo shows: the extension's configuration and the parameters of the demo pipeline's
/// subscription. See [`run_or_demo`].
///
/// ```
/// use gofer_core::Demo;
///
/// // Runs are due every 5 s; each line says how late the run was.
/// let demo = Demo::new("interval")
///     .config("min_interval", "1s")
///     .param("every", "5s")
///     .cadence("every");
/// assert!(format!("{demo:?}").contains("min_interval"));
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct Demo {
    name: String,
    config: Vec<(String, String)>,
    params: Vec<(String, String)>,
    cadence: Option<String>,
    webhooks: Vec<Webhook>,
    /// Which of them are sent once the pipeline is subscribed.
    send: Vec<usize>,
    log_level: LogLevel,
}

/// An example of what a sender sends.
#[derive(Clone, Debug)]
struct Webhook {
    name: String,
    headers: Vec<(String, String)>,
    body: String,
}

impl Demo {
    /// A demo that installs the extension under this name.
    pub fn new(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            config: Vec::new(),
            params: Vec::new(),
            cadence: None,
            webhooks: Vec::new(),
            send: Vec::new(),
            log_level: LogLevel::Warn,
        }
    }

    /// Sets a field of the extension's configuration.
    pub fn config(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        set(&mut self.config, &key.into(), value.into());
        self
    }

    /// Sets a parameter that the demo pipeline subscribes with.
    pub fn param(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        set(&mut self.params, &key.into(), value.into());
        self
    }

    /// Names the parameter that is the time between two runs, so that each line can say how late
    /// the run was. The demo fails if there is no such parameter.
    pub fn cadence(mut self, key: impl Into<String>) -> Self {
        self.cadence = Some(key.into());
        self
    }

    /// Adds an example of a webhook, which `--send <name>` sends to the extension. With the feature
    /// `webhooks`, the demo also listens for external events, on loopback, and shows how `curl`
    /// sends the first example. An extension with a parameter `send` needs another way.
    ///
    /// ```
    /// let demo = gofer_core::Demo::new("inbox").webhook("mail", [("X-Token", "6b8f")], "disk full");
    /// # drop(demo);
    /// ```
    pub fn webhook(
        mut self,
        name: impl Into<String>,
        headers: impl IntoIterator<Item = (impl Into<String>, impl Into<String>)>,
        body: impl Into<String>,
    ) -> Self {
        let headers = headers.into_iter().map(|(name, value)| (name.into(), value.into()));
        let (name, headers, body) = (name.into(), headers.collect(), body.into());
        self.webhooks.push(Webhook { name, headers, body });
        self
    }

    /// The extension's log level; it logs to standard error. Default: [`LogLevel::Warn`].
    pub fn log_level(mut self, level: LogLevel) -> Self {
        self.log_level = level;
        self
    }

    /// Accepts `--key value` and `--key=value` for every parameter and every field of the
    /// configuration. Returns false if help was requested.
    fn read_args(
        &mut self,
        args: impl IntoIterator<Item = OsString>,
        config: &Fields,
        params: &Fields,
    ) -> Result<bool> {
        let args: Result<Vec<_>, _> = args.into_iter().map(OsString::into_string).collect();
        let mut args = args.map_err(|_| usage("an argument is not valid UTF-8"))?.into_iter();
        while let Some(arg) = args.next() {
            let Some(arg) = arg.strip_prefix("--") else {
                let help = arg == "-h";
                return if help { Ok(false) } else { Err(usage("write arguments as --key value")) };
            };
            if arg == "help" {
                return Ok(false);
            }
            let (key, value) = match arg.split_once('=') {
                Some((key, value)) => (key, Some(value.to_owned())),
                None => (arg, args.next()),
            };
            let Some(value) = value else {
                return Err(usage(format!("`--{key}` needs a value")));
            };
            // Rust's underscores may be typed as dashes.
            let key = key.replace('-', "_");
            if let Some(field) = params.named(&key) {
                set(&mut self.params, &field.name, value);
            } else if let Some(field) = config.named(&key) {
                set(&mut self.config, &field.name, value);
            } else if key == "send" && !self.webhooks.is_empty() {
                let example = self.webhooks.iter().position(|webhook| webhook.name == value);
                let unknown = || usage("`--send` takes the name of an example; see --help");
                self.send.push(example.ok_or_else(unknown)?);
            } else {
                return Err(usage(format!("there is no `--{key}`; see --help")));
            }
        }
        Ok(true)
    }

    /// A name in the program that is no parameter's is a mistake in it.
    fn check_cadence(&self, params: &Fields) -> Result<()> {
        let known = |key: &str| {
            params.named(key).is_some() || self.params.iter().any(|(set, _)| set == key)
        };
        match &self.cadence {
            Some(key) if !known(key) => {
                Err(usage(format!("`Demo::cadence`: there is no parameter `{key}`")))
            }
            _ => Ok(()),
        }
    }

    fn period(&self) -> Option<GoDuration> {
        let cadence = self.cadence.as_ref()?;
        let (_, value) = self.params.iter().find(|(key, _)| key == cadence)?;
        value.parse().ok().filter(|period: &GoDuration| period.is_positive())
    }
}

fn set(pairs: &mut Vec<(String, String)>, key: &str, value: String) {
    pairs.retain(|(other, _)| other != key);
    pairs.push((key.to_owned(), value));
}

fn usage(message: impl Into<std::borrow::Cow<'static, str>>) -> Error {
    Error::new(gofer_sdk::ErrorKind::InvalidParameter, message)
}

/// Runs the extension if Gofer has started this program, or else a demo of it.
///
/// If any of Gofer's variables is in the environment, this is [`run`](gofer_sdk::run): an
/// incomplete environment is an error and never falls back to the demo. Otherwise it is the demo:
/// an embedded core on loopback with this program as an extension in its own process and one
/// subscribed pipeline. It prints a line for each run, and on Ctrl-C it stops everything and prints
/// a summary. Parameters and configuration can be set on the command line (`-- --every 2s`; `--
/// --help` lists them).
///
/// If the future is dropped, the same happens as with [`run`](gofer_sdk::run), or the demo's
/// extension is killed.
///
/// ```no_run
/// use gofer_core::{Demo, run_or_demo};
/// # include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/interval.rs"));
///
/// #[tokio::main(flavor = "current_thread")]
/// async fn main() -> Result<(), gofer_core::DemoError> {
///     run_or_demo::<Interval>(Demo::new("interval").param("every", "5s").cadence("every")).await
/// }
/// ```
///
/// # Errors
///
/// [`DemoError::Run`] as for [`run`](gofer_sdk::run), [`DemoError::Demo`] if the demo fails.
pub async fn run_or_demo<E: Extension>(demo: Demo) -> Result<(), DemoError> {
    if SystemConfig::is_in_env() {
        return gofer_sdk::run::<E>().await.map_err(DemoError::Run);
    }
    run_demo::<E>(demo, std::env::args_os().skip(1)).await.map_err(DemoError::Demo)
}

/// Why the extension or its demo failed.
///
/// Its `Debug` output is that of `Display`, since `main` prints errors with `Debug`.
#[non_exhaustive]
pub enum DemoError {
    /// The extension, started by Gofer, failed.
    Run(RunError),
    /// The demo failed.
    Demo(Error),
}

impl fmt::Display for DemoError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Run(error) => error.fmt(f),
            Self::Demo(error) => {
                let text = error.to_string();
                // It is clear which Gofer: the demo's own.
                f.write_str(text.strip_prefix("Gofer: ").unwrap_or(&text))
            }
        }
    }
}

impl fmt::Debug for DemoError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl std::error::Error for DemoError {}

const PIPELINE: &str = "default/demo";
const LABEL: &str = "demo";

async fn run_demo<E: Extension>(
    mut demo: Demo,
    args: impl IntoIterator<Item = OsString>,
) -> Result<()> {
    let (config, params) = (settings_of::<E::Config>(), settings_of::<E::Params>());
    if !demo.read_args(args, &config, &params)? {
        return help(&demo, &config, &params);
    }
    if let Some(why) = misdeclared::<E>() {
        return Err(Error::internal(why));
    }
    demo.check_cadence(&params)?;
    let mut signals = Signals::watch()?;
    let core = Core::builder().listen(([127, 0, 0, 1], 0)).log_level(demo.log_level);
    #[cfg(feature = "webhooks")]
    let core =
        if demo.webhooks.is_empty() { core } else { core.external_events(([127, 0, 0, 1], 0)) };
    let core = core.start().await?;
    let demo_run = async {
        let mut runs = core.store().run_started();
        let extension = core
            .install_program(&demo.name, &std::env::current_exe()?, demo.config.clone())
            .await?;
        let mut report = Report::new(&demo, core.store().clock());
        extension.subscribe(PIPELINE, LABEL, demo.params.clone()).await?;
        greet(&demo, &core, &extension)?;
        for example in &demo.send {
            send(&demo.webhooks[*example], &extension).await?;
        }
        let mut restarts = 0;
        let mut next_tick = pin!(next_tick(&core, &demo));
        let mut is_known = false;
        loop {
            tokio::select! {
                at = &mut next_tick, if !is_known => {
                    is_known = true;
                    report.first_tick(at)?;
                }
                run = runs.recv() => match run {
                    Ok(run) => report.run(&run_info(run))?,
                    Err(RecvError::Lagged(missed)) => report.missed(missed)?,
                    Err(RecvError::Closed) => break,
                },
                () = signals.next() => break,
                status = extension.wait_for(|status| status.restarts > restarts) => {
                    restarts = status.restarts;
                    report.restarted(&status.reason)?;
                }
            }
        }
        report.summary()
    };
    let outcome = demo_run.await;
    core.stop().await;
    outcome
}

fn help(demo: &Demo, config: &Fields, params: &Fields) -> Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "Shows the extension `{}` at work on an embedded Gofer core.\n", demo.name)?;
    for (heading, fields, set) in [
        ("Parameters of the demo subscription", params, &demo.params),
        ("Configuration of the extension", config, &demo.config),
    ] {
        writeln!(out, "{heading}:")?;
        for field in fields.iter() {
            let value = match &field.default {
                // Not the value, which may be a secret.
                _ if set.iter().any(|(key, _)| *key == field.name) => {
                    "set in the program".to_owned()
                }
                Some(default) if default.is_empty() => "default empty".to_owned(),
                Some(default) => format!("default {default}"),
                None if field.required => "required".to_owned(),
                None => "optional".to_owned(),
            };
            writeln!(out, "  --{} ({}; {value})", field.name, field.kind)?;
            for line in field.description.lines().filter(|line| !line.is_empty()) {
                writeln!(out, "      {line}")?;
            }
        }
        writeln!(out)?;
    }
    if !demo.webhooks.is_empty() {
        writeln!(out, "Examples of webhooks, which --send sends:")?;
        for webhook in &demo.webhooks {
            writeln!(out, "  --send {}", webhook.name)?;
        }
        writeln!(out)?;
    }
    writeln!(out, "If Gofer's environment variables ({PREFIX}*) are set,")?;
    Ok(writeln!(out, "this program serves the extension instead.")?)
}

/// When the first run is due, in Unix milliseconds, if the extension follows a schedule. It may be
/// in an hour, and a demo that says nothing until then looks broken.
async fn next_tick(core: &Core, demo: &Demo) -> Option<i64> {
    let (namespace, pipeline) = PIPELINE.split_once('/')?;
    let key = SubscriptionKey {
        namespace_id: namespace.to_owned(),
        pipeline_id: pipeline.to_owned(),
        label: LABEL.to_owned(),
    };
    let mut pause = Duration::from_millis(25);
    loop {
        if let Some(states) =
            core.extensions().subscription_states(&demo.name, vec![key.clone()]).await
        {
            let state = states.first().filter(|state| state.found && !state.has_returned)?;
            // It is known once the extension has asked for the last run.
            if state.next_tick.is_some() {
                return state.next_tick;
            }
        }
        tokio::time::sleep(pause).await;
        pause = (2 * pause).min(Duration::from_secs(1));
    }
}

fn greet(demo: &Demo, core: &Core, extension: &Installed) -> Result<()> {
    // Without the values, which may be secrets.
    let with = |pairs: &[(String, String)]| {
        let list: Vec<_> = pairs.iter().map(|(key, _)| &**key).collect();
        if list.is_empty() { "nothing set".to_owned() } else { format!("set: {}", list.join(", ")) }
    };
    let mut out = io::stdout().lock();
    if let Some(address) = core.address() {
        writeln!(out, "An embedded Gofer core listens on {address}.")?;
    }
    let process = extension.process_id().map(|id| format!(" as process {id}")).unwrap_or_default();
    writeln!(out, "The extension `{}` is running{process} ({}).", demo.name, with(&demo.config))?;
    writeln!(out, "The pipeline {PIPELINE} is subscribed ({}).", with(&demo.params))?;
    invite(demo, core, &mut out)?;
    writeln!(out, "Press Ctrl-C to stop. All times are UTC.\n")?;
    Ok(out.flush()?)
}

/// Says how the examples of webhooks are sent.
fn invite(demo: &Demo, core: &Core, out: &mut impl Write) -> Result<()> {
    let Some(webhook) = demo.webhooks.first() else { return Ok(()) };
    #[cfg(feature = "webhooks")]
    let address = core.external_events_address();
    #[cfg(not(feature = "webhooks"))]
    let (address, _) = (None::<std::net::SocketAddr>, core);
    if let Some(address) = address {
        let url = format!("http://{address}/external/{}", demo.name);
        writeln!(out, "Webhooks are accepted at {url}. In another terminal:\n")?;
        writeln!(out, "  curl {url} \\")?;
        for (name, value) in &webhook.headers {
            writeln!(out, "    -H {} \\", quoted(&format!("{name}: {value}")))?;
        }
        writeln!(out, "    --data-binary {}\n", quoted(&webhook.body))?;
    }
    let names: Vec<_> = demo.webhooks.iter().map(|it| format!("`--send {}`", it.name)).collect();
    Ok(writeln!(out, "An example is also sent by {}.", names.join(" or "))?)
}

/// As a shell takes it.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

async fn send(webhook: &Webhook, extension: &Installed) -> Result<()> {
    let headers = webhook.headers.iter().map(|(name, value)| (name.as_str(), value.as_str()));
    let outcome = extension.post(headers, &webhook.body).await;
    let mut out = io::stdout().lock();
    match outcome {
        Ok(()) => writeln!(out, "Sent the example `{}`: accepted.", webhook.name)?,
        Err(error) => writeln!(out, "Sent the example `{}`: {error}.", webhook.name)?,
    }
    Ok(out.flush()?)
}

/// Prints a line for each run and collects what the summary needs.
struct Report {
    clock: Clock,
    period_millis: Option<i64>,
    /// In Unix milliseconds, just before the pipeline was subscribed.
    subscribed: i64,
    runs: u64,
    lateness: Vec<i64>,
}

/// How many runs the summary's lateness is computed from: more than a day of runs that are five
/// seconds apart.
const MAX_LATENESS: usize = 20_000;

impl Report {
    fn new(demo: &Demo, clock: Clock) -> Self {
        let period_millis = demo.period().map(|period| (period.as_nanos() / 1_000_000).max(1));
        let subscribed = clock.unix_millis();
        Self { clock, period_millis, subscribed, runs: 0, lateness: Vec::new() }
    }

    fn run(&mut self, run: &RunInfo) -> Result<()> {
        self.runs += 1;
        let started = unix_millis(run.started());
        let late = self.period_millis.map(|period| {
            // The first tick comes one period after subscribing.
            let since = started - self.subscribed;
            if since < period { since - period } else { since % period }
        });
        if let Some(late) = late
            && self.lateness.len() < MAX_LATENESS
        {
            self.lateness.push(late);
        }
        let late = late.map(|late| format!(", {late} ms late")).unwrap_or_default();
        let mut out = io::stdout().lock();
        writeln!(
            out,
            "{}  run {} of {}: {}{late}",
            clock_time(started),
            run.id(),
            run.pipeline(),
            run.reason()
        )?;
        Ok(out.flush()?)
    }

    fn restarted(&self, problem: &str) -> Result<()> {
        let now = self.clock.unix_millis();
        let mut out = io::stdout().lock();
        writeln!(out, "{}  restarting the extension: {problem}", clock_time(now))?;
        Ok(out.flush()?)
    }

    fn missed(&mut self, missed: u64) -> Result<()> {
        self.runs += missed;
        Ok(writeln!(io::stdout(), "({missed} runs not shown: they came too fast)")?)
    }

    fn first_tick(&self, at: Option<i64>) -> Result<()> {
        let Some(at) = at.filter(|_| self.runs == 0) else { return Ok(()) };
        let mut out = io::stdout().lock();
        let seconds = ((at - self.clock.unix_millis()).max(0) + 999) / 1000;
        writeln!(out, "The first run is due in {}.", GoDuration::from_secs(seconds))?;
        Ok(out.flush()?)
    }

    fn summary(mut self) -> Result<()> {
        let seconds = (self.clock.unix_millis() - self.subscribed) / 1000;
        let mut out = io::stdout().lock();
        let runs = if self.runs == 1 { "run" } else { "runs" };
        write!(out, "\n{} {runs} of {} in {seconds} s", self.runs, PipelineId::from(PIPELINE))?;
        self.lateness.sort_unstable();
        if let (Some(median), Some(worst)) =
            (self.lateness.get(self.lateness.len() / 2), self.lateness.last())
        {
            write!(out, "; {median} ms late at the median, {worst} ms at worst")?;
        }
        writeln!(out, ".")?;
        Ok(out.flush()?)
    }
}

/// The time of day in UTC, as `12:34:56.789`.
fn clock_time(unix_millis: i64) -> String {
    let of_day = unix_millis.rem_euclid(24 * 60 * 60 * 1000);
    let (seconds, millis) = (of_day / 1000, of_day % 1000);
    let (hour, minute, second) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    format!("{hour:02}:{minute:02}:{second:02}.{millis:03}")
}

#[cfg(test)]
mod tests;
