//! The installed extensions and their states; how often and why they were restarted, if this Gofer
//! reports it.

use std::collections::HashMap;

use gofer_core::internal::Size;
use gofer_proto::embedded::extension_state::State;
use gofer_proto::embedded::{ExtensionOptions, ExtensionState, ListExtensionStatesRequest};
use gofer_proto::extension::{ExtensionState as Reported, ExtensionStatus};
use gofer_proto::{Extension, GetExtensionRequest, ListExtensionsRequest};
use gofer_sdk::GoDuration;
use serde_json::{Value, json};
use tonic::Code;

use super::{NOT_INSTALLED, subscriptions};
use crate::failure::Failure;
use crate::output::{Cell, Health, Row, moment, rfc3339};
use crate::progress;
use crate::session::Session;

struct ExtensionRow {
    extension: Extension,
    state: Option<ExtensionState>,
}

impl ExtensionRow {
    fn is_enabled(&self) -> bool {
        self.extension.status() == ExtensionStatus::Enabled
    }

    fn state(&self) -> Cell {
        if let Some(state) = &self.state {
            let health = match state.state() {
                State::Running => Health::Good,
                State::Stopped => Health::Off,
                State::Restarting | State::Unknown => Health::Bad,
                State::Starting | State::Updating | State::Stopping => Health::Changing,
            };
            return Cell::health(progress::state_word(state.state()), health);
        }
        match self.extension.state() {
            Reported::Running => Cell::health("running", Health::Good),
            Reported::Processing => Cell::health("starting", Health::Changing),
            Reported::Exited if self.is_enabled() => Cell::health("exited", Health::Bad),
            Reported::Exited => Cell::health("stopped", Health::Off),
            Reported::UnknownState => Cell::health("unknown", Health::Bad),
        }
    }

    fn restarts(&self) -> String {
        self.state.as_ref().map(|state| state.restarts.to_string()).unwrap_or_default()
    }

    /// If this Gofer reports them, and to this token.
    fn options(&self) -> Option<&ExtensionOptions> {
        self.state.as_ref()?.options.as_ref()
    }

    /// As it is written in a flag.
    fn duration(&self, of: fn(&ExtensionOptions) -> Option<i64>) -> Option<String> {
        let millis = self.options().and_then(of)?;
        Some(GoDuration::from_nanos(millis.saturating_mul(1_000_000)).to_string())
    }

    /// All that there is about it but its documentation.
    fn details(&self) -> Vec<(&'static str, Cell)> {
        let since = self.state.as_ref().map(|state| moment(state.since));
        let list = |of: fn(&ExtensionOptions) -> &Vec<String>, if_empty: &str| {
            let list = self.options().map(|it| of(it).join(", ")).unwrap_or_default();
            if list.is_empty() && self.options().is_some() { if_empty.to_owned() } else { list }
        };
        let duration = |of| self.duration(of).unwrap_or_default();
        // Limits are absent if it does not run in a container.
        let memory = self.options().and_then(|it| it.memory);
        let memory = memory.map(|it| Size(it.unsigned_abs()).to_string());
        let processes = self.options().and_then(|it| it.processes).map(|it| it.to_string());
        let root = self.options().and_then(|it| it.writable_root);
        vec![
            ("name", self.extension.name.clone().into()),
            ("image", self.extension.image.clone().into()),
            ("enabled", if self.is_enabled() { "yes" } else { "no" }.into()),
            ("state", self.state()),
            ("since", since.unwrap_or_default().into()),
            ("reason", self.reason().into()),
            ("restarts", self.restarts().into()),
            ("started", moment(self.extension.started).into()),
            ("url", self.extension.url.clone().into()),
            ("grants", list(|it| &it.grants, "none").into()),
            ("namespaces", list(|it| &it.namespaces, "all").into()),
            ("memory", memory.unwrap_or_default().into()),
            ("processes", processes.unwrap_or_default().into()),
            ("writable root", root.map_or("", |it| if it { "yes" } else { "no" }).into()),
            ("start timeout", duration(|it| it.start_timeout).into()),
            ("call timeout", duration(|it| it.call_timeout).into()),
            ("stop timeout", duration(|it| it.stop_timeout).into()),
        ]
    }

