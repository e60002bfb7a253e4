//! `gofer service start`: the embedded core as a program.

use std::ffi::{OsStr, OsString};
use std::io::{self, IsTerminal as _, Write as _};
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use anstyle::Style;
use clap::{Args, ValueEnum};
use gofer_core::Core;
use gofer_core::internal::is_caught;
use gofer_net::log::{LogWriter, is_transport};
use gofer_net::tls::Served;
use gofer_proto as proto;
use gofer_sdk::LogLevel;
use serde_json::json;
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::filter::{LevelFilter, filter_fn};
use tracing_subscriber::layer::{Layer as _, SubscriberExt as _};
use tracing_subscriber::util::SubscriberInitExt as _;

use super::access::{Access, AccessArgs};
use crate::failure::Failure;
use crate::output::{Out, say, visible};
use crate::session::read_pem;
use crate::settings::Connection;

/// The key that secrets are encrypted with. Not a flag: other users of the machine can read those.
const ENCRYPTION_KEY: &str = "GOFER_ENCRYPTION_KEY";

#[derive(Args)]
pub(crate) struct StartCore {
    /// Address to listen on; port 0 picks a free port.
    #[arg(long, env = "GOFER_LISTEN", value_name = "ADDRESS", default_value = crate::settings::ADDRESS, value_parser = socket_address)]
    listen: SocketAddr,
    /// File that holds the core's state; created if it does not exist.
    #[arg(long, env = "GOFER_STORE", value_name = "FILE", default_value = "gofer.redb")]
    pub(super) store: PathBuf,
    /// Keep the state in memory only, whatever --store says.
    #[arg(long)]
    pub(super) in_memory: bool,
    /// Certificate (PEM) to use instead of the generated one next to the store.
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    tls_cert: Option<PathBuf>,
    /// Key (PEM) of --tls-cert.
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    tls_key: Option<PathBuf>,
    /// Accept webhooks on this address, as POST requests to /external/NAME.
    #[arg(long, env = "GOFER_EXTERNAL_EVENTS", value_name = "ADDRESS", value_parser = socket_address)]
    external_events: Option<SocketAddr>,
    /// Certificate (PEM) to accept webhooks over HTTPS.
    #[arg(long, value_name = "FILE", requires_all = ["external_events", "external_events_key"])]
    external_events_cert: Option<PathBuf>,
    /// Key (PEM) of --external-events-cert.
    #[arg(long, value_name = "FILE", requires = "external_events_cert")]
    external_events_key: Option<PathBuf>,
    /// Program to execute for each run; everything that follows is its arguments.
    #[arg(long, value_name = "PROGRAM", num_args = 1.., allow_hyphen_values = true)]
    run_command: Option<Vec<OsString>>,
    /// Maximum number of runs to execute at the same time.
    #[arg(long, value_name = "NUMBER", default_value_t = 64, requires = "run_command")]
    runs_at_a_time: usize,
    #[command(flatten)]
    pub(super) access: AccessArgs,
    /// How much the core and its extensions log to standard error.
    #[arg(long, value_enum, default_value = "info", value_name = "LEVEL")]
    log_level: Level,
}

#[derive(Clone, Copy, ValueEnum)]
enum Level {
    /// All that debug shows, and what HTTP/2 and TLS do.
    Trace,
    Debug,
    Info,
    Warn,
    Error,
}

impl Level {
    fn of_extensions(self) -> LogLevel {
        match self {
            Self::Trace => LogLevel::Trace,
            Self::Debug => LogLevel::Debug,
            Self::Info => LogLevel::Info,
            Self::Warn => LogLevel::Warn,
            Self::Error => LogLevel::Error,
        }
    }

    fn of_core(self) -> LevelFilter {
        match self {
            Self::Trace => LevelFilter::TRACE,
            Self::Debug => LevelFilter::DEBUG,
            Self::Info => LevelFilter::INFO,
            Self::Warn => LevelFilter::WARN,
            Self::Error => LevelFilter::ERROR,
        }
    }
}

