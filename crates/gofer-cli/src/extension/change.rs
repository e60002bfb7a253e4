//! Installing, updating, enabling, disabling and removing extensions.

use std::collections::HashMap;
use std::io::Read as _;
use std::path::Path;

use gofer_proto as proto;
use gofer_proto::embedded::{
    ExtensionOptions, InstallExtensionRequest, ListExtensionStatesRequest, UpdateExtensionRequest,
};
use gofer_proto::extension::ExtensionState;
use gofer_sdk::GoDuration;
use serde_json::json;
use tonic::{Code, Status};

use super::full;
use super::{Access, Configuration, Install, Limits, NOT_INSTALLED, RegistryLogin, Update};
use crate::conversation::{self, Image, ask_until_accepted};
use crate::failure::Failure;
use crate::output::{note, word};
use crate::pairs;
use crate::progress::with_progress;
use crate::session::{Session, with_long_timeout};

/// The hint if an extension ends before it is ready.
const ITS_LOG: &str = "the reason is in the extension's log, which an embedded core writes to its \
                       standard error; if there is none, is it an extension?";

fn ended(message: &str) -> bool {
    message.contains("the extension ended")
}

impl Configuration {
    fn given(&self, login: &RegistryLogin) -> Result<HashMap<String, String>, Failure> {
        let stdin_is = match self {
            Self { interactive: true, .. } => Some("the answers of -i"),
            _ => login.registry_password_stdin.then_some("--registry-password-stdin"),
        };
        pairs::settings(&self.values, "-c, --set KEY=VALUE", str::eq_ignore_ascii_case, stdin_is)
    }
}

/// The options that are given.
fn options(access: Access, limits: &Limits) -> ExtensionOptions {
    let Access { grants, namespaces } = access;
    let millis = |timeout: GoDuration| timeout.as_nanos() / 1_000_000;
    ExtensionOptions {
        grants,
        namespaces,
        memory: limits.memory.map(|it| i64::try_from(it.0).unwrap_or(i64::MAX)),
        processes: limits.processes.map(i64::from),
        writable_root: limits.writable_root,
        start_timeout: limits.start_timeout.map(millis),
        call_timeout: limits.call_timeout.map(millis),
        stop_timeout: limits.stop_timeout.map(millis),
    }
}

impl RegistryLogin {
    /// User and password; both empty without a login.
    fn read(self) -> Result<(String, String), Failure> {
        let Some(user) = self.registry_user else { return Ok(Default::default()) };
        let mut pass = String::new();
        std::io::stdin().read_to_string(&mut pass)?;
        let pass = pass.trim_end_matches(['\n', '\r']).to_owned();
        if pass.is_empty() {
            return Err(Failure::usage("the registry's password is empty")
                .hint("pass it on standard input: `--registry-password-stdin < password.txt`"));
        }
        Ok((user, pass))
    }
}

pub(super) async fn install(install: Install, session: &Session) -> Result<(), Failure> {
    let Install { name, image, settings, access, limits, login } = install;
    let given = settings.given(&login)?;
    let (user, pass) = login.read()?;
    let options = options(access, &limits);
    let has_options = options != ExtensionOptions::default();
    let asked = Image { name: image, user, pass };
    let call = async |variables| {
        let Image { name: image, user, pass } = asked.clone();
        let options = has_options.then(|| options.clone());
        let name = name.clone();
        let request = InstallExtensionRequest { name, image, user, pass, variables, options };
        install_as(session, request).await
    };
    let outcome = ask_until_accepted(
        settings.interactive,
        &given,
        async |interview| conversation::install(session, asked.clone(), interview).await,
        async |variables| {
            let doing = format!("installing {name}");
            let ready = Box::pin(full::until_ready(session, &name, &asked.name, call(variables)));
            with_progress(session, &name, &doing, ready).await
        },
    );
    let failure = match outcome.await {
        Ok(Ok(())) => {
            let sentence = format!("Installed {name}.");
            return Ok(session.out.done(&sentence, &json!({ "installed": name }))?);
        }
        Ok(Err(status)) => not_installed_now(session, status, &name, has_options).await,
        Err(failure) => failure,
    };
    let is_about_settings = |it: &str| !settings.interactive && it.contains("configuration `");
    let failure = failure.hint_if(is_about_settings, "-i lets it ask for that");
    let is_of_access =
        matches!(failure.code(), Some(Code::Unauthenticated | Code::PermissionDenied));
    Err(match program(&asked.name) {
        Some(program)
            if !is_of_access
                && !failure.message().starts_with("cannot connect")
                && !session.is_full_gofer().await =>
        {
            failure.hint(format!("for a program: `{program}`"))
        }
        _ => failure,
    })
}

