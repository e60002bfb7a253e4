//! What is known of GitHub's webhooks: the names of the events, and what is read from a payload.

use std::collections::HashMap;
use std::fmt;

use serde::de::{Deserialize, DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess};
use serde::de::{SeqAccess, Visitor};

/// The events, by the names that the header `X-GitHub-Event` has, in the order of the alphabet. Most
/// are in GitHub's documentation of webhooks; the requests to bypass, to dismiss and to exempt are
/// those of GitHub Enterprise Cloud.
pub(crate) const EVENTS: [&str; 82] = [
    "branch_protection_configuration",
    "branch_protection_rule",
    "bypass_request_push_ruleset",
    "bypass_request_secret_scanning",
    "check_run",
    "check_suite",
    "code_scanning_alert",
    "commit_comment",
    "create",
    "custom_property",
    "custom_property_values",
    "delete",
    "dependabot_alert",
    "deploy_key",
    "deployment",
    "deployment_protection_rule",
    "deployment_review",
    "deployment_status",
    "discussion",
    "discussion_comment",
    "dismissal_request_code_scanning",
    "dismissal_request_dependabot",
    "dismissal_request_secret_scanning",
    "exemption_request_push_ruleset",
    "exemption_request_secret_scanning",
    "fork",
    "github_app_authorization",
    "gollum",
    "installation",
    "installation_repositories",
    "installation_target",
    "issue_comment",
    "issue_dependencies",
    "issues",
    "label",
    "marketplace_purchase",
    "member",
    "membership",
    "merge_group",
    "meta",
    "milestone",
    "org_block",
    "organization",
    "package",
    "page_build",
    "personal_access_token_request",
    "ping",
    "project",
    "project_card",
    "project_column",
    "projects_v2",
    "projects_v2_item",
    "projects_v2_status_update",
    "public",
    "pull_request",
    "pull_request_review",
    "pull_request_review_comment",
    "pull_request_review_thread",
    "push",
    "registry_package",
    "release",
    "repository",
    "repository_advisory",
    "repository_dispatch",
    "repository_import",
    "repository_ruleset",
    "repository_vulnerability_alert",
    "secret_scanning_alert",
    "secret_scanning_alert_location",
    "secret_scanning_scan",
    "security_advisory",
    "security_and_analysis",
    "sponsorship",
    "star",
    "status",
    "sub_issues",
    "team",
    "team_add",
    "watch",
    "workflow_dispatch",
    "workflow_job",
    "workflow_run",
];

/// The event of this name, whatever its case.
pub(crate) fn named(name: &str) -> Option<&'static str> {
    EVENTS.into_iter().find(|event| event.eq_ignore_ascii_case(name))
}

/// The event that a name is most likely a misspelling of.
pub(crate) fn nearest(name: &str) -> Option<&'static str> {
    // Longer than any event, so that a long text costs nothing.
    if name.len() > 64 {
        return None;
    }
    let name = name.to_ascii_lowercase().replace(['-', ' '], "_");
    let distances = EVENTS.map(|event| (strsim::osa_distance(&name, event), event));
    let (distance, event) = distances.into_iter().min()?;
    // One typo in three letters; with more it is another word.
    (distance <= name.chars().count() / 3).then_some(event)
}

/// A variable's name after `GOFER_EXTENSION_GITHUB_`, and where its value is in the payload.
type Variable = (&'static str, &'static str);

const ACTION: Variable = ("ACTION", "action");
const REF: Variable = ("REF", "ref");
const REPOSITORY: Variable = ("REPOSITORY", "repository.full_name");

const PUSH: &[Variable] = &[
    ACTION,
    REF,
    REPOSITORY,
    ("HEAD_COMMIT_ID", "head_commit.id"),
    ("HEAD_COMMIT_AUTHOR_NAME", "head_commit.author.name"),
    ("HEAD_COMMIT_AUTHOR_EMAIL", "head_commit.author.email"),
    ("HEAD_COMMIT_AUTHOR_USERNAME", "head_commit.author.username"),
    ("HEAD_COMMIT_COMMITTER_NAME", "head_commit.committer.name"),
    ("HEAD_COMMIT_COMMITTER_EMAIL", "head_commit.committer.email"),
    ("HEAD_COMMIT_COMMITTER_USERNAME", "head_commit.committer.username"),
];

const PULL_REQUEST: &[Variable] = &[
    ACTION,
    REPOSITORY,
    ("PULLREQUEST_HEAD_REF", "pull_request.head.ref"),
    ("PULLREQUEST_HEAD_SHA", "pull_request.head.sha"),
    ("PULLREQUEST_AUTHOR_USERNAME", "pull_request.user.login"),
    ("PULLREQUEST_AUTHOR_EMAIL", "pull_request.user.email"),
    ("PULLREQUEST_AUTHOR_NAME", "pull_request.user.name"),
];

