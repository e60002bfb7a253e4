//! Installing, updating, enabling, disabling and removing extensions.

use std::collections::HashMap;
use std::io::Read as _;

use gofer_proto as proto;
use gofer_proto::embedded::{
    ExtensionOptions, InstallExtensionRequest, ListExtensionStatesRequest, UpdateExtensionRequest,
};
use gofer_sdk::GoDuration;
use serde_json::json;
use tonic::{Code, Response, Status};

use super::{Access, Configuration, Install, Limits, NOT_INSTALLED, RegistryLogin, Update};
use crate::conversation::{self, Image};
use crate::failure::Failure;
use crate::output::note;
use crate::pairs::{merge, unique};
use crate::progress::with_progress;
use crate::session::{Session, with_long_timeout};

/// The hint if an extension ends before it is ready.
const ITS_LOG: &str = "the reason is in the extension's log, which an embedded core writes to its \
                       standard error";

fn ended(status: &Status) -> bool {
    status.message().contains("the extension ended")
}

impl Configuration {
    fn given(&self) -> Result<HashMap<String, String>, Failure> {
        unique(&self.values, "--set KEY=VALUE", str::eq_ignore_ascii_case)
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
    let given = settings.given()?;
    let (user, pass) = login.read()?;
    let answered = if settings.interactive {
        let image = Image { name: image.clone(), user: user.clone(), pass: pass.clone() };
        conversation::install(session, image).await?
    } else {
        Vec::new()
    };
    let variables = merge(answered, given);
    let options = options(access, &limits);
    let has_options = options != ExtensionOptions::default();
    let request = InstallExtensionRequest {
        name: name.clone(),
        image,
        user,
        pass,
        variables,
        options: has_options.then_some(options),
    };
    let call = async { install_as(session, request).await };
    let outcome = with_progress(session, &name, &format!("installing {name}"), call).await;
    if let Err(status) = &outcome
        && has_options
        && lacks_additions(session, status).await
    {
        return Err(Failure::unimplemented(
            "this Gofer supports neither --grant and --for nor limits and timeouts",
        )
        .hint("without them, an extension of a full Gofer may do everything"));
    }
    outcome.map_err(|status| {
        Failure::from(status)
            .hint_on(Code::AlreadyExists, "`gofer extension update` changes an installed extension")
            .hint_if(ended, ITS_LOG)
            .hint_if(|it| it.message().contains("configuration `"), "-i lets it ask for that")
    })?;
    let sentence = format!("Installed {name}.");
    Ok(session.out.done(&sentence, &json!({ "installed": name }))?)
}

pub(super) async fn update(update: Update, session: &Session) -> Result<(), Failure> {
    let Update { name, image, settings, remove, access, no_grants, limits, reset, login } = update;
    let given = settings.given()?;
    let (user, pass) = login.read()?;
    let answered = if settings.interactive {
        let image = match &image {
            Some(image) => image.clone(),
            None => installed_image(session, &name).await?,
        };
        let image = Image { name: image, user: user.clone(), pass: pass.clone() };
        conversation::install(session, image).await?
    } else {
        Vec::new()
    };
    let variables = merge(answered, given);
    let has_login = !user.is_empty();
    let options = Some(options(access, &limits)).filter(|it| *it != ExtensionOptions::default());
    let mut reset_options: Vec<_> = reset.iter().map(|option| name_of(option)).collect();
    if no_grants {
        reset_options.push("grants".to_owned());
    }
    let has_options = options.is_some() || !reset_options.is_empty();
    if image.is_none() && variables.is_empty() && remove.is_empty() && !has_login && !has_options {
        return Err(Failure::usage("there is nothing to change").hint(
            "use --image, -c KEY=VALUE, --remove KEY or an option, such as --grant GRANT; \
             `gofer extension update --help` lists them",
        ));
    }
    let image = image.unwrap_or_default();
    let request = UpdateExtensionRequest {
        name: name.clone(),
        image,
        user,
        pass,
        variables,
        removed: remove,
        options,
        reset_options,
    };
    let call = async { session.embedded().update_extension(with_long_timeout(request)).await };
    let outcome = with_progress(session, &name, &format!("updating {name}"), call).await;
    let refused = match outcome {
        Ok(answer) => answer.into_inner().refused,
        Err(status) if lacks_additions(session, &status).await => {
            return Err(Failure::unimplemented("this Gofer does not support updates in place").hint(format!(
                "`gofer extension uninstall {name}`, install the new version under the same name, \
                 and subscribe its pipelines again; `gofer subscription list` shows their settings"
            )));
        }
        Err(status) => return Err(not_installed(status)),
    };
    if refused > 0 {
        let were = if refused == 1 { "was" } else { "were" };
        note(&format!(
            "{refused} of its subscriptions {were} refused; `gofer subscription list` shows why, \
             and `gofer subscription enable` tries again"
        ))?;
    }
    let sentence = format!("Updated {name}.");
    Ok(session.out.done(&sentence, &json!({ "updated": name, "refused": refused }))?)
}

/// With options if there are any, which only an embedded core supports.
async fn install_as(
    session: &Session,
    request: InstallExtensionRequest,
) -> Result<Response<()>, Status> {
    if request.options.is_some() {
        let answer = session.embedded().install_extension(with_long_timeout(request)).await?;
        return Ok(answer.map(drop));
    }
    let InstallExtensionRequest { name, image, user, pass, variables, options: _ } = request;
    let request = proto::InstallExtensionRequest { name, image, user, pass, variables };
    let answer = session.api().install_extension(with_long_timeout(request)).await?;
    Ok(answer.map(drop))
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
    Ok(session.out.done(&format!("Enabled {name}."), &json!({ "enabled": name }))?)
}

pub(super) async fn disable(name: String, session: &Session) -> Result<(), Failure> {
    let request = proto::DisableExtensionRequest { name: name.clone() };
    let call = async { session.api().disable_extension(with_long_timeout(request)).await };
    with_progress(session, &name, &format!("disabling {name}"), call)
        .await
        .map_err(not_installed)?;
    Ok(session.out.done(&format!("Disabled {name}."), &json!({ "disabled": name }))?)
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