/// The image that a file of this name would be as a program.
fn program(image: &str) -> Option<String> {
    let path = if image.contains('/') { image.to_owned() } else { format!("./{image}") };
    Path::new(&path).is_file().then(|| format!("exec:{path}"))
}

/// Why an extension could not be installed, and what to do on this Gofer.
async fn not_installed_now(
    session: &Session,
    status: Status,
    name: &str,
    has_options: bool,
) -> Failure {
    if has_options && lacks_additions(session, &status).await {
        let why = "this Gofer supports neither --grant and --for nor limits and timeouts";
        return Failure::unimplemented(why)
            .hint("without them, an extension of a full Gofer may do everything");
    }
    let failure = Failure::from(status).hint_if(ended, ITS_LOG);
    if failure.code() != Some(Code::AlreadyExists) {
        return failure;
    }
    failure.hint(if session.is_full_gofer().await {
        format!(
            "`gofer extension uninstall {name}` removes the installed one and its subscriptions"
        )
    } else {
        "`gofer extension update` changes an installed extension".to_owned()
    })
}

pub(super) async fn update(update: Update, session: &Session) -> Result<(), Failure> {
    let Update { name, image, settings, remove, access, no_grants, limits, reset, login } = update;
    let given = settings.given(&login)?;
    let (user, pass) = login.read()?;
    let has_login = !user.is_empty();
    let options = Some(options(access, &limits)).filter(|it| *it != ExtensionOptions::default());
    let mut reset_options: Vec<_> = reset.iter().map(|option| name_of(option)).collect();
    if no_grants {
        reset_options.push("grants".to_owned());
    }
    let has_options = options.is_some() || !reset_options.is_empty();
    let has_settings = settings.interactive || !given.is_empty() || !remove.is_empty();
    if image.is_none() && !has_settings && !has_login && !has_options {
        return Err(Failure::usage("there is nothing to change").hint(
            "use --image, -c KEY=VALUE, --remove KEY or an option, such as --grant GRANT; \
             `gofer extension update --help` lists them",
        ));
    }
    let asked = Image {
        name: match &image {
            None if settings.interactive => installed_image(session, &name).await?,
            image => image.clone().unwrap_or_default(),
        },
        user: user.clone(),
        pass: pass.clone(),
    };
    let request = UpdateExtensionRequest {
        name: name.clone(),
        image: image.unwrap_or_default(),
        user,
        pass,
        variables: HashMap::new(),
        removed: remove,
        options,
        reset_options,
    };
    let outcome = ask_until_accepted(
        settings.interactive,
        &given,
        async |interview| conversation::install(session, asked.clone(), interview).await,
        async |variables| {
            let request =
                with_long_timeout(UpdateExtensionRequest { variables, ..request.clone() });
            let call = async { session.embedded().update_extension(request).await };
            Ok(with_progress(session, &name, &format!("updating {name}"), call).await)
        },
    );
    let refused = match outcome.await? {
        Ok(answer) => answer.into_inner().refused,
        Err(status) if lacks_additions(session, &status).await => {
            return Err(Failure::unimplemented("this Gofer does not support updates in place").hint(format!(
                "`gofer extension uninstall {name}`, install the new version under the same name, \
                 and subscribe its pipelines again; `gofer subscription get` shows a subscription's \
                 settings"
            )));
        }
        Err(status) => return Err(not_installed(status)),
    };
    if refused > 0 {
        let were = if refused == 1 { "was" } else { "were" };
        note(&format!(
            "{refused} of its subscriptions {were} refused; `gofer subscription list <pipeline>` \
             shows why, and `gofer subscription enable` tries again"
        ))?;
    }
    let sentence = format!("Updated {name}.");
    Ok(session.out.done(&sentence, &json!({ "updated": name, "refused": refused }))?)
}