    fn reason(&self) -> &str {
        self.state.as_ref().map_or("", |state| &state.reason)
    }
}

impl Row for ExtensionRow {
    const HEADER: &'static [&'static str] =
        &["NAME", "STATE", "ENABLED", "RESTARTS", "STARTED", "IMAGE", "REASON"];

    fn cells(&self) -> Vec<Cell> {
        let enabled = if self.is_enabled() { "yes" } else { "no" };
        vec![
            self.extension.name.clone().into(),
            self.state(),
            enabled.into(),
            self.restarts().into(),
            moment(self.extension.started).into(),
            self.extension.image.clone().into(),
            self.reason().into(),
        ]
    }

    fn json(&self) -> Value {
        let Extension { name, image, url, started, documentation, .. } = &self.extension;
        let state = self.state.as_ref();
        let reported = crate::output::word(self.extension.state().as_str_name());
        json!({
            "name": name,
            "image": image,
            "url": url,
            "started": rfc3339(*started),
            "enabled": self.is_enabled(),
            "state": state.map_or(reported, |it| progress::state_word(it.state())),
            "reason": state.map(|it| &it.reason),
            "restarts": state.map(|it| it.restarts),
            "since": state.and_then(|it| rfc3339(it.since)),
            "grants": self.options().map(|it| &it.grants),
            "namespaces": self.options().map(|it| &it.namespaces),
            // In bytes.
            "memory": self.options().and_then(|it| it.memory),
            "processes": self.options().and_then(|it| it.processes),
            "writable_root": self.options().and_then(|it| it.writable_root),
            "start_timeout": self.duration(|it| it.start_timeout),
            "call_timeout": self.duration(|it| it.call_timeout),
            "stop_timeout": self.duration(|it| it.stop_timeout),
            "documentation": documentation,
        })
    }
}

/// By name; empty if this Gofer does not report states.
pub(super) async fn states(
    session: &Session,
    name: &str,
) -> Result<HashMap<String, ExtensionState>, Failure> {
    let request = ListExtensionStatesRequest { name: name.to_owned() };
    match session.embedded().list_extension_states(request).await {
        Ok(answer) => {
            let states = answer.into_inner().extensions.into_iter();
            Ok(states.map(|state| (state.name.clone(), state)).collect())
        }
        Err(status) if matches!(status.code(), Code::Unimplemented | Code::NotFound) => {
            Ok(HashMap::new())
        }
        Err(status) => Err(status.into()),
    }
}

pub(super) async fn list(session: &Session) -> Result<(), Failure> {
    let answer = session.api().list_extensions(ListExtensionsRequest {}).await?;
    let mut states = states(session, "").await?;
    let mut shown: Vec<_> = answer
        .into_inner()
        .extensions
        .into_iter()
        .map(|extension| ExtensionRow { state: states.remove(&extension.name), extension })
        .collect();
    // Extensions that are still being installed are only in this listing.
    for (name, state) in states {
        let extension =
            Extension { name, status: ExtensionStatus::Enabled.into(), ..Extension::default() };
        shown.push(ExtensionRow { extension, state: Some(state) });
    }
    shown.sort_by(|a, b| a.extension.name.cmp(&b.extension.name));
    let nothing = "No extensions are installed; `gofer extension install` installs one.";
    Ok(session.out.list(&shown, nothing)?)
}

pub(super) async fn get(name: String, session: &Session) -> Result<(), Failure> {
    let mut states = states(session, &name).await?;
    let request = GetExtensionRequest { name: name.clone() };
    let answer = session.api().get_extension(request).await;
    let answer = answer.map_err(|it| Failure::from(it).hint_on(Code::NotFound, NOT_INSTALLED))?;
    let extension = answer.into_inner().extension.unwrap_or_default();
    let shown = ExtensionRow { state: states.remove(&name), extension };
    if session.out.json {
        return subscriptions::write_json(session, &name, shown.json()).await;
    }
    session.out.details(shown.details(), &Value::Null)?;
    subscriptions::show(session, &name).await?;
    if !shown.extension.documentation.is_empty() {
        session.out.text(&format!("\n{}", shown.extension.documentation))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