const RELEASE: &[Variable] = &[
    ACTION,
    REPOSITORY,
    ("RELEASE_TAG_NAME", "release.tag_name"),
    ("RELEASE_TARGET_COMMITISH", "release.target_commitish"),
    ("RELEASE_AUTHOR_LOGIN", "release.author.login"),
    ("RELEASE_CREATED_AT", "release.created_at"),
    ("RELEASE_PUBLISHED_AT", "release.published_at"),
];

const CREATE: &[Variable] = &[REF, ("REF_TYPE", "ref_type"), REPOSITORY];

const OTHER: &[Variable] = &[ACTION, REPOSITORY, ("SENDER", "sender.login")];

/// The longest value that a run gets; names, dates and commits are far shorter. All values of an
/// event together are within what Gofer stores for a run.
const MAX_VALUE_BYTES: usize = 4096;

/// What is read from a payload: the values that variables are made of, by their places.
///
/// Everything else is skipped, however large it is, and what is missing or of another kind than
/// expected is absent. So a payload that GitHub has changed yields what can still be read.
#[derive(Debug, Default)]
pub(crate) struct Payload(HashMap<&'static str, String>);

impl Payload {
    pub(crate) fn action(&self) -> &str {
        self.value(ACTION.1)
    }

    pub(crate) fn repository(&self) -> &str {
        self.value(REPOSITORY.1)
    }

    /// The variables of an event beside its name. Absent values are empty.
    pub(crate) fn variables(&self, event: &str) -> impl Iterator<Item = (&'static str, &str)> {
        let variables = match event {
            "push" => PUSH,
            "pull_request" => PULL_REQUEST,
            "release" => RELEASE,
            "create" => CREATE,
            _ => OTHER,
        };
        variables.iter().map(|(name, place)| (*name, self.value(place)))
    }

    fn value(&self, place: &str) -> &str {
        self.0.get(place).map_or("", String::as_str)
    }

    /// What comes last counts, as in most readers of JSON.
    fn set(&mut self, place: &'static str, text: &str) {
        // Half of a commit's ID is worse than none.
        let text = if text.len() > MAX_VALUE_BYTES { "" } else { text };
        // The environment of a process cannot hold NUL.
        self.0.insert(place, text.replace('\0', "\u{fffd}"));
    }
}

impl<'de> Deserialize<'de> for Payload {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut payload = Self::default();
        let all = [PUSH, PULL_REQUEST, RELEASE, CREATE, OTHER].into_iter().flatten();
        let wanted = all.map(|(_, place)| (*place, Some(*place))).collect();
        deserializer.deserialize_map(Walk { wanted, payload: &mut payload })?;
        Ok(payload)
    }
}

/// A walk through a part of the payload, which takes what is wanted of it.
struct Walk<'a> {
    /// Each place, and how it goes on from here; `None` if this is it.
    wanted: Vec<(&'static str, Option<&'static str>)>,
    payload: &'a mut Payload,
}

impl Walk<'_> {
    fn take(self, text: &str) {
        for (place, _) in self.wanted.iter().filter(|(_, rest)| rest.is_none()) {
            self.payload.set(place, text);
        }
    }
}

impl<'de> DeserializeSeed<'de> for Walk<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

/// A text or a number is taken where it is wanted. Nothing else is an error.
impl<'de> Visitor<'de> for Walk<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(key) = map.next_key::<String>()? {
            let further = self.wanted.iter().filter_map(|(place, rest)| {
                let rest = (*rest)?;
                let (here, rest) =
                    rest.split_once('.').map_or((rest, None), |(here, rest)| (here, Some(rest)));
                (here == key).then_some((*place, rest))
            });
            let wanted: Vec<_> = further.collect();
            if wanted.is_empty() {
                map.next_value::<IgnoredAny>()?;
            } else {
                map.next_value_seed(Walk { wanted, payload: self.payload })?;
            }
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        while seq.next_element::<IgnoredAny>()?.is_some() {}
        Ok(())
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<(), E> {
        self.take(text);
        Ok(())
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<(), E> {
        self.take(&number.to_string());
        Ok(())
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<(), E> {
        self.take(&number.to_string());
        Ok(())
    }

    fn visit_f64<E: Error>(self, number: f64) -> Result<(), E> {
        self.take(&number.to_string());
        Ok(())
    }

    fn visit_bool<E: Error>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_unit<E: Error>(self) -> Result<(), E> {
        Ok(())
    }
}