pub(crate) async fn run(
    start: StartCore,
    connection: &Connection,
    out: Out,
) -> Result<(), Failure> {
    if let Some(address) = connection.address_flag() {
        return Err(Failure::usage("--address is for commands that connect to Gofer")
            .hint(format!("`--listen {address}` sets the address that a core listens on")));
    }
    if let Some([program, ..]) = start.run_command.as_deref() {
        check_program(program)?;
    }
    let log = log(start.log_level.of_core());
    // Before anything is started, so that no signal is lost.
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut builder =
        Core::builder().listen(start.listen).log_level(start.log_level.of_extensions());
    if !start.in_memory {
        builder = builder.store(&start.store);
    }
    let mut served = None;
    if let Some(key) = std::env::var(ENCRYPTION_KEY).ok().filter(|key| !key.is_empty()) {
        builder = builder.encryption_key(key);
    }
    if let (Some(certificate), Some(path)) = (&start.tls_cert, &start.tls_key) {
        let (chain, key, checked) = read(["--tls-cert", "--tls-key"], certificate, path)?;
        served = Some(checked);
        builder = builder.tls(chain, key);
    }
    if let Some(address) = start.external_events {
        builder = builder.external_events(address);
    }
    if let (Some(certificate), Some(path)) =
        (&start.external_events_cert, &start.external_events_key)
    {
        let flags = ["--external-events-cert", "--external-events-key"];
        let (chain, key, _) = read(flags, certificate, path)?;
        builder = builder.external_events_tls(chain, key);
    }
    if start.access.allow_programs {
        builder = builder.allow_programs();
    }
    if let Some([program, arguments @ ..]) = start.run_command.as_deref() {
        builder = builder.run_command(program, arguments).runs_at_a_time(start.runs_at_a_time);
    }
    if start.access.allow_bootstrap {
        builder = builder.allow_bootstrap();
    }
    let core = builder.start().await.map_err(not_started)?;
    let address = core.address().unwrap_or(start.listen);
    let reached = reached_at(address, served.as_ref());
    if served.as_ref().is_some_and(|served| !served.is_for(host(&reached))) {
        tracing::warn!(
            address = reached,
            "the certificate in --tls-cert is not for this address: clients have to use one that \
             it is for"
        );
    }
    if address.ip().is_unspecified() && served.is_none() {
        tracing::warn!(
            "the generated certificate is for this machine only: for clients on others, set one \
             that is for the name or address that they use, with --tls-cert and --tls-key"
        );
    }
    let access = Access::of(&start, &core, reached.clone(), connection, &log).await;
    // From here on, only its own failure ends a core, and not that of a reader of its output.
    announced(announce(&start, &core, (address, &reached), &access, out));
    if start.access.new_token {
        announced(new_token(&start, &core, out).await);
    } else {
        access.warn(&log);
    }
    let outcome = tokio::select! {
        _ = interrupt.recv() => Ok(()),
        _ = terminate.recv() => Ok(()),
        error = core.failure() => {
            tracing::error!(%error, "stopping the core, which cannot go on");
            Err(Failure::new(format!("the core could not go on: {error}")))
        }
    };
    say(&log, "Stopping. A second signal stops immediately.");
    access.forget();
    let end = tokio::select! {
        () = core.stop() => "Stopped.",
        _ = interrupt.recv() => "Stopped immediately.",
        _ = terminate.recv() => "Stopped immediately.",
    };
    say(&log, end);
    log.finish();
    outcome
}

/// Names the flag of what is wrong, if it has one.
fn not_started(error: gofer_sdk::Error) -> Failure {
    let message = error.to_string();
    let is_of = |what| message.starts_with(what);
    let hint = if is_of("cannot listen for external events") {
        "--external-events sets another address"
    } else if is_of("cannot listen") {
        "--listen or GOFER_LISTEN sets another address"
    } else if is_of("configuration `encryption_key`") {
        "GOFER_ENCRYPTION_KEY sets it; without that, a new store has a key in a file"
    } else if is_of("the store `") && message.contains("` cannot be ") {
        "--store or GOFER_STORE sets another file"
    } else {
        // What else is wrong with a store says what to do.
        return error.into();
    };
    Failure::from(error).hint(hint)
}

