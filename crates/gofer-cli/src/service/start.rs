//! `gofer service start`: the embedded core as a program.

use std::ffi::OsString;
use std::io::{self, IsTerminal as _, Write as _};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anstyle::Style;
use clap::{Args, ValueEnum};
use gofer_core::Core;
use gofer_proto as proto;
use gofer_sdk::LogLevel;
use serde_json::json;
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::filter::LevelFilter;

use crate::failure::Failure;
use crate::output::{Out, note};
use crate::settings::Connection;

/// Its secrets' key; not a flag, which others on the machine can read.
const ENCRYPTION_KEY: &str = "GOFER_ENCRYPTION_KEY";

#[derive(Args)]
pub(crate) struct Start {
    /// The address to listen on; port 0 is any that is free.
    #[arg(long, env = "GOFER_LISTEN", default_value = crate::settings::ADDRESS)]
    listen: SocketAddr,
    /// The file that everything is kept in; made where there is none.
    #[arg(long, env = "GOFER_STORE", value_name = "FILE", default_value = "gofer.redb")]
    store: PathBuf,
    /// Keep nothing, whatever --store says: what there is ends with the core.
    #[arg(long)]
    in_memory: bool,
    /// A certificate (PEM) of your own to show, in place of the one beside the store.
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    tls_cert: Option<PathBuf>,
    /// Its key (PEM).
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    tls_key: Option<PathBuf>,
    /// Take webhooks on this address, as POST /external/<extension>.
    #[arg(long, env = "GOFER_EXTERNAL_EVENTS", value_name = "ADDRESS")]
    external_events: Option<SocketAddr>,
    /// Take them over HTTPS, with this certificate (PEM).
    #[arg(long, value_name = "FILE", requires_all = ["external_events", "external_events_key"])]
    external_events_cert: Option<PathBuf>,
    /// Its key (PEM).
    #[arg(long, value_name = "FILE", requires = "external_events_cert")]
    external_events_key: Option<PathBuf>,
    /// Execute runs with this program; all that follows are its arguments.
    #[arg(long, value_name = "PROGRAM", num_args = 1.., allow_hyphen_values = true)]
    run_command: Option<Vec<OsString>>,
    /// How many runs are executed at a time.
    #[arg(long, value_name = "NUMBER", default_value_t = 64, requires = "run_command")]
    runs_at_a_time: usize,
    /// Make a management token and show it, for who has lost the last one.
    #[arg(long)]
    new_token: bool,
    /// How much the core and its extensions log, to the standard error.
    #[arg(long, value_enum, default_value = "info", value_name = "LEVEL")]
    log_level: Level,
}

#[derive(Clone, Copy, ValueEnum)]
enum Level {
    Debug,
    Info,
    Warn,
    Error,
}

impl Level {
    fn of_extensions(self) -> LogLevel {
        match self {
            Self::Debug => LogLevel::Debug,
            Self::Info => LogLevel::Info,
            Self::Warn => LogLevel::Warn,
            Self::Error => LogLevel::Error,
        }
    }

    fn of_core(self) -> LevelFilter {
        match self {
            Self::Debug => LevelFilter::DEBUG,
            Self::Info => LevelFilter::INFO,
            Self::Warn => LevelFilter::WARN,
            Self::Error => LevelFilter::ERROR,
        }
    }
}

pub(crate) async fn run(start: Start, connection: &Connection, out: Out) -> Result<(), Failure> {
    log(start.log_level.of_core());
    // Before anything is started: a signal that comes meanwhile is kept.
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut builder =
        Core::builder().listen(start.listen).log_level(start.log_level.of_extensions());
    if !start.in_memory {
        builder = builder.store(&start.store);
    }
    if let Some(key) = std::env::var(ENCRYPTION_KEY).ok().filter(|key| !key.is_empty()) {
        builder = builder.encryption_key(key);
    }
    if let (Some(certificate), Some(key)) = (&start.tls_cert, &start.tls_key) {
        builder = builder.tls(read(certificate)?, read(key)?);
    }
    if let Some(address) = start.external_events {
        builder = builder.external_events(address);
    }
    if let (Some(certificate), Some(key)) =
        (&start.external_events_cert, &start.external_events_key)
    {
        builder = builder.external_events_tls(read(certificate)?, read(key)?);
    }
    if let Some([program, arguments @ ..]) = start.run_command.as_deref() {
        builder = builder.run_command(program, arguments).runs_at_a_time(start.runs_at_a_time);
    }
    let core = builder.start().await.map_err(|error| {
        let failure = Failure::from(error);
        failure.hint(format!(
            "it was to listen on {} and keep its store in `{}`: --listen and --store choose others",
            start.listen,
            start.store.display()
        ))
    })?;
    let address = core.address().unwrap_or(start.listen);
    tell(&start, &core, address, connection, out)?;
    if start.new_token {
        new_token(&core, out).await?;
    }
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
    note("Stopping; a second signal does not wait.")?;
    tokio::select! {
        () = core.stop() => note("Stopped."),
        _ = interrupt.recv() => note("Not waiting any longer."),
        _ = terminate.recv() => note("Not waiting any longer."),
    }?;
    Ok(())
}

