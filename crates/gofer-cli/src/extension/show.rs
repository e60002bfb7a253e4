//! The installed extensions and how they fare; how often and why they were
//! started again, where this Gofer tells.

use std::collections::HashMap;

use gofer_proto::embedded::extension_state::State;
use gofer_proto::embedded::{ExtensionState, ListExtensionStatesRequest};
use gofer_proto::extension::{ExtensionState as Reported, ExtensionStatus};
use gofer_proto::{Extension, GetExtensionRequest, ListExtensionsRequest};
use serde_json::{Value, json};
use tonic::Code;

use super::NOT_INSTALLED;
use crate::failure::Failure;
use crate::output::{Cell, Mood, Row, moment, rfc3339};
use crate::progress;
use crate::session::Session;

struct Shown {
    extension: Extension,
    state: Option<ExtensionState>,
}

impl Shown {
    fn is_enabled(&self) -> bool {
        self.extension.status() == ExtensionStatus::Enabled
    }

    fn state(&self) -> Cell {
        if let Some(state) = &self.state {
            let mood = match state.state() {
                State::Running => Mood::Good,
                State::Stopped => Mood::Off,
                State::Restarting | State::Unknown => Mood::Bad,
                State::Starting | State::Updating | State::Stopping => Mood::Changing,
            };
            return Cell::mood(progress::word(state.state()), mood);
        }
        match self.extension.state() {
            Reported::Running => Cell::mood("running", Mood::Good),
            Reported::Processing => Cell::mood("starting", Mood::Changing),
            Reported::Exited if self.is_enabled() => Cell::mood("exited", Mood::Bad),
            Reported::Exited => Cell::mood("stopped", Mood::Off),
            Reported::UnknownState => Cell::mood("unknown", Mood::Bad),
        }
    }

    fn restarts(&self) -> String {
        self.state.as_ref().map(|state| state.restarts.to_string()).unwrap_or_default()
    }

    fn reason(&self) -> &str {
        self.state.as_ref().map_or("", |state| &state.reason)
    }
}

impl Row for Shown {
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
            "state": state.map_or(reported, |it| progress::word(it.state())),
            "reason": state.map(|it| &it.reason),
            "restarts": state.map(|it| it.restarts),
            "since": state.and_then(|it| rfc3339(it.since)),
            "documentation": documentation,
        })
    }
}

/// By name; none from a Gofer that does not tell.
async fn states(session: &Session, name: &str) -> Result<HashMap<String, ExtensionState>, Failure> {
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
        .map(|extension| Shown { state: states.remove(&extension.name), extension })
        .collect();
    // Those that are being installed are in no other listing.
    for (name, state) in states {
        let extension =
            Extension { name, status: ExtensionStatus::Enabled.into(), ..Extension::default() };
        shown.push(Shown { extension, state: Some(state) });
    }
    shown.sort_by(|a, b| a.extension.name.cmp(&b.extension.name));
    let nothing = "No extension is installed; `gofer extension install` does.";
    Ok(session.out.list(&shown, nothing)?)
}

pub(super) async fn get(name: String, session: &Session) -> Result<(), Failure> {
    let mut states = states(session, &name).await?;
    let request = GetExtensionRequest { name: name.clone() };
    let answer = session.api().get_extension(request).await;
    let answer = answer.map_err(|it| Failure::from(it).hint_on(Code::NotFound, NOT_INSTALLED))?;
    let extension = answer.into_inner().extension.unwrap_or_default();
    let shown = Shown { state: states.remove(&name), extension };
    let since = shown.state.as_ref().map(|state| moment(state.since));
    let lines = vec![
        ("name", shown.extension.name.clone().into()),
        ("image", shown.extension.image.clone().into()),
        ("enabled", if shown.is_enabled() { "yes" } else { "no" }.into()),
        ("state", shown.state()),
        ("since", since.unwrap_or_default().into()),
        ("reason", shown.reason().into()),
        ("restarts", shown.restarts().into()),
        ("started", moment(shown.extension.started).into()),
        ("url", shown.extension.url.clone().into()),
    ];
    session.out.details(lines, &shown.json())?;
    if !shown.extension.documentation.is_empty() {
        session.out.text(&format!("\n{}", shown.extension.documentation))?;
    }
    Ok(())
}