/// Reports on standard output that fail are only logged.
fn announced(outcome: Result<(), Failure>) {
    if let Err(failure) = outcome {
        tracing::warn!(error = failure.message(), "the core runs, and could not report it");
    }
}

/// A certificate that clients may accept, and its key. `flags` set their files.
fn read(
    flags: [&str; 2],
    certificate: &Path,
    key: &Path,
) -> Result<(String, String, Served), Failure> {
    let another = |failure: Failure, flag| failure.hint(format!("{flag} sets another file"));
    let text = |path, flag| read_pem(path).map_err(|failure| another(failure, flag));
    let (chain, secret) = (text(certificate, flags[0])?, text(key, flags[1])?);
    let served = Served::check(&chain, &secret, SystemTime::now()).map_err(|problem| {
        let certificate = certificate.display();
        let (what, flag) = if problem.is_of_key() {
            (format!("the key `{}` of the certificate `{certificate}`", key.display()), flags[1])
        } else {
            (format!("the certificate `{certificate}`"), flags[0])
        };
        another(Failure::usage(format!("{what} cannot be used: {problem}")), flag)
    })?;
    Ok((chain, secret, served))
}

fn socket_address(text: &str) -> Result<SocketAddr, &'static str> {
    text.parse().map_err(|_| "must be an IP address and a port, such as 127.0.0.1:8080")
}

/// Found as the core finds it for each run: a path, or a name in PATH.
fn check_program(program: &OsStr) -> Result<(), Failure> {
    let path = Path::new(program);
    let found = if program.as_encoded_bytes().contains(&b'/') {
        is_executable(path)
    } else {
        let directories = std::env::var_os("PATH").unwrap_or_else(|| "/bin:/usr/bin".into());
        std::env::split_paths(&directories).any(|it| is_executable(&it.join(path)))
    };
    if found {
        return Ok(());
    }
    let shown = path.display();
    let failure = Failure::usage(format!("--run-command: there is no program `{shown}`"));
    Err(failure.hint("it is the path of an executable file, or a name that is in PATH"))
}

fn is_executable(path: &Path) -> bool {
    std::fs::metadata(path).is_ok_and(|it| it.is_file() && it.permissions().mode() & 0o111 != 0)
}

/// To standard error: standard output is for the core's address. A log that cannot be written holds
/// up nothing.
fn log(level: LevelFilter) -> LogWriter {
    let log = LogWriter::stderr(|lines| {
        format!("WARN {lines} lines of the log could not be written and are left out\n")
    });
    let filter = filter_fn(move |metadata| *metadata.level() <= shown(level, metadata.target()))
        .with_max_level_hint(level.max(LevelFilter::INFO));
    let writer = log.clone();
    let lines = tracing_subscriber::fmt::layer()
        .log_internal_errors(false)
        .with_writer(move || writer.clone())
        .with_ansi(io::stderr().is_terminal());
    tracing_subscriber::registry().with(lines.with_filter(filter)).init();
    // The default hook would wait for the reader of the log.
    std::panic::set_hook(Box::new(|panic| {
        if is_caught() {
            tracing::debug!("{panic}");
        } else {
            tracing::error!("{panic}");
        }
    }));
    log
}

/// What is shown of a target, at this level of the core.
fn shown(level: LevelFilter, target: &str) -> LevelFilter {
    if target == "gofer_core::output" {
        // Lines without a level are as `info`. Extensions know the level themselves.
        level.max(LevelFilter::INFO)
    } else if is_transport(target) && level < LevelFilter::TRACE {
        level.min(LevelFilter::WARN)
    } else {
        level
    }
}