fn read(path: &Path) -> Result<String, Failure> {
    std::fs::read_to_string(path).map_err(|error| Failure::file("read", path, &error))
}

/// To the standard error: the standard output tells where the core is.
fn log(level: LevelFilter) {
    tracing_subscriber::fmt()
        .with_max_level(level)
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal())
        .init();
}

/// Where it is, and at its first start how to log in.
fn tell(
    start: &Start,
    core: &Core,
    address: SocketAddr,
    connection: &Connection,
    out: Out,
) -> Result<(), Failure> {
    let store = if start.in_memory { None } else { Some(std::path::absolute(&start.store)?) };
    let certificate = match (&start.tls_cert, &store) {
        (Some(given), _) => Some(std::path::absolute(given)?),
        (None, Some(store)) => {
            let mut path = store.clone().into_os_string();
            path.push(".crt");
            Some(PathBuf::from(path))
        }
        (None, None) => None,
    };
    let show = |path: &Option<PathBuf>| path.as_ref().map(|path| path.display().to_string());
    let trust = match show(&certificate) {
        Some(path) => format!("--ca {}", quoted(&path)),
        // Known to nobody, and to be gone with the process.
        None => "--skip-tls-verify".to_owned(),
    };
    let webhooks = core.external_events_address().map(|address| {
        let scheme = if start.external_events_cert.is_some() { "https" } else { "http" };
        format!("{scheme}://{address}/external/<extension>")
    });
    let is_new = core.awaits_first_token();
    let log_in = format!("gofer --address {} {trust} token bootstrap --save", reachable(address));
    if out.json {
        return Ok(out.document(&json!({
            "address": address.to_string(),
            "store": show(&store),
            "certificate": show(&certificate),
            "webhooks": webhooks,
            "log_in": is_new.then_some(&log_in),
        }))?);
    }
    let bold = Style::new().bold();
    let mut stdout = anstream::stdout().lock();
    writeln!(stdout, "Gofer listens on {address}.")?;
    for (label, path) in [("store", show(&store)), ("certificate", show(&certificate))] {
        let path = path.unwrap_or_else(|| "none: nothing is kept".to_owned());
        writeln!(stdout, "  {label:<12} {path}")?;
    }
    if let Some(webhooks) = webhooks {
        writeln!(stdout, "  {:<12} {webhooks}", "webhooks")?;
    }
    if is_new {
        let file = connection
            .file()
            .map_or_else(|_| "a configuration file".to_owned(), |path| path.display().to_string());
        writeln!(stdout, "\nNobody has logged in so far. In another terminal:\n")?;
        writeln!(stdout, "  {bold}{log_in}{bold:#}\n")?;
        writeln!(stdout, "makes the first token, once, and keeps it in {file}.")?;
    }
    Ok(stdout.flush()?)
}

/// Whoever may start a core on a store may do everything with it anyway.
async fn new_token(core: &Core, out: Out) -> Result<(), Failure> {
    let request = proto::CreateTokenRequest {
        kind: proto::create_token_request::Kind::Management.into(),
        ..Default::default()
    };
    let token = core.client().api().create_token(request).await?.into_inner().token;
    Ok(out.done(
        &format!("\nA new management token, shown once: {token}"),
        &json!({ "token": token }),
    )?)
}

/// Where it listens on every address, this machine is one of them.
fn reachable(address: SocketAddr) -> String {
    if address.ip().is_unspecified() {
        format!("localhost:{}", address.port())
    } else {
        address.to_string()
    }
}

/// For a shell.
fn quoted(text: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "/._-+:@%=,".contains(c);
    if text.chars().all(is_plain) {
        text.to_owned()
    } else {
        format!("'{}'", text.replace('\'', r"'\''"))
    }
}