/// With options if there are any, which only an embedded core supports.
async fn install_as(session: &Session, request: InstallExtensionRequest) -> Result<(), Status> {
    if request.options.is_some() {
        return session.embedded().install_extension(with_long_timeout(request)).await.map(drop);
    }
    let InstallExtensionRequest { name, image, user, pass, variables, options: _ } = request;
    let request = proto::InstallExtensionRequest { name, image, user, pass, variables };
    session.api().install_extension(with_long_timeout(request)).await.map(drop)
}

/// Whether a call failed because this Gofer lacks the API that only an embedded core has.
async fn lacks_additions(session: &Session, status: &Status) -> bool {
    if status.code() != Code::Unimplemented {
        return false;
    }
    let request = ListExtensionStatesRequest::default();
    let answer = session.embedded().list_extension_states(request).await;
    answer.is_err_and(|status| status.code() == Code::Unimplemented)
}

/// An option's name in the API, by that of its flag.
fn name_of(flag: &str) -> String {
    if flag == "for" { "namespaces".to_owned() } else { flag.replace('-', "_") }
}

async fn installed_image(session: &Session, name: &str) -> Result<String, Failure> {
    let request = proto::GetExtensionRequest { name: name.to_owned() };
    let answer = session.api().get_extension(request).await;
    let answer = answer.map_err(|it| Failure::from(it).hint_on(Code::NotFound, NOT_INSTALLED))?;
    Ok(answer.into_inner().extension.unwrap_or_default().image)
}

pub(super) async fn enable(name: String, session: &Session) -> Result<(), Failure> {
    let request = proto::EnableExtensionRequest { name: name.clone() };
    let call = async { session.api().enable_extension(with_long_timeout(request)).await };
    with_progress(session, &name, &format!("enabling {name}"), call)
        .await
        .map_err(not_installed)?;
    let state = full::state(session, &name).await;
    let sentence = if state == Some(ExtensionState::Exited) {
        format!("Marked {name} as enabled. It is not running, perhaps until Gofer is restarted.")
    } else {
        format!("Enabled {name}.")
    };
    Ok(session.out.done(&sentence, &json!({ "enabled": name, "state": word_of(state) }))?)
}

pub(super) async fn disable(name: String, session: &Session) -> Result<(), Failure> {
    let request = proto::DisableExtensionRequest { name: name.clone() };
    let call = async { session.api().disable_extension(with_long_timeout(request)).await };
    with_progress(session, &name, &format!("disabling {name}"), call)
        .await
        .map_err(not_installed)?;
    let state = full::state(session, &name).await;
    let sentence = if matches!(state, Some(ExtensionState::Running | ExtensionState::Processing)) {
        format!("Marked {name} as disabled. It is still running, perhaps until Gofer is restarted.")
    } else {
        format!("Disabled {name}.")
    };
    Ok(session.out.done(&sentence, &json!({ "disabled": name, "state": word_of(state) }))?)
}

fn word_of(state: Option<ExtensionState>) -> Option<String> {
    state.map(|state| word(state.as_str_name()))
}

pub(super) async fn uninstall(name: String, session: &Session) -> Result<(), Failure> {
    let request = proto::UninstallExtensionRequest { name: name.clone() };
    let call = async { session.api().uninstall_extension(with_long_timeout(request)).await };
    let outcome = with_progress(session, &name, &format!("uninstalling {name}"), call).await;
    outcome.map_err(not_installed)?;
    Ok(session.out.done(&format!("Uninstalled {name}."), &json!({ "uninstalled": name }))?)
}

fn not_installed(status: Status) -> Failure {
    Failure::from(status).hint_on(Code::NotFound, NOT_INSTALLED).hint_if(ended, ITS_LOG)
}