/// Prints where the core is, and at its first start where its first token is.
fn announce(
    start: &StartCore,
    core: &Core,
    (address, reached): (SocketAddr, &str),
    access: &Access,
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
        // In memory only.
        None => "--skip-tls-verify".to_owned(),
    };
    let webhooks = core.external_events_address().map(|address| {
        let scheme = if start.external_events_cert.is_some() { "https" } else { "http" };
        format!("{scheme}://{address}/external/<extension>")
    });
    let run_command = start.run_command.as_ref().map(|words| {
        let words = words.iter().map(|word| quoted(&word.to_string_lossy()));
        words.collect::<Vec<_>>().join(" ")
    });
    let is_new = core.awaits_first_token();
    let log_in = format!("gofer --address {reached} {trust} token bootstrap --save");
    if out.json {
        return Ok(out.document(&json!({
            "address": address.to_string(),
            "store": show(&store),
            "certificate": show(&certificate),
            "webhooks": webhooks,
            "run_command": run_command,
            "log_in": is_new.then_some(&log_in),
            "token_file": access.kept_in(),
        }))?);
    }
    let bold = Style::new().bold();
    let mut stdout = anstream::stdout().lock();
    writeln!(stdout, "Gofer listens on {address}.")?;
    for (label, path) in [("store", show(&store)), ("certificate", show(&certificate))] {
        let path = path.unwrap_or_else(|| "in memory".to_owned());
        writeln!(stdout, "  {label:<12} {path}")?;
    }
    for (label, text) in [("webhooks", webhooks), ("run command", run_command)] {
        if let Some(text) = text {
            writeln!(stdout, "  {label:<12} {}", visible(&text))?;
        }
    }
    if is_new {
        let intro = "There is no token yet. Whoever runs this first has the first one:";
        writeln!(stdout, "\n{intro}\n\n  {bold}{log_in}{bold:#}")?;
    }
    if let Some(file) = access.kept_in() {
        writeln!(stdout, "\nThe first management token is in {file}, for your commands.")?;
    }
    if let Some(overridden) = access.overridden() {
        writeln!(stdout, "{overridden}")?;
    }
    Ok(stdout.flush()?)
}

/// No escalation: anyone who can start a core on a store controls it anyway.
async fn new_token(start: &StartCore, core: &Core, out: Out) -> Result<(), Failure> {
    let mut first = None;
    let keep = |token: &str| {
        first = Some(token.to_owned());
        Ok::<_, Failure>(())
    };
    // If the first one could not be kept, it is the one that is printed.
    if !start.access.allow_bootstrap {
        core.make_first_token(keep).await?;
    }
    let token = match first {
        Some(token) => token,
        None => {
            let request = proto::CreateTokenRequest {
                kind: proto::create_token_request::Kind::Management.into(),
                expires: crate::token::NO_END.to_owned(),
                ..Default::default()
            };
            core.client().api().create_token(request).await?.into_inner().token
        }
    };
    // An empty line, for people only.
    out.text("\n")?;
    let sentence = format!("New management token, shown only once: {token}");
    Ok(out.done(&sentence, &json!({ "token": token }))?)
}

/// An address to connect to: `localhost` if the core listens on all addresses, or on loopback with
/// a certificate that is for that name alone.
fn reached_at(address: SocketAddr, served: Option<&Served>) -> String {
    let ip = address.ip().to_string();
    let is_named = served.is_some_and(|it| !it.is_for(&ip) && it.is_for("localhost"));
    if address.ip().is_unspecified() || address.ip().is_loopback() && is_named {
        format!("localhost:{}", address.port())
    } else {
        address.to_string()
    }
}

/// Of an address with a port.
fn host(address: &str) -> &str {
    let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
    host.trim_start_matches('[').trim_end_matches(']')
}

/// Quoted for a shell.
fn quoted(text: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "/._-+:@%=,".contains(c);
    if !text.is_empty() && text.chars().all(is_plain) {
        text.to_owned()
    } else {
        format!("'{}'", text.replace('\'', r"'\''"))
    }
}
